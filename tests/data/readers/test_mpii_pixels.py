"""MPII's joints, as they are read, lie where a network that was trained on COCO sees them."""

import json

import numpy as np

from rmpe_jax.data.readers.mpii import read_mpii
from rmpe_jax.skeletons import COCO, MPII

# Hips are left out: MPII annotates them elsewhere than COCO.
JOINTS = [f"{side}_{part}" for side in ("left", "right")
          for part in ("shoulder", "elbow", "wrist", "knee", "ankle")]  # fmt: skip
MIN_HEIGHT = 0.5  # of the network's peak


def test_joints_are_counted_from_0(shared_data):
    """Pixel centers are at integers from 0; joints counted from 1 would be off by 1."""
    dataset = read_mpii(shared_data / "mpii", "train")
    labels = json.loads((shared_data / "teacher/mpii_train.json").read_text())
    theirs = {one["annotation"]: np.array(one["keypoints"]) for one in labels}
    mpii, coco = ([skeleton.joints.index(name) for name in JOINTS] for skeleton in (MPII, COCO))
    errors = []
    for record in dataset.images:
        people = zip(record.person_ids, record.keypoints, record.visibility, record.head_sizes,
                     strict=True)  # fmt: skip
        for person_id, keypoints, visibility, head_size in people:
            found = theirs[person_id][coco]
            offset = found[:, :2] - keypoints[mpii]
            near = np.hypot(*offset.T) < 0.5 * head_size
            errors.append(offset[near & (found[:, 2] > MIN_HEIGHT) & (visibility[mpii] > 0)])
    errors = np.concatenate(errors)
    assert len(errors) > 5000
    assert np.abs(errors.mean(0)).max() < 0.25
    assert np.abs(np.median(errors, 0)).max() < 0.25
