"""COCO's average precision (AP) of poses, exactly, as a function of arrays.

The protocol of cocodataset.org ("Keypoint Evaluation"), rule by rule as pycocotools' `COCOeval`
does it, on pictures padded to a fixed number of people: under `jit`, `vmap` over parameters, on
any device. pycocotools remains the reference for reported figures (`evaluation.coco_ap`); this is
for optimising what is reported. It follows pycocotools to 1e-6 wherever float32 decides as float64
does: an OKS within rounding of a threshold can fall to its other side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from rmpe_jax.ops.oks import oks

MAX_DETECTIONS = 20  # per picture, as COCO has it for poses
OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
ALL_SIZES = ((0.0, 1e10),)
# All, medium and large people, by their area in square pixels.
COCO_SIZES = (*ALL_SIZES, (32.0**2, 96.0**2), (96.0**2, 1e10))

_RECALL_STEPS = np.arange(101)
# pycocotools compares recalls with `np.linspace(0, 1, 101)` in float64, where some points lie just
# above the hundredth they stand for; a recall of exactly that hundredth does not reach them.
_MUST_EXCEED = np.linspace(0, 1, 101) > _RECALL_STEPS / 100


class Detections(NamedTuple):
    """Poses found in `i` pictures, padded to `n` each; what is not valid may be anything.

    Attributes:
      keypoints: image pixels.
      scores: by which all poses of all pictures are ranked.
      area: square pixels, of the pose's box. It matters only for AP by size.
      valid: where there is a pose.
    """

    keypoints: Float[Array, "i n k 2"]
    scores: Float[Array, "i n"]
    area: Float[Array, "i n"]
    valid: Bool[Array, "i n"]


class GroundTruth(NamedTuple):
    """People annotated in `i` pictures, padded to `m` each; what is not valid may be anything.

    Attributes:
      keypoints: image pixels.
      visibility: 0 where a joint is not labelled.
      bboxes: xyxy image pixels.
      area: square pixels, of the person's segment.
      iscrowd: a region of many people. Any number of poses may match it, and none counts.
      ignore: whom to miss is no error and to find no merit: crowds, people without labelled joints.
      valid: where there is a person.
    """

    keypoints: Float[Array, "i m k 2"]
    visibility: Num[Array, "i m k"]
    bboxes: Float[Array, "i m 4"]
    area: Float[Array, "i m"]
    iscrowd: Bool[Array, "i m"]
    ignore: Bool[Array, "i m"]
    valid: Bool[Array, "i m"]


class AveragePrecision(NamedTuple):
    """Fractions for `a` ranges of size and `t` OKS thresholds; -1 where there is nobody to find.

    Attributes:
      precision: mean precision over recalls 0, 0.01, ... 1.
      recall: share of people found.
    """

    precision: Float[Array, "a t"]
    recall: Float[Array, "a t"]


def average_precision(
    detections: Detections,
    ground_truth: GroundTruth,
    sigmas: Float[np.ndarray, " k"],
    area_ranges: tuple[tuple[float, float], ...] = COCO_SIZES,
) -> AveragePrecision:
    """AP and recall at the ten OKS thresholds .50, .55, ... .95.

    COCO's "AP" is the mean of a row of `precision`. Poses of equal score are ranked by picture,
    then by their order in it, so that the pictures should be in the order of their ids.

    Args:
      detections: of each picture the best 20 count.
      ground_truth: the same pictures in the same order.
      sigmas: per joint, as in `Skeleton.sigmas`.
      area_ranges: least and greatest area in square pixels; people of other sizes are ignored.
    """
    detections = _best(_without_padding(detections))
    people = ground_truth._replace(area=jnp.where(ground_truth.valid, ground_truth.area, 1.0))
    similarity = oks(
        detections.keypoints,
        jnp.where(people.valid[..., None, None], people.keypoints, 0),
        jnp.where(people.valid[..., None], people.visibility, 0),
        people.area,
        sigmas,
        jnp.where(people.valid[..., None], people.bboxes, 0),
    )
    small, large = jnp.asarray(area_ranges, similarity.dtype).T[:, :, None, None]
    ignored = people.ignore | (people.area < small) | (people.area > large)  # (a, i, m)
    matched, unimportant = _match(similarity, people, ignored)
    # A pose of another size that is nobody's is not held against the method.
    odd_size = (detections.area < small) | (detections.area > large)
    unimportant |= ~matched & odd_size[:, None]
    counts = detections.valid & ~unimportant
    num_people = jnp.sum(people.valid & ~ignored, (-1, -2))
    return _accumulate(matched & counts, ~matched & counts, _ranking(detections), num_people)


def _without_padding(detections: Detections) -> Detections:
    valid = detections.valid
    return Detections(
        jnp.where(valid[..., None, None], detections.keypoints, 0),
        jnp.where(valid, detections.scores, -jnp.inf),
        jnp.where(valid, detections.area, 0),
        valid,
    )


def _best(detections: Detections) -> Detections:
    """The `MAX_DETECTIONS` best of each picture, best first."""
    order = jnp.argsort(-detections.scores, axis=-1, stable=True)[:, :MAX_DETECTIONS]
    rows = jnp.arange(order.shape[0])[:, None]
    return Detections(*(values[rows, order] for values in detections))


def _ranking(detections: Detections) -> Int[Array, " r"]:
    return jnp.argsort(-detections.scores.reshape(-1), stable=True)


def _match(
    similarity: Float[Array, "i d m"], people: GroundTruth, ignored: Bool[Array, "a i m"]
) -> tuple[Bool[Array, "a t i d"], Bool[Array, "a t i d"]]:
    """Give each pose, best first, the most similar person who is still free.

    Returns:
      Which poses have a person at each size and threshold, and for which this person is ignored.
    """
    thresholds = jnp.asarray(OKS_THRESHOLDS, similarity.dtype)
    # Of people equally similar the last one counts: reversed, argmax finds it.
    similarity, ignored = similarity[..., ::-1], ignored[:, None, :, ::-1]
    valid, iscrowd = people.valid[:, ::-1], people.iscrowd[:, ::-1]

    def match_one(taken: Bool[Array, "a t i m"], values: Float[Array, "i m"]):
        near = (values >= thresholds[:, None, None]) & valid & (iscrowd | ~taken)
        regular = near & ~ignored
        candidates = jnp.where(regular.any(-1, keepdims=True), regular, near & ignored)
        best = jnp.argmax(jnp.where(candidates, values, -1), -1, keepdims=True)
        chosen = candidates & (jnp.arange(values.shape[-1]) == best)
        return taken | chosen, (chosen.any(-1), (chosen & ignored).any(-1))

    taken = jnp.zeros((len(ignored), len(thresholds), *valid.shape), bool)
    _, (matched, is_ignored) = jax.lax.scan(match_one, taken, jnp.moveaxis(similarity, 1, 0))
    return jnp.moveaxis(matched, 0, -1), jnp.moveaxis(is_ignored, 0, -1)


def _accumulate(
    hits: Bool[Array, "a t i d"],
    misses: Bool[Array, "a t i d"],
    ranking: Int[Array, " r"],
    num_people: Int[Array, " a"],
) -> AveragePrecision:
    """Precision, made non-increasing, read at 101 recalls and averaged."""
    shape = (*hits.shape[:2], -1)
    true_positives = jnp.cumsum(hits.reshape(shape)[..., ranking], -1)
    false_positives = jnp.cumsum(misses.reshape(shape)[..., ranking], -1)
    found = jnp.maximum(true_positives + false_positives, 1)
    envelope = jax.lax.cummax(true_positives / found, axis=2, reverse=True)
    # Where the curve ends before a recall, precision there is 0.
    envelope = jnp.pad(envelope, ((0, 0), (0, 0), (0, 1)))
    needed = _people_for_recall(num_people)[:, None]
    needed = jnp.broadcast_to(needed, (*shape[:2], needed.shape[-1]))
    first = jax.vmap(jax.vmap(jnp.searchsorted))(true_positives, needed)
    precision = jnp.take_along_axis(envelope, first, -1).mean(-1)
    nobody = (num_people == 0)[:, None]
    recall = true_positives[..., -1] / jnp.maximum(num_people, 1)[:, None]
    return AveragePrecision(jnp.where(nobody, -1, precision), jnp.where(nobody, -1, recall))


def _people_for_recall(num_people: Int[Array, " a"]) -> Int[Array, "a 101"]:
    """How many people must be found to reach each recall, in whole numbers."""
    hundredths = num_people[:, None] * _RECALL_STEPS
    return -(-hundredths // 100) + ((hundredths % 100 == 0) & _MUST_EXCEED)
