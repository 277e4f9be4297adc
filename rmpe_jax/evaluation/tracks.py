"""Scores the tracks of videos: MOTA, IDF1 and HOTA of people, and PoseTrack's MOTA of joints.

People are compared by OKS or by the IoU of their boxes; from .5 on they may match. Videos are
counted one by one, and the sums of their counts give the scores of all.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from rmpe_jax.data.tracks import TrackedFrame, TrackedPeople
from rmpe_jax.evaluation import pose_mota
from rmpe_jax.evaluation.clear_mot import ClearCounts, FramePairs, count_clear
from rmpe_jax.evaluation.hota import HotaCounts, count_hota
from rmpe_jax.evaluation.identity import FrameSimilarities, IdentityCounts, count_identities
from rmpe_jax.evaluation.pose_mota import JointCounts
from rmpe_jax.ops.geometry import box_area, box_iou
from rmpe_jax.ops.oks import oks
from rmpe_jax.skeletons import Skeleton

Similarity = Literal["oks", "iou"]
Counts = TypeVar("Counts", ClearCounts, IdentityCounts, HotaCounts)

MIN_JOINT_SCORE = 0.2  # of joints that PoseTrack's MOTA counts
AREA_OF_BOX = 0.53  # the area of a person, as a fraction of the box
THRESHOLD = 0.5  # similarity from which on two people may match
_NOWHERE = 1e6  # pixels; where a joint is that is not found


class TrackCounts(NamedTuple):
    """What is counted in one or more videos."""

    clear: ClearCounts
    identity: IdentityCounts
    hota: HotaCounts
    joints: JointCounts | None


def count_tracks(
    truth: Sequence[TrackedFrame],
    found: Sequence[TrackedPeople],
    skeleton: Skeleton,
    similarity: Similarity = "oks",
    min_joint_score: float = MIN_JOINT_SCORE,
) -> TrackCounts:
    """The counts of one video.

    Frames that are not labeled are left out. So are joints in the regions that a frame ignores,
    people who have no other joints, and found people without a track.

    Args:
      truth: the annotated frames, in the order of time.
      found: the people found in each of them.
      skeleton: the joints of both.
      similarity: OKS over the joints that are annotated and are found by somebody in the video, or
        IoU of boxes. For OKS the area of a person is .53 times that of the box, as in CrowdPose,
        because videos have no segments.
      min_joint_score: found joints with lower scores do not count for PoseTrack's MOTA.
    """
    pairs = _pairs(truth, [people.pick(people.ids >= 0) for people in found])
    frames = _similarities(pairs, skeleton, similarity)
    return TrackCounts(
        count_clear(_may_match(frame) for frame in frames),
        count_identities(frames, THRESHOLD),
        count_hota(frames),
        pose_mota.count_joints(
            [people for people, _ in pairs],
            [others for _, others in pairs],
            skeleton,
            min_joint_score,
        ),
    )


def compare_people(
    truth: Sequence[TrackedFrame],
    found: Sequence[TrackedPeople],
    skeleton: Skeleton,
    similarity: Similarity = "oks",
) -> list[FrameSimilarities]:
    """How similar the people of a video's labeled frames are, found people without a track too.

    Arguments and what is left out are those of `count_tracks`.
    """
    return _similarities(_pairs(truth, found), skeleton, similarity)


def add_counts(counts: Sequence[TrackCounts]) -> TrackCounts:
    """The counts of several videos together."""
    joints = [of_video.joints for of_video in counts if of_video.joints is not None]
    by_joint = {
        joint: _add(ClearCounts, [of_video[joint] for of_video in joints])
        for joint in pose_mota.JOINTS
    }
    return TrackCounts(
        _add(ClearCounts, [of_video.clear for of_video in counts]),
        _add(IdentityCounts, [of_video.identity for of_video in counts]),
        _add(HotaCounts, [of_video.hota for of_video in counts]),
        by_joint if len(joints) == len(counts) else None,
    )


def track_metrics(counts: TrackCounts) -> dict[str, float]:
    """The scores of counts: `MOTA`, `IDF1`, `HOTA`, `DetA`, `AssA` in percent, and `switches`.

    NaN where nobody is annotated.
    """
    hota = counts.hota
    percent = {
        "MOTA": counts.clear.mota,
        "IDF1": counts.identity.idf1,
        "HOTA": hota.hota,
        "DetA": hota.deta,
        "AssA": hota.assa,
    }
    return {
        **{name: 100 * value for name, value in percent.items()},
        "switches": float(counts.clear.switches),
    }


def _add(kind: Callable[..., Counts], counts: Sequence[Counts]) -> Counts:
    """A named tuple of the sums of each field."""
    return kind(*map(sum, zip(*counts, strict=True)))


def _pairs(
    truth: Sequence[TrackedFrame], found: Sequence[TrackedPeople]
) -> list[tuple[TrackedPeople, TrackedPeople]]:
    """The annotated and the found people of each labeled frame, with the joints that count."""
    return [
        (_counted(frame.people, frame), _counted(people, frame))
        for frame, people in zip(truth, found, strict=True)
        if frame.is_labeled
    ]


def _similarities(
    pairs: Sequence[tuple[TrackedPeople, TrackedPeople]], skeleton: Skeleton, similarity: Similarity
) -> list[FrameSimilarities]:
    used = np.zeros(skeleton.num_keypoints, bool)
    for _, people in pairs:
        used |= (people.keypoint_scores > 0).any(0)
    return [
        FrameSimilarities(
            people.ids,
            others.ids,
            _oks(people, others, used, skeleton)
            if similarity == "oks"
            else box_iou(people.bboxes, others.bboxes),
        )
        for people, others in pairs
    ]


def _counted(people: TrackedPeople, frame: TrackedFrame) -> TrackedPeople:
    """The people who have joints outside the ignored regions, and these joints only."""
    ignored = np.zeros(people.keypoint_scores.shape, bool)
    for polygon in frame.ignored:
        ignored |= _is_inside(people.keypoints, polygon)
    known = np.isfinite(people.keypoints).all(-1) & ~ignored
    scores = np.where(known, people.keypoint_scores, 0)
    return people._replace(keypoint_scores=scores).pick(scores.max(-1, initial=0) > 0)


def _is_inside(
    points: Float[np.ndarray, "*n 2"], polygon: Float[np.ndarray, "p 2"]
) -> Bool[np.ndarray, "*n"]:
    """Whether points are inside a polygon: a ray to the right crosses its border an odd time."""
    x, y = points[..., 0], points[..., 1]
    inside = np.zeros(x.shape, bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, 1, 0), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    return inside


def _oks(
    people: TrackedPeople, found: TrackedPeople, used: Bool[np.ndarray, " k"], skeleton: Skeleton
) -> Float[np.ndarray, "n m"]:
    points = np.where(found.keypoint_scores[..., None] > 0, found.keypoints, _NOWHERE)
    annotated = ((people.keypoint_scores > 0) & used).astype(np.uint8)
    area = AREA_OF_BOX * box_area(people.bboxes)
    points, truth = points.astype(np.float64), people.keypoints.astype(np.float64)
    return oks(points, truth, annotated, area.astype(np.float64), skeleton.sigmas).T


def _may_match(frame: FrameSimilarities) -> FramePairs:
    similar = frame.similarities
    costs = np.where(similar >= THRESHOLD, 1 - similar, np.inf)
    return FramePairs(frame.gt_ids, frame.ids, costs)
