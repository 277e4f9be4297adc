"""Object keypoint similarity (OKS): how close a pose is to an annotated one, 0 to 1.

COCO's keypoint evaluation (cocodataset.org, "Keypoint Evaluation"; `COCOeval.computeOks` of
pycocotools): the mean over labelled joints of exp(-d² / (2 s² k²)), with d the distance in pixels,
s² the person's area in square pixels, and k twice the joint's sigma. Works on NumPy and JAX arrays
alike, under `jit`, `vmap` and `grad`.
"""

import numpy as np
from jaxtyping import Float, Num

from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import AnyArray


def oks(
    keypoints: Float[AnyArray, "*b n k 2"],
    gt_keypoints: Float[AnyArray, "*b m k 2"],
    gt_visibility: Num[AnyArray, "*b m k"],
    gt_area: Float[AnyArray, "*b m"],
    sigmas: Float[np.ndarray, " k"],
    gt_bboxes: Float[AnyArray, "*b m 4"] | None = None,
) -> Float[AnyArray, "*b n m"]:
    """OKS of every pose of `keypoints` with every annotated one.

    Args:
      keypoints, gt_keypoints: image pixels.
      gt_visibility: 0 where a joint is not labelled; `gt_keypoints` may be anything there.
      gt_area: square pixels.
      sigmas: per joint, as in `Skeleton.sigmas`.
      gt_bboxes: xyxy image pixels. With them, a person without labelled joints is compared by
        COCO's rule: distance is how far a joint lies outside the box grown by its own size on
        each side. Without them the OKS with such a person is 0.
    """
    xp = keypoints.__array_namespace__()
    labelled = (gt_visibility > 0)[..., None, :, :]
    offset = keypoints[..., :, None, :, :] - gt_keypoints[..., None, :, :, :]
    offset = xp.where(labelled[..., None], offset, 0)
    counted = labelled
    if gt_bboxes is not None:
        nothing = xp.logical_not(xp.any(labelled, -1, keepdims=True))
        outside = _distance_outside(keypoints, gt_bboxes)
        offset = xp.where(nothing[..., None], outside, offset)
        counted = labelled | nothing
    # COCO's constant k is twice sigma.
    variance = 2 * (2 * xp.asarray(sigmas)) ** 2 * xp.maximum(gt_area, 1e-12)[..., None, :, None]
    similarity = xp.exp(-(offset**2).sum(-1) / variance)
    total = xp.where(counted, similarity, 0).sum(-1)
    return total / xp.maximum(counted.sum(-1), 1)


def _distance_outside(
    keypoints: Float[AnyArray, "*b n k 2"], bboxes: Float[AnyArray, "*b m 4"]
) -> Float[AnyArray, "*b n m k 2"]:
    """How far each joint lies outside each box grown by its own size on each side."""
    xp = keypoints.__array_namespace__()
    size = geometry.xywh_from_xyxy(bboxes)[..., 2:]
    low = (bboxes[..., :2] - size)[..., None, :, None, :]
    high = (bboxes[..., 2:] + size)[..., None, :, None, :]
    points = keypoints[..., :, None, :, :]
    return xp.maximum(low - points, 0) + xp.maximum(points - high, 0)
