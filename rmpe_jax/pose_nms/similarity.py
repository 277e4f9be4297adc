"""How redundant one pose is with another: soft matching of joints, and their distance.

Fang et al., "RMPE" (ICCV 2017), section 3.2. Rows are references: `[i, j]` compares pose j with
reference i, in the units of i's box.

Sums over joints are unrolled: as one elementwise expression over pairs of people they are an order
of magnitude faster on CPUs than as a reduction of a (n, n, k) array.
"""

import functools
import operator

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.pose_nms.params import Form, PoseNmsParams

_MATCH_PIXELS = 7.0  # AlphaPose's cap on the distance of joints that match


def reference_distance(bboxes: Float[Array, "n 4"]) -> Float[Array, " n"]:
    """A tenth of the longer side of each box (xyxy), in pixels."""
    return jnp.maximum((bboxes[..., 2:] - bboxes[..., :2]).max(-1) / 10, 1e-6)


def redundant(
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    bboxes: Float[Array, "n 4"],
    params: PoseNmsParams,
) -> Bool[Array, "n n"]:
    """Whether pose j would be eliminated by pose i."""
    result = similarity(keypoints, keypoint_scores, bboxes, params) > params.eta
    if params.form.min_matches:
        result |= num_matches(keypoints, bboxes) >= params.form.min_matches
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

    return functools.reduce(operator.add, map(matches, range(keypoints.shape[1])))


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

    return functools.reduce(operator.add, map(near, range(keypoints.shape[1])))


def num_matches(keypoints: Float[Array, "n k 2"], bboxes: Float[Array, "n 4"]) -> Int[Array, "n n"]:
    """AlphaPose's count of joints within a reference distance and within 7 pixels."""
    reach = jnp.minimum(reference_distance(bboxes), _MATCH_PIXELS)[:, None]

    def matches(joint):
        dx, dy = _offset(keypoints, joint)
        return (dx**2 + dy**2 <= reach**2).astype(jnp.int32)

    return functools.reduce(operator.add, map(matches, range(keypoints.shape[1])))


def _unit(bboxes: Float[Array, "n 4"], form: Form) -> Float[Array, "n 1"]:
    if form.unit == "pixel":
        return jnp.ones_like(bboxes[:, :1])
    return reference_distance(bboxes)[:, None]


def _offset(
    keypoints: Float[Array, "n k 2"], joint: int
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    x, y = keypoints[:, joint, 0], keypoints[:, joint, 1]
    return x[None, :] - x[:, None], y[None, :] - y[:, None]
