"""Object keypoint similarity (OKS): how close a pose is to an annotated pose, 0 to 1.

COCO's keypoint evaluation (cocodataset.org, "Keypoint Evaluation"; `COCOeval.computeOks` of
pycocotools): the mean over labeled joints of exp(-d² / (2 s² k²)), with d the distance in pixels,
s² the person's area in square pixels, and k twice the joint's sigma. The functions take NumPy and
JAX arrays and work under `jit`, `vmap` and `grad`.
"""

from typing import Any

from jaxtyping import Float, Num

from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import AnyArray


def oks(
    keypoints: Float[AnyArray, "*b n k 2"],
    gt_keypoints: Float[AnyArray, "*b m k 2"],
    gt_visibility: Num[AnyArray, "*b m k"],
    gt_area: Float[AnyArray, "*b m"],
    sigmas: Float[Any, " k"],
    gt_bboxes: Float[AnyArray, "*b m 4"] | None = None,
) -> Float[AnyArray, "*b n m"]:
    """OKS of every pose of `keypoints` with every annotated pose.

    Args:
      keypoints: image pixels.
      gt_keypoints: image pixels.
      gt_visibility: 0 where a joint is not labeled; `gt_keypoints` is arbitrary there.
      gt_area: square pixels.
      sigmas: per joint, as in `Skeleton.sigmas`.
      gt_bboxes: xyxy image pixels. If given, COCO's rule applies to people without labeled joints:
        the distance of a joint is how far it lies outside the box after the box has grown by its
        own size on each side. If not given, the OKS with such people is 0.
    """
    xp = keypoints.__array_namespace__()
    labeled = (gt_visibility > 0)[..., None, :, :]
    offset = keypoints[..., :, None, :, :] - gt_keypoints[..., None, :, :, :]
    offset = xp.where(labeled[..., None], offset, 0)
    counted = labeled
    if gt_bboxes is not None:
        unlabeled = xp.logical_not(xp.any(labeled, -1, keepdims=True))
        outside = _distance_outside(keypoints, gt_bboxes)
        offset = xp.where(unlabeled[..., None], outside, offset)
        counted = labeled | unlabeled
    # COCO's constant k is twice sigma.
    variance = 2 * (2 * xp.asarray(sigmas)) ** 2 * xp.maximum(gt_area, 1e-12)[..., None, :, None]
    similarity = xp.exp(-(offset**2).sum(-1) / variance)
    total = xp.where(counted, similarity, 0).sum(-1)
    return total / xp.maximum(counted.sum(-1), 1)


def _distance_outside(
    keypoints: Float[AnyArray, "*b n k 2"], bboxes: Float[AnyArray, "*b m 4"]
) -> Float[AnyArray, "*b n m k 2"]:
    """How far each joint lies outside each box, grown by its own size on each side."""
    xp = keypoints.__array_namespace__()
    size = geometry.xywh_from_xyxy(bboxes)[..., 2:]
    low = (bboxes[..., :2] - size)[..., None, :, None, :]
    high = (bboxes[..., 2:] + size)[..., None, :, None, :]
    points = keypoints[..., :, None, :, :]
    return xp.maximum(low - points, 0) + xp.maximum(points - high, 0)
