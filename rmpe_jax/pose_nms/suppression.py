"""Parametric pose NMS: of the poses that are one person's, keep the most confident, and merge."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.ops.greedy import assign
from rmpe_jax.pose_nms.params import Form, PoseNmsParams
from rmpe_jax.pose_nms.similarity import redundant, reference_distance

_MERGE_PIXELS = 15.0  # AlphaPose's cap on how far merged joints may lie apart
_NO_SCORE = 1e-5  # AlphaPose's value of a joint score of 0


class Proposals(NamedTuple):
    """Poses found in boxes, before any suppression; what is not valid may be anything.

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


class Poses(NamedTuple):
    """What is left of n proposals, in their order; all is 0 where nothing is kept.

    Attributes:
      keypoints: image pixels, merged.
      keypoint_scores: merged.
      scores: of the person.
      keep: where there is a person.
      cluster: index of the proposal that each proposal is redundant with (its own for those that
        represent a cluster), -1 where the proposal is not valid.
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
) -> Poses:
    """Parametric pose NMS of one picture (Fang et al., ICCV 2017, section 3.2).

    The remaining pose with the greatest mean joint score becomes a reference and takes with it all
    that are redundant with it, until none remains. Ties go to the first. Pure and of fixed shape:
    `vmap` it over pictures, with `params` shared or mapped too.

    Args:
      keypoints: image pixels.
      keypoint_scores: 0 or more.
      bboxes: xyxy image pixels of the boxes that the poses were found in.
      bbox_scores: the detector's.
      valid: where there is a pose; the rest is padding and may be anything.
      params: numbers and form of the rule.
    """
    people = without_padding(Proposals(keypoints, keypoint_scores, bboxes, bbox_scores, valid))
    if params.form.merge == "soft":
        zero = people.keypoint_scores == 0
        people = people._replace(keypoint_scores=jnp.where(zero, _NO_SCORE, people.keypoint_scores))
    confidence = jnp.where(people.valid, people.keypoint_scores.sum(-1), -jnp.inf)
    order = jnp.argsort(-confidence, stable=True)
    people = Proposals(*(values[order] for values in people))
    similar = redundant(people.keypoints, people.keypoint_scores, people.bboxes, params)
    reference = assign(similar, people.valid)
    merged_keypoints, merged_scores = _merge(people, reference, params.form)
    keep = reference == jnp.arange(len(order))
    if params.form.min_peak > 0:
        keep &= people.keypoint_scores.max(-1) >= params.form.min_peak
        keep &= merged_scores.max(-1) >= params.form.min_peak
    scores = _person_scores(merged_scores, people.bbox_scores, params.form.person_score)
    return in_given_order(order, merged_keypoints, merged_scores, scores, keep, reference)


@jax.jit
def pose_nms_batch(proposals: Proposals, params: PoseNmsParams) -> Poses:
    """`pose_nms` of many pictures; compiled once for each size of batch, padding and form."""
    return jax.vmap(functools.partial(pose_nms, params=params))(*proposals)


def without_padding(proposals: Proposals) -> Proposals:
    """The proposals as JAX arrays, with 0 where they are not valid."""
    valid = jnp.asarray(proposals.valid)
    return Proposals(
        jnp.where(valid[..., None, None], proposals.keypoints, 0),
        jnp.where(valid[..., None], proposals.keypoint_scores, 0),
        jnp.where(valid[..., None], proposals.bboxes, 0),
        jnp.where(valid, proposals.bbox_scores, 0),
        valid,
    )


def _merge(
    people: Proposals, reference: Int[Array, " n"], form: Form
) -> tuple[Float[Array, "n k 2"], Float[Array, "n k"]]:
    """The joints of each reference merged with those of its cluster; other rows are of no use."""
    keypoints, scores = people.keypoints, people.keypoint_scores
    if form.merge == "none":
        return keypoints, scores
    reach = reference_distance(people.bboxes, form)
    if form.merge == "soft":
        reach = jnp.minimum(reach, _MERGE_PIXELS)
    # Offsets are averaged, not positions: they keep their digits in float32.
    offset = keypoints - keypoints[reference]
    near = (offset**2).sum(-1) <= reach[reference, None] ** 2
    weight = jnp.where(near, scores, 0)
    total = jnp.maximum(jnp.zeros_like(weight).at[reference].add(weight), 1e-12)
    shift = jnp.zeros_like(offset).at[reference].add(weight[..., None] * offset)
    if form.merge == "max":
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


def in_given_order(
    order: Int[Array, " n"],
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    scores: Float[Array, " n"],
    keep: Bool[Array, " n"],
    reference: Int[Array, " n"],
) -> Poses:
    """Sorted results, row r being that of proposal `order[r]`, in the order of the proposals."""
    values = (
        jnp.where(keep[:, None, None], keypoints, 0),
        jnp.where(keep[:, None], keypoint_scores, 0),
        jnp.where(keep, scores, 0),
        keep,
        # The index one past the end, that of nobody, becomes -1.
        jnp.append(order, -1)[reference],
    )
    place = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    return Poses(*(value[place] for value in values))
