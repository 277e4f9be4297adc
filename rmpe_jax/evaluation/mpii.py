"""Mean average precision of multi-person poses by MPII's protocol.

The protocol of the benchmark's toolkit evalMPII (Pishchulin et al., "DeepCut", CVPR 2016; the
table RMPE reports), on 14 joints: pelvis and thorax are left out.

* A predicted joint matches a person's annotated joint if it is at most half the person's head size
  away. PCKh of a pose and a person is matches over the person's annotated joints.
* In each picture every pose keeps only the person it fits best, then every person takes the best
  pose that kept it; with a PCKh of 0 nobody is taken. Of equals the first counts.
* All joints of a pose without person are false positives; those of the others are true positives
  where they match, and false positives where they do not or where nothing is annotated.
* The average precision of a joint is the area under the envelope of precision over recall (VOC
  2012), predictions of all pictures in the order of their joint scores; recall counts annotated
  joints. Joint scores must thus be comparable between people.

The toolkit works on groups of people, of which a picture may hold several: give each group an entry
of its own, with a name of its own. Which groups, and which poses belong to them (the toolkit drops
those far from the group), is for the caller to say.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rmpe_jax.data.readers.annotations import check_unique, field
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.pckh import COLUMNS
from rmpe_jax.files import read_json
from rmpe_jax.skeletons import MPII

Entries = str | os.PathLike | Sequence[dict]

_K = MPII.num_keypoints
_COLUMN_JOINTS = {name: [MPII.index(joint) for joint in pair] for name, pair in COLUMNS.items()}
_JOINTS = np.array([j for pair in _COLUMN_JOINTS.values() for j in pair])


class _People(NamedTuple):
    """The annotated people of a picture, in the protocol's 14 joints."""

    joints: Float[np.ndarray, "n 14 2"]
    annotated: Bool[np.ndarray, "n 14"]
    head_sizes: Float[np.ndarray, " n"]


class _Poses(NamedTuple):
    """The poses predicted in a picture; joints that are NaN are not predicted."""

    joints: Float[np.ndarray, "p 14 2"]
    scores: Float[np.ndarray, "p 14"]


def mpii_map(
    ground_truth: Entries, predictions: Entries, threshold: float = 0.5
) -> dict[str, float]:
    """Average precision per pair of joints and their mean, in percent.

    Coordinates are image pixels and joints in MPII's order. Poses in a picture without annotated
    people are false positives (the toolkit, which never sees such a picture, would pass over them).

    Args:
      ground_truth: one entry for each picture, `{"image": name, "people": [{"joints": (16, 2),
        "annotated": (16,), "head_size": pixels}]}`; or a JSON file of that.
      predictions: likewise, `{"image": name, "people": [{"joints": (16, 2), "scores": (16,)}]}`;
        a joint that is NaN (in JSON null) is not predicted. Pictures without poses may be left out.
      threshold: in head sizes.

    Returns:
      `Head`, `Shoulder`, `Elbow`, `Wrist`, `Hip`, `Knee`, `Ankle`, each the mean of its two joints,
      and `mAP`, the mean over all 14. Joints that nobody has annotated are left out of means; NaN
      where that leaves none.

    Raises:
      UserError: entries are not of that form, a picture comes twice, or a prediction is of a
        picture that the ground truth does not have.
    """
    people = _read(ground_truth, "ground truth", _people)
    poses = _read(predictions, "predictions", _poses)
    unknown = [image for image in poses if image not in people]
    if unknown:
        raise UserError(
            f"predictions: {len(unknown)} pictures are not in the ground truth (the first: "
            f"{unknown[0]!r}): evaluate on the pictures that were predicted"
        )
    nobody = _poses([], "")
    labelled = [_label(of, poses.get(image, nobody), threshold) for image, of in people.items()]
    scores = np.concatenate([np.zeros((0, 14)), *(s for s, _ in labelled)])
    right = np.concatenate([np.zeros((0, 14), bool), *(r for _, r in labelled)])
    counts = sum((of.annotated.sum(0) for of in people.values()), np.zeros(14, int))
    by_joint = dict(zip(_JOINTS, map(_average_precision, scores.T, right.T, counts), strict=True))
    columns = {name: _mean([by_joint[j] for j in js]) for name, js in _COLUMN_JOINTS.items()}
    return {**columns, "mAP": _mean(list(by_joint.values()))}


def assign_people(pckh: Float[np.ndarray, "p n"]) -> Int[np.ndarray, " p"]:
    """For each pose of a picture the person it is assigned to, or -1.

    Args:
      pckh: share of person n's annotated joints that pose p matches.
    """
    people = np.full(len(pckh), -1)
    if not pckh.size:
        return people
    best = pckh.argmax(1)
    kept = np.where(best[:, None] == np.arange(pckh.shape[1]), pckh, 0)
    taken = np.flatnonzero(kept.max(0) > 0)
    people[kept.argmax(0)[taken]] = taken
    return people


def _label(
    people: _People, poses: _Poses, threshold: float
) -> tuple[Float[np.ndarray, "p 14"], Bool[np.ndarray, "p 14"]]:
    """Scores of a picture's predicted joints (NaN: not predicted), and which of them are right."""
    offset = poses.joints[:, None] - people.joints
    distance = np.linalg.norm(offset, axis=-1) / people.head_sizes[:, None]
    match = (distance <= threshold) & people.annotated
    pckh = match.sum(-1) / np.maximum(people.annotated.sum(-1), 1)
    person = assign_people(pckh)
    right = np.zeros(poses.scores.shape, bool)
    assigned = np.flatnonzero(person >= 0)
    right[assigned] = match[assigned, person[assigned]]
    return np.where(np.isnan(poses.joints).any(-1), np.nan, poses.scores), right


def _average_precision(
    scores: Float[np.ndarray, " m"], right: Bool[np.ndarray, " m"], count: int
) -> float:
    """In percent, of one joint; `count` is how many are annotated."""
    if count == 0:
        return float("nan")
    predicted = ~np.isnan(scores)
    order = np.argsort(-scores[predicted], kind="stable")
    hits = np.cumsum(right[predicted][order])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(np.sum(np.diff(hits, prepend=0) / count * envelope))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _read(entries: Entries, what: str, parse) -> dict[Any, Any]:
    """`parse` of the people of each picture, by its name."""
    if isinstance(entries, str | os.PathLike):
        what = str(entries)
        entries = read_json(entries, "annotation file")
    if not isinstance(entries, Sequence):
        raise UserError(f"{what} is not a list of pictures: see rmpe_jax.evaluation.mpii_map")
    where = [f"{what}: entry {number}" for number in range(len(entries))]
    names = [field(e, "image", w, (str, int)) for e, w in zip(entries, where, strict=True)]
    check_unique(names, f"{what}: 'image'")
    people = [field(e, "people", w, Sequence) for e, w in zip(entries, where, strict=True)]
    return {n: parse(p, f"{what}: {n}") for n, p in zip(names, people, strict=True)}


def _people(entries: Sequence[dict], where: str) -> _People:
    joints = _array(entries, "joints", (_K, 2), where)
    annotated = _array(entries, "annotated", (_K,), where) > 0
    head_sizes = _array(entries, "head_size", (), where)
    if not (head_sizes > 0).all():
        raise UserError(f"{where}: a head_size is not positive: the protocol needs everybody's")
    if not np.isfinite(joints[annotated]).all():
        raise UserError(f"{where}: an annotated joint is not finite: mend it")
    return _People(joints[:, _JOINTS], annotated[:, _JOINTS], head_sizes)


def _poses(entries: Sequence[dict], where: str) -> _Poses:
    joints = _array(entries, "joints", (_K, 2), where)
    scores = _array(entries, "scores", (_K,), where)
    if np.isnan(scores[~np.isnan(joints).any(-1)]).any():
        raise UserError(f"{where}: the score of a predicted joint is NaN: give it a number")
    return _Poses(joints[:, _JOINTS], scores[:, _JOINTS])


def _array(
    entries: Sequence[dict], key: str, shape: tuple[int, ...], where: str
) -> Float[np.ndarray, "..."]:
    """`key` of every person, stacked; None becomes NaN."""
    try:
        values = [np.asarray(field(e, key, where), np.float64) for e in entries]
    except (TypeError, ValueError):
        raise UserError(f"{where}: {key} are not all numbers: mend it") from None
    wrong = [value.shape for value in values if value.shape != shape]
    if wrong:
        raise UserError(f"{where}: {key} of shape {wrong[0]}, not {shape}: use MPII's 16 joints")
    return np.array(values).reshape(-1, *shape)
