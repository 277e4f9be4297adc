"""COCO's average precision (AP) of poses, exactly, as a function of arrays.

The protocol of cocodataset.org ("Keypoint Evaluation"), rule by rule as in `COCOeval` of
pycocotools, for images padded to a fixed number of people. It works under `jit` and `vmap`, on any
device. Reported figures still come from pycocotools (`evaluation.coco_ap`); this function is for
optimizing what is reported. It agrees with pycocotools to 1e-6 wherever float32 and float64 make
the same decisions: rounding can move an OKS that is close to a threshold to its other side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from rmpe_jax.ops.oks import oks

MAX_DETECTIONS = 20  # per image, COCO's limit for poses
OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
ALL_SIZES = ((0.0, 1e10),)
# All, medium and large people, by area in square pixels.
COCO_SIZES = (*ALL_SIZES, (32.0**2, 96.0**2), (96.0**2, 1e10))

_RECALL_STEPS = np.arange(101)
# pycocotools compares recalls with `np.linspace(0, 1, 101)` in float64. Some of its values are
# slightly above the hundredth that they represent, and a recall of exactly that hundredth is lower.
_MUST_EXCEED = np.linspace(0, 1, 101) > _RECALL_STEPS / 100


class ScoredPoses(NamedTuple):
    """Poses found in `i` images, padded to `n` each; values that are not valid are arbitrary.

    Attributes:
      keypoints: image pixels.
      scores: rank all poses of all images.
      area: of the pose's box, square pixels. It matters only for AP by size.
      valid: where there is a pose.
    """

    keypoints: Float[Array, "i n k 2"]
    scores: Float[Array, "i n"]
    area: Float[Array, "i n"]
    valid: Bool[Array, "i n"]


class GroundTruth(NamedTuple):
    """People annotated in `i` images, padded to `m` each; values that are not valid are arbitrary.

    Attributes:
      keypoints: image pixels.
      visibility: 0 where a joint is not labeled.
      bboxes: xyxy image pixels.
      area: of the person's segment, square pixels.
      iscrowd: a region of many people. Any number of poses may match it, and none of them counts.
      ignore: excluded from scoring: missing them is not penalized and matching them is not
        rewarded. These are crowds and people without labeled joints.
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
    """Fractions for `a` area ranges and `t` OKS thresholds; -1 where there are no people to find.

    Attributes:
      precision: mean precision over recalls 0, 0.01, ... 1.
      recall: fraction of people found.
    """

    precision: Float[Array, "a t"]
    recall: Float[Array, "a t"]


def average_precision(
    found: ScoredPoses,
    ground_truth: GroundTruth,
    sigmas: Float[np.ndarray, " k"],
    area_ranges: tuple[tuple[float, float], ...] = COCO_SIZES,
) -> AveragePrecision:
    """AP and recall at the ten OKS thresholds .50, .55, ... .95.

    COCO's "AP" is the mean of a row of `precision`. Poses of equal score are ranked by image, then
    by their order in the image, so images should be in the order of their ids.

    Args:
      found: the 20 best poses of each image count.
      ground_truth: the same images in the same order.
      sigmas: per joint, as in `Skeleton.sigmas`.
      area_ranges: lowest and highest area in square pixels; people of other sizes are ignored.
    """
    poses = _best(_zero_padding(found))
    people = ground_truth._replace(area=jnp.where(ground_truth.valid, ground_truth.area, 1.0))
    similarity = oks(
        poses.keypoints,
        jnp.where(people.valid[..., None, None], people.keypoints, 0),
        jnp.where(people.valid[..., None], people.visibility, 0),
        people.area,
        sigmas,
        jnp.where(people.valid[..., None], people.bboxes, 0),
    )
    small, large = jnp.asarray(area_ranges, similarity.dtype).T[:, :, None, None]
    ignored = people.ignore | (people.area < small) | (people.area > large)  # (a, i, m)
    matched, not_scored = _match(similarity, people, ignored)
    # A pose of another size that matches nobody is not a false positive.
    other_size = (poses.area < small) | (poses.area > large)
    not_scored |= ~matched & other_size[:, None]
    counts = poses.valid & ~not_scored
    num_people = jnp.sum(people.valid & ~ignored, (-1, -2))
    return _accumulate(matched & counts, ~matched & counts, _ranking(poses), num_people)


def _zero_padding(poses: ScoredPoses) -> ScoredPoses:
    """The poses with 0 where they are not valid, and the lowest score."""
    valid = poses.valid
    return ScoredPoses(
        jnp.where(valid[..., None, None], poses.keypoints, 0),
        jnp.where(valid, poses.scores, -jnp.inf),
        jnp.where(valid, poses.area, 0),
        valid,
    )


def _best(poses: ScoredPoses) -> ScoredPoses:
    """The `MAX_DETECTIONS` best of each image, best first."""
    order = jnp.argsort(-poses.scores, axis=-1, stable=True)[:, :MAX_DETECTIONS]
    rows = jnp.arange(order.shape[0])[:, None]
    return ScoredPoses(*(values[rows, order] for values in poses))


def _ranking(poses: ScoredPoses) -> Int[Array, " r"]:
    return jnp.argsort(-poses.scores.reshape(-1), stable=True)


def _match(
    similarity: Float[Array, "i d m"], people: GroundTruth, ignored: Bool[Array, "a i m"]
) -> tuple[Bool[Array, "a t i d"], Bool[Array, "a t i d"]]:
    """Match each pose, best first, with the most similar person who is not matched yet.

    Returns:
      Which poses match a person at each area range and threshold, and which match one who is
      ignored.
    """
    thresholds = jnp.asarray(OKS_THRESHOLDS, similarity.dtype)
    # Of people who are equally similar the last one is taken: argmax finds it in reversed order.
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
    """Precision, made non-increasing over recall, then averaged over 101 recalls."""
    shape = (*hits.shape[:2], -1)
    true_positives = jnp.cumsum(hits.reshape(shape)[..., ranking], -1)
    false_positives = jnp.cumsum(misses.reshape(shape)[..., ranking], -1)
    total = jnp.maximum(true_positives + false_positives, 1)
    envelope = jax.lax.cummax(true_positives / total, axis=2, reverse=True)
    # Precision is 0 at recalls that the curve does not reach.
    envelope = jnp.pad(envelope, ((0, 0), (0, 0), (0, 1)))
    required = _people_for_recall(num_people)[:, None]
    required = jnp.broadcast_to(required, (*shape[:2], required.shape[-1]))
    first = jax.vmap(jax.vmap(jnp.searchsorted))(true_positives, required)
    precision = jnp.take_along_axis(envelope, first, -1).mean(-1)
    nobody = (num_people == 0)[:, None]
    recall = true_positives[..., -1] / jnp.maximum(num_people, 1)[:, None]
    return AveragePrecision(jnp.where(nobody, -1, precision), jnp.where(nobody, -1, recall))


def _people_for_recall(num_people: Int[Array, " a"]) -> Int[Array, "a 101"]:
    """The number of people that must be found to reach each recall."""
    hundredths = num_people[:, None] * _RECALL_STEPS
    return -(-hundredths // 100) + ((hundredths % 100 == 0) & _MUST_EXCEED)
