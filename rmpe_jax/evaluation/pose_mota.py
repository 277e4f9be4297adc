"""PoseTrack's MOTA: the tracks of each joint, scored like people (Andriluka et al., CVPR 2018).

The joints of a kind are the objects of CLEAR MOT: annotated joints with the identity of their
person, and found joints with the track of theirs. A pair may match within half a head size, as in
PCKh; the head size is .6 times the diagonal of the annotated box around the head. MOTA is computed
for each joint over all videos; the total is the mean over the joints. Ears are not scored. Head is
the mean over nose, upper neck and head top.

This is the definition of the benchmark's evaluation code, poseval, without two of its properties:
it drops the last frame of each video, and in a frame in which nobody is annotated or nobody is
found it counts one miss and one false positive of each joint.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.tracks import TrackedPeople
from rmpe_jax.evaluation.clear_mot import ClearCounts, FramePairs, count_clear
from rmpe_jax.skeletons import POSETRACK, Skeleton

JOINTS = tuple(joint for joint in POSETRACK.joints if not joint.endswith("ear"))
COLUMNS = {
    "Head": ("nose", "upper_neck", "head_top"),
    **{
        part.capitalize(): (f"left_{part}", f"right_{part}")
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    },
}
_HEAD_FRACTION = 0.6  # of the diagonal of the head's box
_MAX_DISTANCE = 0.5  # head sizes

JointCounts = dict[str, ClearCounts]


def count_joints(
    truth: Sequence[TrackedPeople],
    found: Sequence[TrackedPeople],
    skeleton: Skeleton,
    min_score: float,
) -> JointCounts | None:
    """The counts of each of `JOINTS` in one video; those that the skeleton lacks have none.

    Args:
      truth: the annotated people of each frame.
      found: the people in tracks of each frame.
      skeleton: the joints of both.
      min_score: found joints with lower scores are left out.

    Returns:
      None if a person's head has no size.
    """
    sizes = [_head_sizes(people) for people in truth]
    if any(np.isnan(of_frame).any() for of_frame in sizes):
        return None
    return {
        joint: count_clear(
            _pairs(people, size, others, skeleton.index(joint), min_score)
            for people, size, others in zip(truth, sizes, found, strict=True)
        )
        if joint in skeleton.joints
        else ClearCounts()
        for joint in JOINTS
    }


def pose_mota(counts: JointCounts | None) -> dict[str, float]:
    """MOTA of `COLUMNS` and in total, in percent.

    Joints that are annotated nowhere are left out of the means. NaN without any joint or any
    counts.
    """
    mota = {joint: counts[joint].mota for joint in JOINTS} if counts else {}
    columns = {name: [mota.get(j, np.nan) for j in joints] for name, joints in COLUMNS.items()}
    return {
        name: _mean(of_joints)
        for name, of_joints in (*columns.items(), ("Total", [*mota.values()]))
    }


def _head_sizes(people: TrackedPeople) -> Float[np.ndarray, " n"]:
    sides = people.head_boxes[:, 2:] - people.head_boxes[:, :2]
    return _HEAD_FRACTION * np.hypot(sides[:, 0], sides[:, 1])


def _pairs(
    people: TrackedPeople,
    sizes: Float[np.ndarray, " n"],
    found: TrackedPeople,
    joint: int,
    min_score: float,
) -> FramePairs:
    """The joints of one kind in a frame; a pair costs its distance in head sizes."""
    rows = people.keypoint_scores[:, joint] > 0
    columns = found.keypoint_scores[:, joint] >= max(min_score, 1e-9)
    offset = people.keypoints[rows, None, joint] - found.keypoints[None, columns, joint]
    distance = np.linalg.norm(offset, axis=-1) / sizes[rows, None]
    costs = np.where(distance <= _MAX_DISTANCE, distance, np.inf)
    return FramePairs(people.ids[rows], found.ids[columns], costs)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return 100 * sum(known) / len(known) if known else float("nan")
