"""COCO's annotations and results as padded arrays, for `average_precision`."""

from collections.abc import Sequence

import numpy as np

from rmpe_jax.evaluation.coco import Annotations, load_ground_truth
from rmpe_jax.evaluation.results import ImageId
from rmpe_jax.ops import geometry
from rmpe_jax.ops.average_precision import GroundTruth, ScoredPoses
from rmpe_jax.ops.padding import bucket_size, pad_people


def ground_truth_arrays(
    annotations: Annotations, num_keypoints: int, image_ids: Sequence[ImageId]
) -> GroundTruth:
    """The people of these pictures, in this order.

    Raises:
      UserError: not COCO's keypoint ground truth.
    """
    place = {image_id: i for i, image_id in enumerate(image_ids)}
    content = load_ground_truth(annotations, num_keypoints)
    people = [a for a in content["annotations"] if a["image_id"] in place]
    index = np.array([place[a["image_id"]] for a in people], np.int64)
    joints = _floats([a["keypoints"] for a in people], num_keypoints, 3)
    iscrowd = np.array([bool(a["iscrowd"]) for a in people], bool)
    nothing_labelled = np.array([a["num_keypoints"] == 0 for a in people], bool)
    columns = (
        joints[..., :2],
        joints[..., 2],
        geometry.xyxy_from_xywh(_floats([a["bbox"] for a in people], 4)),
        _floats([a["area"] for a in people]),
        iscrowd,
        iscrowd | nothing_labelled,
    )
    valid, padded = pad_people(index, len(image_ids), _people_per_picture(index), *columns)
    return GroundTruth._make([*padded, valid])


def detection_arrays(
    results: Sequence[dict], num_keypoints: int, image_ids: Sequence[ImageId]
) -> ScoredPoses:
    """Results in COCO's form on these pictures; others are left out."""
    place = {image_id: i for i, image_id in enumerate(image_ids)}
    found = [r for r in results if r["image_id"] in place]
    index = np.array([place[r["image_id"]] for r in found], np.int64)
    keypoints = _floats([r["keypoints"] for r in found], num_keypoints, 3)[..., :2]
    boxes = [r.get("bbox") for r in found]
    # As pycocotools does: the size of a pose is its box's, or that of its joints' extent.
    area = [
        box[2] * box[3] if box else np.prod(np.ptp(pose, 0))
        for box, pose in zip(boxes, keypoints, strict=True)
    ]
    columns = keypoints, _floats([r["score"] for r in found]), _floats(area)
    valid, padded = pad_people(index, len(image_ids), _people_per_picture(index), *columns)
    return ScoredPoses._make([*padded, valid])


def _people_per_picture(index: np.ndarray) -> int:
    return bucket_size(int(np.bincount(index).max(initial=0)))


def _floats(values: Sequence, *shape: int) -> np.ndarray:
    # In float64, so that whoever computes in it has all digits.
    return np.array(values, np.float64).reshape(-1, *shape)
