"""How similar two poses are: soft matching of joints (K) and closeness of joints (H).

Fang et al., "RMPE" (ICCV 2017), section 3.2. Rows are references: `[i, j]` compares pose j with
reference pose i, in units of the box of i.

Sums over joints are unrolled up to a number of joints. As one elementwise expression over pairs of
people they are ten times faster on CPUs than the reduction of an (n, n, k) array.

Functions that take a `skeleton` need it only for the variants whose `joints` is not "all"; it must
be static under `jit`.
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
from rmpe_jax.pose_nms.params import NmsVariant, PoseNmsParams
from rmpe_jax.skeletons import COCO, COCO_WHOLEBODY, HALPE26, HALPE136, Skeleton

_MAX_UNROLLED = 32
_MATCH_PIXELS = 7.0  # AlphaPose's limit on the distance of matching joints


class JointWeights(NamedTuple):
    """The weight of each joint in K, in H, and in AlphaPose's count of matching joints."""

    matching: Float[np.ndarray, " k"]
    closeness: Float[np.ndarray, " k"]
    matches: Float[np.ndarray, " k"]


def joint_weights(
    num_keypoints: int, variant: NmsVariant, skeleton: Skeleton | None = None
) -> JointWeights:
    """The weights of the joints in a variant of the rule.

    The weights of K and H add up to the K and H of identical poses with high scores.

    Args:
      num_keypoints: k.
      variant: its `joints` decides.
      skeleton: of the joints. Not needed if `variant.joints` is "all"; without it, 17, 26, 133
        and 136 joints are those of COCO, Halpe and COCO-WholeBody.

    Raises:
      UserError: the skeleton is missing, has another number of joints, or lacks the parts.
    """
    if skeleton is not None:
        skeleton.check_num_keypoints(num_keypoints, "pose NMS: poses")
    if variant.joints == "all":
        weights = np.ones(num_keypoints)
        return JointWeights(weights, weights, weights)
    if skeleton is None:
        known = (COCO, HALPE26, COCO_WHOLEBODY, HALPE136)
        skeleton = next((s for s in known if s.num_keypoints == num_keypoints), None)
    if skeleton is None:
        raise UserError(
            f"pose NMS with joints={variant.joints!r} needs to know the body parts: give the "
            "skeleton of the poses"
        )
    if variant.joints == "body":
        weights = (np.arange(num_keypoints) < body_size(skeleton)).astype(float)
        return JointWeights(weights, weights, weights)
    # AlphaPose weights face and hands by 1.9 and 0.55, and hands also by 0.1 in K and by 1.5 in H.
    sizes = np.array(part_sizes(skeleton))
    factors = np.array([1.0, 1.9, 0.55])
    return JointWeights(
        np.repeat(factors * [1.0, 1.0, 0.1] / sizes, sizes),
        np.repeat(factors * [1.0, 1.0, 1.5] / sizes, sizes),
        np.repeat(factors, sizes),
    )


def body_size(skeleton: Skeleton) -> int:
    """The number of leading joints that `joints="body"` uses: at most COCO's 17.

    Skeletons with feet, faces or hands begin with COCO's joints.
    """
    return min(skeleton.parts["body"].stop, COCO.num_keypoints)


def part_sizes(skeleton: Skeleton) -> tuple[int, int, int]:
    """The numbers of joints of body (with feet), face and hands, which `joints="parts"` uses.

    Raises:
      UserError: the skeleton has no face and hands.
    """
    sizes = dict(skeleton.part_sizes)
    if not {"face", "left_hand", "right_hand"} <= sizes.keys():
        raise UserError(
            "pose NMS by parts needs the joints of a whole body, which skeleton "
            f"{skeleton.name!r} does not have: use the preset alphapose or rmpe"
        )
    hands = sizes["left_hand"] + sizes["right_hand"]
    return skeleton.num_keypoints - sizes["face"] - hands, sizes["face"], hands


def reference_distance(bboxes: Float[Array, "n 4"], variant: NmsVariant) -> Float[Array, " n"]:
    """The length of a reference in pixels: a fraction of the longer side of each xyxy box."""
    return jnp.maximum((bboxes[..., 2:] - bboxes[..., :2]).max(-1) * variant.reference, 1e-6)


def redundant(
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    bboxes: Float[Array, "n 4"],
    params: PoseNmsParams,
    skeleton: Skeleton | None = None,
) -> Bool[Array, "n n"]:
    """Whether reference pose i eliminates pose j. Arguments as in `similarity`."""
    result = similarity(keypoints, keypoint_scores, bboxes, params, skeleton) > params.eta
    variant = params.variant
    if variant.min_matches:
        weights = joint_weights(keypoints.shape[1], variant, skeleton).matches
        result |= num_matches(keypoints, bboxes, variant, weights) >= variant.min_matches
    return result


def similarity(
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    bboxes: Float[Array, "n 4"],
    params: PoseNmsParams,
    skeleton: Skeleton | None = None,
) -> Float[Array, "n n"]:
    """d = K(sigma1) + lam * H(sigma2): equations 8 to 10 of the paper, in the variant of `params`.

    Args:
      keypoints: image pixels.
      keypoint_scores: 0 or more.
      bboxes: xyxy image pixels.
      params: the parameters.
      skeleton: of the keypoints; optional if `params.variant.joints` is "all".

    Raises:
      UserError: the skeleton is missing or does not fit.
    """
    variant = params.variant
    weights = joint_weights(keypoints.shape[1], variant, skeleton)
    matching = soft_matching(
        keypoints, keypoint_scores, bboxes, params.sigma1, variant, weights.matching
    )
    near = closeness(keypoints, bboxes, params.sigma2, variant, weights.closeness)
    return matching + params.lam * near


def soft_matching(
    keypoints: Float[Array, "n k 2"],
    keypoint_scores: Float[Array, "n k"],
    bboxes: Float[Array, "n 4"],
    sigma1: float | Float[Array, ""],
    variant: NmsVariant,
    weights: Float[np.ndarray, " k"],
) -> Float[Array, "n n"]:
    """K: the number of joints inside the reference's region, weighted by both joints' scores."""
    confidence = jnp.tanh(keypoint_scores / sigma1)
    half_size = (bboxes[:, 2:] - bboxes[:, :2])[:, None] / 20
    unit = _unit_in_pixels(bboxes, variant)

    def term(joint):
        dx, dy = _offset(keypoints, joint)
        if variant.region == "box":
            inside = (jnp.abs(dx) <= half_size[..., 0]) & (jnp.abs(dy) <= half_size[..., 1])
        else:
            inside = dx**2 + dy**2 <= unit**2
        return jnp.where(inside, confidence[:, None, joint] * confidence[None, :, joint], 0)

    return _weighted_sum(term, weights)


def closeness(
    keypoints: Float[Array, "n k 2"],
    bboxes: Float[Array, "n 4"],
    sigma2: float | Float[Array, ""],
    variant: NmsVariant,
    weights: Float[np.ndarray, " k"],
) -> Float[Array, "n n"]:
    """H: the weighted sum over joints of exp(-distance / sigma2)."""
    unit = _unit_in_pixels(bboxes, variant)

    def term(joint):
        dx, dy = _offset(keypoints, joint)
        squared = (dx**2 + dy**2) / unit**2
        # The lower bound keeps the gradient finite where joints coincide.
        distance = squared if variant.squared else jnp.sqrt(jnp.maximum(squared, 1e-14))
        return jnp.exp(-distance / sigma2)

    return _weighted_sum(term, weights)


def num_matches(
    keypoints: Float[Array, "n k 2"],
    bboxes: Float[Array, "n 4"],
    variant: NmsVariant,
    weights: Float[np.ndarray, " k"],
) -> Float[Array, "n n"]:
    """AlphaPose's weighted count of joints within one reference and within 7 pixels."""
    max_distance = jnp.minimum(reference_distance(bboxes, variant), _MATCH_PIXELS)[:, None]

    def term(joint):
        dx, dy = _offset(keypoints, joint)
        return (dx**2 + dy**2 <= max_distance**2).astype(jnp.float32)

    return _weighted_sum(term, weights)


def _weighted_sum(
    term: Callable[[Any], Float[Array, "n n"]], weights: Float[np.ndarray, " k"]
) -> Float[Array, "n n"]:
    """The sum of weight * term(joint) over the joints whose weight is not 0."""
    joints = np.flatnonzero(weights)
    weights = weights[joints].astype(np.float32)
    if len(joints) <= _MAX_UNROLLED:
        return functools.reduce(operator.add, map(operator.mul, weights, map(term, joints)))

    def add(total: Float[Array, "n n"], joint: tuple) -> tuple[Float[Array, "n n"], None]:
        index, weight = joint
        return total + weight * term(index), None

    # Unrolled, a hundred joints and more would take seconds to compile.
    return jax.lax.scan(add, weights[0] * term(joints[0]), (joints[1:], weights[1:]))[0]


def _unit_in_pixels(bboxes: Float[Array, "n 4"], variant: NmsVariant) -> Float[Array, "n 1"]:
    if variant.unit == "pixel":
        return jnp.ones_like(bboxes[:, :1])
    return reference_distance(bboxes, variant)[:, None]


def _offset(
    keypoints: Float[Array, "n k 2"], joint: int | np.integer | Int[Array, ""]
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    """x and y of pose j's joint minus those of pose i's, at [i, j]."""
    x, y = keypoints[:, joint, 0], keypoints[:, joint, 1]
    return x[None, :] - x[:, None], y[None, :] - y[:, None]
