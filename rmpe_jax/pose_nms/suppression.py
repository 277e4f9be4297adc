"""Parametric pose NMS: keep the most confident pose of each person and merge the others into it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.ops.greedy import greedy_assignment
from rmpe_jax.pose_nms.params import NmsVariant, PoseNmsParams
from rmpe_jax.pose_nms.similarity import redundant, reference_distance
from rmpe_jax.skeletons import Skeleton

_MERGE_PIXELS = 15.0  # AlphaPose's limit on the distance of merged joints
_ZERO_SCORE = 1e-5  # AlphaPose replaces joint scores of 0 by this


class PoseCandidates(NamedTuple):
    """Poses found in boxes, before NMS, padded to n; values that are not valid are arbitrary.

    Attributes:
      keypoints: image pixels.
      keypoint_scores: 0 or more.
      bboxes: xyxy image pixels, the detector's.
      bbox_scores: the detector's.
      valid: where there is a pose.
    """

    keypoints: Float[Array, "*i n k 2"]
    keypoint_scores: Float[Array, "*i n k"]
    bboxes: Float[Array, "*i n 4"]
    bbox_scores: Float[Array, "*i n"]
    valid: Bool[Array, "*i n"]


class NmsResult(NamedTuple):
    """The n candidates after NMS, in their order; rows that are not kept are 0.

    Attributes:
      keypoints: image pixels, merged.
      keypoint_scores: merged.
      scores: of the person.
      keep: where there is a person.
      cluster: for each candidate, the index of the candidate that it is redundant with, its own
        index if it represents the cluster, and -1 if it is not valid.
    """

    keypoints: Float[Array, "*i n k 2"]
    keypoint_scores: Float[Array, "*i n k"]
    scores: Float[Array, "*i n"]
    keep: Bool[Array, "*i n"]
    cluster: Int[Array, "*i n"]


def pose_nms(
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    bboxes: Float[Array, "n 4"],
    bbox_scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    params: PoseNmsParams,
    skeleton: Skeleton | None = None,
) -> NmsResult:
    """Parametric pose NMS of one image (Fang et al., ICCV 2017, section 3.2).

    The remaining pose with the highest mean joint score becomes a reference and eliminates all
    poses that are redundant with it, until none remains. Of equal scores the first wins. The
    function is pure and of fixed shape: `vmap` it over images, with `params` shared or mapped too.

    Args:
      keypoints: image pixels.
      keypoint_scores: 0 or more.
      bboxes: xyxy image pixels of the boxes that the poses were found in.
      bbox_scores: the detector's.
      valid: where there is a pose; the rest is padding with arbitrary values.
      params: numbers and variant of the rule.
      skeleton: of the keypoints, static under `jit`; optional if `params.variant.joints` is "all".

    Raises:
      UserError: the variant needs a skeleton, or another one.
    """
    people = zero_padding(PoseCandidates(keypoints, keypoint_scores, bboxes, bbox_scores, valid))
    variant = params.variant
    if variant.merge == "soft":
        zero = people.keypoint_scores == 0
        scores = jnp.where(zero, _ZERO_SCORE, people.keypoint_scores)
        people = people._replace(keypoint_scores=scores)
    confidence = jnp.where(people.valid, people.keypoint_scores.sum(-1), -jnp.inf)
    order = jnp.argsort(-confidence, stable=True)
    people = PoseCandidates(*(values[order] for values in people))
    similar = redundant(people.keypoints, people.keypoint_scores, people.bboxes, params, skeleton)
    reference = greedy_assignment(similar, people.valid)
    merged_keypoints, merged_scores = _merge(people, reference, variant)
    keep = reference == jnp.arange(len(order))
    if variant.min_peak > 0:
        keep &= people.keypoint_scores.max(-1) >= variant.min_peak
        keep &= merged_scores.max(-1) >= variant.min_peak
    scores = _person_scores(merged_scores, people.bbox_scores, variant.person_score)
    return in_input_order(order, merged_keypoints, merged_scores, scores, keep, reference)


@functools.partial(jax.jit, static_argnames="skeleton")
def pose_nms_batch(
    candidates: PoseCandidates, params: PoseNmsParams, skeleton: Skeleton | None = None
) -> NmsResult:
    """`pose_nms` of many images, compiled once for each batch size, padding and variant."""
    return jax.vmap(functools.partial(pose_nms, params=params, skeleton=skeleton))(*candidates)


def zero_padding(candidates: PoseCandidates) -> PoseCandidates:
    """The candidates as JAX arrays, with 0 where they are not valid."""
    valid = jnp.asarray(candidates.valid)
    return PoseCandidates(
        jnp.where(valid[..., None, None], candidates.keypoints, 0),
        jnp.where(valid[..., None], candidates.keypoint_scores, 0),
        jnp.where(valid[..., None], candidates.bboxes, 0),
        jnp.where(valid, candidates.bbox_scores, 0),
        valid,
    )


def _merge(
    people: PoseCandidates, reference: Int[Array, " n"], variant: NmsVariant
) -> tuple[Float[Array, "n k 2"], Float[Array, "n k"]]:
    """Merge the joints of each reference with those of its cluster; other rows are unused."""
    keypoints, scores = people.keypoints, people.keypoint_scores
    if variant.merge == "none":
        return keypoints, scores
    max_distance = reference_distance(people.bboxes, variant)
    if variant.merge == "soft":
        max_distance = jnp.minimum(max_distance, _MERGE_PIXELS)
    # Offsets are averaged instead of positions, because they keep more digits in float32.
    offset = keypoints - keypoints[reference]
    near = (offset**2).sum(-1) <= max_distance[reference, None] ** 2
    weight = jnp.where(near, scores, 0)
    total = jnp.maximum(jnp.zeros_like(weight).at[reference].add(weight), 1e-12)
    shift = jnp.zeros_like(offset).at[reference].add(weight[..., None] * offset)
    if variant.merge == "max":
        merged_scores = jnp.zeros_like(weight).at[reference].max(weight)
    else:
        merged_scores = jnp.zeros_like(weight).at[reference].add(weight**2) / total
    return keypoints + shift / total[..., None], merged_scores


def _person_scores(
    keypoint_scores: Float[Array, "n k"], bbox_scores: Float[Array, " n"], person_score: str
) -> Float[Array, " n"]:
    mean = keypoint_scores.mean(-1)
    if person_score == "mean":
        return mean
    if person_score == "box_mean":
        return bbox_scores * mean
    return mean + bbox_scores + 1.25 * keypoint_scores.max(-1)


def in_input_order(
    order: Int[Array, " n"],
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    scores: Float[Array, " n"],
    keep: Bool[Array, " n"],
    reference: Int[Array, " n"],
) -> NmsResult:
    """Bring sorted results back to the order of the candidates.

    Args:
      order: row r of the other arguments belongs to candidate `order[r]`.
      keypoints: of the sorted candidates.
      keypoint_scores: of the sorted candidates.
      scores: of the sorted candidates.
      keep: where a person stays; other rows become 0.
      reference: of `greedy_assignment`.
    """
    values = (
        jnp.where(keep[:, None, None], keypoints, 0),
        jnp.where(keep[:, None], keypoint_scores, 0),
        jnp.where(keep, scores, 0),
        keep,
        # Candidates that are not valid have the index n, which becomes -1.
        jnp.append(order, -1)[reference],
    )
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    return NmsResult(*(value[rank] for value in values))
