"""How redundant one pose is with another: soft matching of joints, and their distance.

Fang et al., "RMPE" (ICCV 2017), section 3.2. Rows are references: `[i, j]` compares pose j with
reference i, in the units of i's box.

Sums over joints are unrolled, up to a number of them: as one elementwise expression over pairs of
people they are an order of magnitude faster on CPUs than as a reduction of a (n, n, k) array.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.errors import UserError
from rmpe_jax.pose_nms.params import Form, PoseNmsParams

_BODY, _FACE, _HANDS = 17, 68, 42  # joints: COCO's, and of whole bodies
_MOST_UNROLLED = 32
_MATCH_PIXELS = 7.0  # AlphaPose's cap on the distance of joints that match


class JointWeights(NamedTuple):
    """How much each joint (k,) counts in K, in H, and in AlphaPose's count of matches."""

    matching: Float[np.ndarray, " k"]
    closeness: Float[np.ndarray, " k"]
    matches: Float[np.ndarray, " k"]


def joint_weights(num_keypoints: int, form: Form) -> JointWeights:
    """The weights of a form for so many joints; K and H of identical sure poses are their sums.

    Raises:
      UserError: the form is one of whole bodies, and there are too few joints for one.
    """
    if form.joints != "parts":
        number = _BODY if form.joints == "body" else num_keypoints
        weights = (np.arange(num_keypoints) < number).astype(float)
        return JointWeights(weights, weights, weights)
    body = num_keypoints - _FACE - _HANDS
    if body < 1:
        raise UserError(
            f"pose NMS by parts needs the joints of a whole body, not {num_keypoints}: use the "
            "preset alphapose or rmpe"
        )
    # AlphaPose: face and hands count 1.9 and .55 times; hands a tenth of it in K, 1.5 times in H.
    sizes = np.array([body, _FACE, _HANDS])
    factors = np.array([1.0, 1.9, 0.55])
    return JointWeights(
        np.repeat(factors * [1.0, 1.0, 0.1] / sizes, sizes),
        np.repeat(factors * [1.0, 1.0, 1.5] / sizes, sizes),
        np.repeat(factors, sizes),
    )


def reference_distance(bboxes: Float[Array, "n 4"], form: Form) -> Float[Array, " n"]:
    """The form's share, a tenth, of the longer side of each box (xyxy), in pixels."""
    return jnp.maximum((bboxes[..., 2:] - bboxes[..., :2]).max(-1) * form.reference, 1e-6)


def redundant(
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    bboxes: Float[Array, "n 4"],
    params: PoseNmsParams,
) -> Bool[Array, "n n"]:
    """Whether pose j would be eliminated by pose i."""
    result = similarity(keypoints, keypoint_scores, bboxes, params) > params.eta
    if params.form.min_matches:
        result |= num_matches(keypoints, bboxes, params.form) >= params.form.min_matches
    return result


def similarity(
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    bboxes: Float[Array, "n 4"],
    params: PoseNmsParams,
) -> Float[Array, "n n"]:
    """d = K(sigma1) + lam * H(sigma2): equations 8 to 10 of the paper, in the form of `params`.

    Args:
      keypoints: image pixels.
      keypoint_scores: 0 or more.
      bboxes: xyxy image pixels.
    """
    matching = soft_matching(keypoints, keypoint_scores, bboxes, params.sigma1, params.form)
    return matching + params.lam * closeness(keypoints, bboxes, params.sigma2, params.form)


def soft_matching(
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    bboxes: Float[Array, "n 4"],
    sigma1: float | Float[Array, ""],
    form: Form,
) -> Float[Array, "n n"]:
    """K: the number of joints that lie in the reference's region, counted by how sure they are."""
    sure = jnp.tanh(keypoint_scores / sigma1)
    half_size = (bboxes[:, 2:] - bboxes[:, :2])[:, None] / 20
    unit = _unit(bboxes, form)

    def matches(joint):
        dx, dy = _offset(keypoints, joint)
        if form.region == "box":
            inside = (jnp.abs(dx) <= half_size[..., 0]) & (jnp.abs(dy) <= half_size[..., 1])
        else:
            inside = dx**2 + dy**2 <= unit**2
        return jnp.where(inside, sure[:, None, joint] * sure[None, :, joint], 0)

    return _weighted_sum(matches, joint_weights(keypoints.shape[1], form).matching)


def closeness(
    keypoints: Float[Array, "n k 2"],
    bboxes: Float[Array, "n 4"],
    sigma2: float | Float[Array, ""],
    form: Form,
) -> Float[Array, "n n"]:
    """H: the sum over joints of exp(-distance / sigma2)."""
    unit = _unit(bboxes, form)

    def near(joint):
        dx, dy = _offset(keypoints, joint)
        squared = (dx**2 + dy**2) / unit**2
        # The bound keeps the gradient finite where joints coincide.
        distance = squared if form.squared else jnp.sqrt(jnp.maximum(squared, 1e-14))
        return jnp.exp(-distance / sigma2)

    return _weighted_sum(near, joint_weights(keypoints.shape[1], form).closeness)


def num_matches(
    keypoints: Float[Array, "n k 2"], bboxes: Float[Array, "n 4"], form: Form
) -> Float[Array, "n n"]:
    """AlphaPose's count of joints within a reference distance and within 7 pixels."""
    reach = jnp.minimum(reference_distance(bboxes, form), _MATCH_PIXELS)[:, None]

    def matches(joint):
        dx, dy = _offset(keypoints, joint)
        return (dx**2 + dy**2 <= reach**2).astype(jnp.float32)

    return _weighted_sum(matches, joint_weights(keypoints.shape[1], form).matches)


def _weighted_sum(
    term: Callable[[Any], Float[Array, "n n"]], weights: Float[np.ndarray, " k"]
) -> Float[Array, "n n"]:
    """Terms of the joints that count, times their weights."""
    joints = np.flatnonzero(weights)
    weights = weights[joints].astype(np.float32)
    if len(joints) <= _MOST_UNROLLED:
        return functools.reduce(operator.add, map(operator.mul, weights, map(term, joints)))

    def add(total: Float[Array, "n n"], joint: tuple) -> tuple[Float[Array, "n n"], None]:
        index, weight = joint
        return total + weight * term(index), None

    # A hundred joints and more would take seconds to compile.
    return jax.lax.scan(add, weights[0] * term(joints[0]), (joints[1:], weights[1:]))[0]


def _unit(bboxes: Float[Array, "n 4"], form: Form) -> Float[Array, "n 1"]:
    if form.unit == "pixel":
        return jnp.ones_like(bboxes[:, :1])
    return reference_distance(bboxes, form)[:, None]


def _offset(
    keypoints: Float[Array, "n k 2"], joint: int | Int[Array, ""]
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    x, y = keypoints[:, joint, 0], keypoints[:, joint, 1]
    return x[None, :] - x[:, None], y[None, :] - y[:, None]
