"""Mean average precision of multi-person poses by MPII's protocol.

The protocol is that of the benchmark's toolkit evalMPII (Pishchulin et al., "DeepCut", CVPR 2016;
the table that RMPE reports), on 14 joints, without pelvis and thorax.

* A predicted joint matches a person's annotated joint if their distance is at most half the
  person's head size. PCKh of a pose and a person is the number of matches over the number of the
  person's annotated joints.
* Assignment within an image: each pose keeps only the person with the highest PCKh. Then each
  person takes the pose with the highest PCKh among those that kept it, if that is above 0. Of equal
  values the first counts.
* All joints of a pose without a person are false positives. Joints of the other poses are true
  positives if they match, and false positives if they do not match or nothing is annotated.
* The average precision of a joint is the area under the envelope of precision over recall (VOC
  2012). Predictions of all images are sorted by their joint scores, so these must be comparable
  between people.
* Recall is over the annotated joints of the images with at least one pose. The toolkit notes what
  is annotated in its loop over the poses of an image, so an image without poses adds no annotated
  joint, and people who are missed there cost nothing. Published figures are counted like this. A
  strict count of all annotated joints is optional.

The toolkit works on groups of people, and an image can have several groups. To reproduce that, give
each group its own entry with its own name. The caller decides about groups and the poses that
belong to them (the toolkit drops poses far from the group).
"""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rmpe_jax.data.readers.annotations import check_unique, field
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.bootstrap import RankedPoses
from rmpe_jax.evaluation.pckh import COLUMNS
from rmpe_jax.files import read_json
from rmpe_jax.skeletons import MPII

Entries = str | os.PathLike | Sequence[dict]

_K = MPII.num_keypoints
_COLUMN_JOINTS = {name: [MPII.index(joint) for joint in pair] for name, pair in COLUMNS.items()}
_JOINTS = np.array([j for pair in _COLUMN_JOINTS.values() for j in pair])


class _People(NamedTuple):
    """The annotated people of an image, in the 14 joints of the protocol."""

    joints: Float[np.ndarray, "n 14 2"]
    annotated: Bool[np.ndarray, "n 14"]
    head_sizes: Float[np.ndarray, " n"]


class _Poses(NamedTuple):
    """The predicted poses in an image, in the 14 joints; NaN joints are not predicted."""

    joints: Float[np.ndarray, "p 14 2"]
    scores: Float[np.ndarray, "p 14"]


def mpii_map(
    ground_truth: Entries,
    predictions: Entries,
    threshold: float = 0.5,
    count_unpredicted: bool = False,
) -> dict[str, float]:
    """Average precision of each pair of joints and their mean, in percent.

    Coordinates are image pixels, joints are in MPII's order. Poses in an image without annotated
    people are false positives (the toolkit never has such images).

    Args:
      ground_truth: one entry per image, `{"image": name, "people": [{"joints": (16, 2),
        "annotated": (16,), "head_size": pixels}]}`; or a JSON file with this content.
      predictions: one entry per image, `{"image": name, "people": [{"joints": (16, 2), "scores":
        (16,)}]}`; or a JSON file. A NaN joint (null in JSON) is not predicted. Images without poses
        can be left out.
      threshold: maximum distance of a correct joint, in head sizes.
      count_unpredicted: also count the people in images without any pose as missed. By default
        they are left out, as in the toolkit, and their number is logged.

    Returns:
      `Head`, `Shoulder`, `Elbow`, `Wrist`, `Hip`, `Knee`, `Ankle`, each the mean of its two joints,
      and `mAP`, the mean over all 14. Joints that no person has annotated are left out of the
      means; a mean of no joints is NaN.

    Raises:
      UserError: entries do not have this format, an image occurs twice, or a prediction is on an
        image that the ground truth does not have.
    """
    people, poses = _read_both(ground_truth, predictions)
    scores, correct = _match_all(people, poses, threshold)
    annotated = {image: here.annotated.sum(0) for image, here in people.items()}
    counts = sum(annotated.values(), np.zeros(14, int))
    is_known = counts > 0
    if not count_unpredicted:
        counts = counts - _unpredicted(annotated, poses)
    ap = list(map(_average_precision, scores.T, correct.T, counts.tolist()))
    by_joint = dict(zip(_JOINTS, np.where(is_known, ap, np.nan).tolist(), strict=True))
    columns = {name: _mean([by_joint[j] for j in js]) for name, js in _COLUMN_JOINTS.items()}
    return {**columns, "mAP": _mean(list(by_joint.values()))}


def ranked_joints(
    ground_truth: Entries, predictions: Entries, threshold: float = 0.5
) -> list[RankedPoses]:
    """What `mpii_map` is computed from, for its resamples: one for each of the 14 joints.

    Arguments and errors are those of `mpii_map`, without `count_unpredicted`.
    """
    people, poses = _read_both(ground_truth, predictions)
    scores, correct = _match_all(people, poses, threshold)
    numbers = np.repeat(np.arange(len(people)), [len(here.scores) for here in poses.values()])
    # As in the toolkit, people in images without poses do not count as missed.
    annotated = [
        here.annotated.sum(0) if len(poses[image].joints) else np.zeros(14, int)
        for image, here in people.items()
    ]
    found = []
    for joint in range(14):
        predicted = ~np.isnan(scores[:, joint])
        order = np.argsort(-scores[predicted, joint], kind="stable")
        hits = correct[predicted, joint][order]
        to_find = np.array([counts[joint] for counts in annotated])
        found.append(RankedPoses(numbers[predicted][order], hits[None], ~hits[None], to_find))
    return found


def assign_people(pckh: Float[np.ndarray, "p n"]) -> Int[np.ndarray, " p"]:
    """Assigns the poses of an image to people.

    Args:
      pckh: fraction of the annotated joints of person n that pose p matches.

    Returns:
      For each pose the index of its person, or -1.
    """
    people = np.full(len(pckh), -1)
    if not pckh.size:
        return people
    best = pckh.argmax(1)
    kept = np.where(best[:, None] == np.arange(pckh.shape[1]), pckh, 0)
    taken = np.flatnonzero(kept.max(0) > 0)
    people[kept.argmax(0)[taken]] = taken
    return people


def _read_both(
    ground_truth: Entries, predictions: Entries
) -> tuple[dict[str | int, _People], dict[str | int, _Poses]]:
    """People and poses by image, both for the same images in the same order."""
    people = _read(ground_truth, "ground truth", _people)
    poses = _read(predictions, "predictions", _poses)
    unknown = [image for image in poses if image not in people]
    if unknown:
        raise UserError(
            f"predictions: {len(unknown)} images are not in the ground truth (the first: "
            f"{unknown[0]!r}): give the ground truth of the predicted images"
        )
    no_poses = _poses([], "")
    return people, {image: poses.get(image, no_poses) for image in people}


def _match_all(
    people: dict[str | int, _People], poses: dict[str | int, _Poses], threshold: float
) -> tuple[Float[np.ndarray, "p 14"], Bool[np.ndarray, "p 14"]]:
    """As `_match`, of all images one after the other."""
    matched = [_match(people[image], poses[image], threshold) for image in people]
    scores = np.concatenate([np.zeros((0, 14)), *(s for s, _ in matched)])
    return scores, np.concatenate([np.zeros((0, 14), bool), *(c for _, c in matched)])


def _match(
    people: _People, poses: _Poses, threshold: float
) -> tuple[Float[np.ndarray, "p 14"], Bool[np.ndarray, "p 14"]]:
    """Scores of the predicted joints in an image (NaN: not predicted), and which are correct."""
    offset = poses.joints[:, None] - people.joints
    distance = np.linalg.norm(offset, axis=-1) / people.head_sizes[:, None]
    match = (distance <= threshold) & people.annotated
    pckh = match.sum(-1) / np.maximum(people.annotated.sum(-1), 1)
    person = assign_people(pckh)
    correct = np.zeros(poses.scores.shape, bool)
    assigned = np.flatnonzero(person >= 0)
    correct[assigned] = match[assigned, person[assigned]]
    return np.where(np.isnan(poses.joints).any(-1), np.nan, poses.scores), correct


def _unpredicted(
    annotated: dict[str | int, Int[np.ndarray, "14"]], poses: dict[str | int, _Poses]
) -> Int[np.ndarray, "14"]:
    """The number of annotated joints in the images without poses, which is logged."""
    images = [i for i, counts in annotated.items() if counts.any() and not len(poses[i].joints)]
    total = sum((annotated[image] for image in images), np.zeros(14, int))
    if images:
        logging.getLogger(__name__).warning(
            "%d images with people have no pose (the first: %s): as in MPII's toolkit, their %d "
            "annotated joints do not count as missed",
            len(images),
            images[0],
            total.sum(),
        )
    return total


def _average_precision(
    scores: Float[np.ndarray, " m"], correct: Bool[np.ndarray, " m"], count: int
) -> float:
    """Average precision of one joint in percent; `count` is the number of annotations."""
    predicted = ~np.isnan(scores)
    order = np.argsort(-scores[predicted], kind="stable")
    hits = np.cumsum(correct[predicted][order])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(np.sum(np.diff(hits, prepend=0) / max(count, 1) * envelope))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _read(
    entries: Entries, what: str, parse: Callable[[Sequence[Any], str], Any]
) -> dict[str | int, Any]:
    """The result of `parse` for the people of each image, by the name of the image."""
    if isinstance(entries, str | os.PathLike):
        what = str(entries)
        entries = read_json(entries, "annotation file")
    if not isinstance(entries, Sequence):
        raise UserError(f"{what} is not a list of images: see rmpe_jax.evaluation.mpii_map")
    where = [f"{what}: entry {number}" for number in range(len(entries))]
    names = [field(e, "image", w, (str, int)) for e, w in zip(entries, where, strict=True)]
    check_unique(names, f"{what}: 'image'")
    people = [field(e, "people", w, Sequence) for e, w in zip(entries, where, strict=True)]
    return {n: parse(p, f"{what}: {n}") for n, p in zip(names, people, strict=True)}


def _people(entries: Sequence[Any], where: str) -> _People:
    joints = _array(entries, "joints", (_K, 2), where)
    annotated = _array(entries, "annotated", (_K,), where) > 0
    head_sizes = _array(entries, "head_size", (), where)
    if not (head_sizes > 0).all():
        raise UserError(
            f"{where}: a head_size is not positive: the protocol needs one for each person"
        )
    if not np.isfinite(joints[annotated]).all():
        raise UserError(f"{where}: an annotated joint is not finite: fix it")
    return _People(joints[:, _JOINTS], annotated[:, _JOINTS], head_sizes)


def _poses(entries: Sequence[Any], where: str) -> _Poses:
    joints = _array(entries, "joints", (_K, 2), where)
    scores = _array(entries, "scores", (_K,), where)
    if np.isnan(scores[~np.isnan(joints).any(-1)]).any():
        raise UserError(f"{where}: the score of a predicted joint is NaN: give a number")
    return _Poses(joints[:, _JOINTS], scores[:, _JOINTS])


def _array(
    entries: Sequence[Any], key: str, shape: tuple[int, ...], where: str
) -> Float[np.ndarray, "n *shape"]:
    """The value of `key` of each person, stacked; None becomes NaN."""
    try:
        values = [np.asarray(field(e, key, where), np.float64) for e in entries]
    except (OverflowError, TypeError, ValueError):
        raise UserError(f"{where}: {key} are not all numbers: fix it") from None
    wrong = [value.shape for value in values if value.shape != shape]
    if wrong:
        raise UserError(f"{where}: {key} of shape {wrong[0]}, not {shape}: use MPII's 16 joints")
    return np.array(values).reshape(-1, *shape)
