"""Labels of people as a model finds them, merged with what a dataset annotates.

`merge_labels` is the rule of `rmpe label`; docs/data.md has it in words.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.data.readers.records import ImageRecord
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.ops.oks import oks
from rmpe_jax.skeletons import COCO, Skeleton

MATCH_IOU = 0.5  # from here on two boxes are those of the same person
DUPLICATE_OKS = 0.5  # from here on a found person is one that has labels already
VISIBLE = 2  # visibility of a model's joints


class FoundPeople(NamedTuple):
    """The people that a model found in one image.

    Attributes:
      keypoints: image pixels; NaN where the model has no joint.
      keypoint_scores: of each joint, 0 to 1.
      bboxes: xyxy image pixels.
      scores: of each person.
      person_ids: the annotation that a person was found by; -1 for people found otherwise.
    """

    keypoints: Float[np.ndarray, "n k 2"]
    keypoint_scores: Float[np.ndarray, "n k"]
    bboxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    person_ids: Int[np.ndarray, " n"]

    @classmethod
    def none(cls, num_keypoints: int) -> "FoundPeople":
        """Those of an image in which nobody was found."""
        return cls(
            np.zeros((0, num_keypoints, 2), np.float32),
            np.zeros((0, num_keypoints), np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
        )


@dataclasses.dataclass(frozen=True)
class MergeRule:
    """Which joints come from the annotations and which from the model.

    Creating one raises a `UserError` if the skeleton lacks a joint of `from_model`.

    Attributes:
      prefer: whose joint is taken where both have one. With "model" that is the model's, if its
        score is at least `sure`.
      min_score: of a model's joint that is labeled.
      sure: score from which on the model is sure of a joint.
      from_model: names of joints that are never those of the annotations, because the dataset
        places them elsewhere; such as the hips of MPII.
      max_distance: in sides of the person's box, the longer one. An annotated joint that is farther
        from one that the model is sure of disagrees with it. Joints that are exchanged, left for
        right, are about .2 apart in a person who stands facing the camera.
      min_joints: with at least `min_score`, of a found person who has no annotated joints.
      skeleton: the joints of all keypoints.
    """

    prefer: Literal["annotations", "model"] = "annotations"
    min_score: float = 0.3
    sure: float = 0.5
    from_model: tuple[str, ...] = ()
    max_distance: float = 0.15
    min_joints: int = 4
    skeleton: Skeleton = COCO

    def __post_init__(self) -> None:
        if self.prefer not in ("annotations", "model"):
            raise UserError(f"prefer is {self.prefer!r}: choose annotations or model")
        for joint in self.from_model:
            self.skeleton.index(joint)

    @property
    def is_from_model(self) -> Bool[np.ndarray, " k"]:
        """Which joints are those of `from_model`."""
        return np.array([joint in self.from_model for joint in self.skeleton.joints])

    def settings(self) -> dict[str, Any]:
        """The rule as it is recorded in a file."""
        return dataclasses.asdict(self) | {"skeleton": self.skeleton.name}


@dataclasses.dataclass
class MergeCounts:
    """What became of people and joints.

    Attributes:
      annotated: people of the annotations, crowds aside.
      matched: annotated people whom the model found too.
      added: found people who are not annotated.
      repeated: found people who are left out because they are somebody who has labels already.
      unclear: found people who are left out because too few of their joints are certain.
      kept: joints of the annotations.
      modeled: joints of the model.
      unlabeled: joints of matched and added people that are in neither.
      disagreeing: annotated joints far from those that the model is sure of.
    """

    annotated: int = 0
    matched: int = 0
    added: int = 0
    repeated: int = 0
    unclear: int = 0
    kept: int = 0
    modeled: int = 0
    unlabeled: int = 0
    disagreeing: int = 0

    def __add__(self, other: "MergeCounts") -> "MergeCounts":
        """The sums."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return MergeCounts(*(a + b for a, b in zip(mine, theirs, strict=True)))


@dataclasses.dataclass(frozen=True)
class LabeledPeople:
    """The labels of one image: first everybody of the annotations in their order, then the others.

    Attributes:
      keypoints: image pixels; 0 where visibility is 0.
      visibility: as in `ImageRecord`; 2 for joints of the model.
      keypoint_scores: of joints of the model its scores; 1 for annotated joints, 0 for others.
      bboxes: xyxy image pixels: the annotated ones, and the detector's of people who were added.
      area: square pixels: the annotated one, that of the box of people who were added.
      iscrowd: whether the entry is a region of several people.
      person_ids: unique in the image.
      scores: 1 for people of the annotations.
      found_index: index of the found person that each was matched with or is; -1 without.
      counts: what became of people and joints.
    """

    keypoints: Float[np.ndarray, "n k 2"]
    visibility: UInt8[np.ndarray, "n k"]
    keypoint_scores: Float[np.ndarray, "n k"]
    bboxes: Float[np.ndarray, "n 4"]
    area: Float[np.ndarray, " n"]
    iscrowd: Bool[np.ndarray, " n"]
    person_ids: Int[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]
    found_index: Int[np.ndarray, " n"]
    counts: MergeCounts


def merge_labels(
    annotated: ImageRecord, found: FoundPeople, rule: MergeRule, next_id: int | None = None
) -> LabeledPeople:
    """Merge the people that a model found in an image with those that a dataset annotates.

    1. Each found person is matched with an annotated one: the one of the same id, else the one
       whose box overlaps most, with an IoU of at least `MATCH_IOU`. Crowds match nobody, and
       people of a crowd's id are not used.
    2. An annotated joint stays. With `prefer="model"` the model's takes its place if the model is
       sure of it.
    3. A joint that is not annotated is the model's, if its score is at least `min_score`.
    4. Joints of `from_model` count as not annotated.
    5. Annotated joints that are far from those that the model is sure of are counted; rule 2 says
       which of the two is taken.
    6. A found person without a match is added, if enough of the joints are certain, and if neither
       the box nor the joints are those of somebody who is labeled already. For an annotated person
       without any joints the same number of certain joints is needed, else no joint is labeled.

    Everybody of the annotations stays, with box, area and id. The model's joints outside of the
    image are not used if the record says how large the image is.

    Args:
      annotated: the image, in the joints of `rule.skeleton`.
      found: in the same joints.
      rule: see `MergeRule`.
      next_id: id of the first person who is added; by default the one after the image's largest.

    Raises:
      UserError: keypoints do not have the joints of the skeleton.
    """
    rule.skeleton.check_num_keypoints(annotated.keypoints.shape[1], "annotated people")
    rule.skeleton.check_num_keypoints(found.keypoints.shape[1], "found people")
    found = found._replace(keypoint_scores=_usable_scores(found, annotated.declared_size))
    found_index = _match(annotated, found)
    merged = _annotated_people(annotated, _take(found, found_index), found_index, rule)
    rest = np.setdiff1d(np.flatnonzero(~_of_crowd(annotated, found)), found_index)
    certain = found.keypoint_scores[rest] >= rule.min_score
    enough = certain.sum(-1) >= rule.min_joints
    merged.counts.unclear = int((~enough).sum())
    new = rest[enough][_nobody_else(merged, _take(found, rest[enough]), rule)]
    merged.counts.repeated = int(enough.sum()) - len(new)
    return _with_others(merged, _take(found, new), new, rule, next_id)


def refit_boxes(people: LabeledPeople, detected: Float[np.ndarray, "m 4"]) -> LabeledPeople:
    """The same people, each with the detected box that overlaps most in place of the person's own.

    For datasets whose boxes are the extents of joints, which are smaller than those of detectors.
    A box whose best overlap is less than `MATCH_IOU` stays, and so do crowds and all areas.

    Args:
      people: the labels of an image.
      detected: a detector's boxes there, xyxy image pixels.
    """
    if not len(detected):
        return people
    overlap = geometry.box_iou(people.bboxes, detected.astype(np.float64))
    fits = (overlap.max(-1) >= MATCH_IOU) & ~people.iscrowd
    bboxes = np.where(fits[:, None], detected[overlap.argmax(-1)], people.bboxes)
    return dataclasses.replace(people, bboxes=bboxes.astype(np.float64))


def _usable_scores(found: FoundPeople, size: tuple[int, int] | None) -> Float[np.ndarray, "n k"]:
    """The scores of joints, -1 for those that are not finite or lie outside of the image."""
    usable = np.isfinite(found.keypoints).all(-1) & np.isfinite(found.keypoint_scores)
    if size is not None:
        # Pixel centers are at whole numbers, so the image ends half a pixel beside them.
        limit = np.array(size) - 0.5
        usable &= ((found.keypoints >= -0.5) & (found.keypoints <= limit)).all(-1)
    return np.where(usable, found.keypoint_scores, -1).astype(np.float32)


def _of_crowd(annotated: ImageRecord, found: FoundPeople) -> Bool[np.ndarray, " n"]:
    """Who was found in the box of a crowd; these are not used."""
    return np.isin(found.person_ids, annotated.person_ids[annotated.iscrowd])


def _match(annotated: ImageRecord, found: FoundPeople) -> Int[np.ndarray, " n"]:
    """For each annotated person the index of a found one, -1 without."""
    result = np.full(len(annotated.bboxes), -1)
    is_free = ~_of_crowd(annotated, found)
    people = np.flatnonzero(~annotated.iscrowd)
    rows = {int(annotated.person_ids[row]): row for row in people}
    for index in np.argsort(-found.scores, kind="stable"):
        row = rows.pop(int(found.person_ids[index]), None)
        if row is not None:
            result[row], is_free[index] = index, False
    overlap = geometry.box_iou(annotated.bboxes, found.bboxes.astype(np.float64))
    overlap[annotated.iscrowd | (result >= 0)] = 0
    overlap[:, ~is_free] = 0
    while overlap.max(initial=0) >= MATCH_IOU:
        row, index = np.unravel_index(overlap.argmax(), overlap.shape)
        result[row] = index
        overlap[row], overlap[:, index] = 0, 0
    return result


def _take(found: FoundPeople, indices: Int[np.ndarray, " m"]) -> FoundPeople:
    """The found people at `indices`; nothing but zeros at index -1."""
    padded = (np.concatenate([a, np.zeros((1, *a.shape[1:]), a.dtype)]) for a in found)
    return FoundPeople(*(array[indices] for array in padded))


def _annotated_people(
    annotated: ImageRecord, model: FoundPeople, found_index: Int[np.ndarray, " n"], rule: MergeRule
) -> LabeledPeople:
    """The people of the annotations, each with the found person of the same row of `model`."""
    people, matched = ~annotated.iscrowd, found_index >= 0
    scores = model.keypoint_scores
    is_known = annotated.visibility > 0
    is_known &= ~(people[:, None] & rule.is_from_model)
    sides = (annotated.bboxes[:, 2:] - annotated.bboxes[:, :2]).max(-1)
    distances = np.linalg.norm(model.keypoints - annotated.keypoints, axis=-1)
    is_sure = is_known & (scores >= rule.sure) & matched[:, None]
    is_far = distances > rule.max_distance * sides[:, None]
    certain = (scores >= rule.min_score) & matched[:, None]
    enough = is_known.any(-1) | (certain.sum(-1) >= rule.min_joints)
    from_model = certain & ~is_known & enough[:, None]
    if rule.prefer == "model":
        from_model |= is_sure
    kept = is_known & ~from_model
    points = np.select(
        [kept[..., None], from_model[..., None]], [annotated.keypoints, model.keypoints]
    )
    return LabeledPeople(
        keypoints=points.astype(np.float32),
        visibility=np.select([kept, from_model], [annotated.visibility, np.uint8(VISIBLE)]).astype(
            np.uint8
        ),
        keypoint_scores=np.select([kept, from_model], [1, scores]).astype(np.float32),
        bboxes=annotated.bboxes,
        area=annotated.area,
        iscrowd=annotated.iscrowd,
        person_ids=annotated.person_ids,
        scores=np.ones(len(people), np.float32),
        found_index=found_index,
        counts=MergeCounts(
            annotated=int(people.sum()),
            matched=int(matched.sum()),
            kept=int(kept[people].sum()),
            modeled=int(from_model.sum()),
            unlabeled=int((~kept & ~from_model)[matched].sum()),
            disagreeing=int((is_sure & is_far).sum()),
        ),
    )


def _nobody_else(
    merged: LabeledPeople, others: FoundPeople, rule: MergeRule
) -> Int[np.ndarray, " m"]:
    """Indices of the found people who are neither labeled already nor a better one, best first."""
    certain = others.keypoint_scores >= rule.min_score
    points = np.nan_to_num(others.keypoints.astype(np.float64))
    boxes = others.bboxes.astype(np.float64)
    people = ~merged.iscrowd
    all_points = np.concatenate([merged.keypoints[people], points])
    all_visibility = np.concatenate([merged.visibility[people], certain.astype(np.uint8)])
    all_area = np.concatenate([merged.area[people], geometry.box_area(boxes)])
    all_boxes = np.concatenate([merged.bboxes[people], boxes])
    similarity = oks(points, all_points, all_visibility, all_area, rule.skeleton.sigmas)
    same = (similarity >= DUPLICATE_OKS) | (geometry.box_iou(boxes, all_boxes) >= MATCH_IOU)
    labeled = list(range(int(people.sum())))
    new = []
    for index in np.argsort(-others.scores, kind="stable").tolist():
        if not same[index, labeled].any():
            new.append(index)
            labeled.append(int(people.sum()) + index)
    return np.array(new, np.int64)


def _with_others(
    merged: LabeledPeople,
    others: FoundPeople,
    found_index: Int[np.ndarray, " m"],
    rule: MergeRule,
    next_id: int | None,
) -> LabeledPeople:
    """The labels with `others` behind them."""
    certain = others.keypoint_scores >= rule.min_score
    bboxes = others.bboxes.astype(np.float64)
    first = merged.person_ids.max(initial=0) + 1 if next_id is None else next_id
    columns = {
        "keypoints": np.where(certain[..., None], others.keypoints, 0).astype(np.float32),
        "visibility": np.where(certain, VISIBLE, 0).astype(np.uint8),
        "keypoint_scores": np.where(certain, others.keypoint_scores, 0).astype(np.float32),
        "bboxes": bboxes,
        "area": geometry.box_area(bboxes),
        "iscrowd": np.zeros(len(bboxes), bool),
        "person_ids": first + np.arange(len(bboxes)),
        "scores": others.scores.astype(np.float32),
        "found_index": found_index,
    }
    joined = {name: np.concatenate([getattr(merged, name), new]) for name, new in columns.items()}
    counts = merged.counts + MergeCounts(
        added=len(bboxes), modeled=int(certain.sum()), unlabeled=int((~certain).sum())
    )
    return LabeledPeople(**joined, counts=counts)
