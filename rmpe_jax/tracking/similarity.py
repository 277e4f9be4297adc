"""How well the people of a frame fit the people that are expected there.

The functions take NumPy and JAX arrays.
"""

from typing import Any

from jaxtyping import Bool, Float

from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import AnyArray


def expected_oks(
    expected: Float[AnyArray, "t k 2"],
    variance: Float[AnyArray, "t k"],
    found: Float[AnyArray, "n k 2"],
    counted: Bool[AnyArray, "t n k"],
    area: Float[AnyArray, " t"],
    sigmas: Float[Any, " k"],
) -> Float[AnyArray, "t n"]:
    """The mean OKS of found poses with poses whose joints are normally distributed.

    A joint at distance d has exp(-d² / 2v) in the OKS, with v = (2 sigma)² area. If the expected
    joint has the variance p in x and y, the mean of this is v / (v + p) exp(-d² / 2(v + p)). An
    uncertain joint so fits farther around, but nowhere as well. With p = 0 it is the OKS.

    Args:
      expected: means, image pixels.
      variance: square pixels.
      found: image pixels.
      counted: the joints of each pair that count. A pair without any has 0.
      area: of the expected people, square pixels.
      sigmas: per joint, as in `Skeleton.sigmas`.
    """
    xp = expected.__array_namespace__()
    own = (2 * xp.asarray(sigmas, dtype=expected.dtype)) ** 2 * area[:, None]
    total = own + variance
    squared = ((found - expected[:, None]) ** 2).sum(-1)
    value = (own / total)[:, None] * xp.exp(-squared / (2 * total[:, None]))
    return xp.where(counted, value, 0).sum(-1) / xp.maximum(counted.sum(-1), 1)


def similarity(
    expected: Float[AnyArray, "t k 2"],
    variance: Float[AnyArray, "t k"],
    expected_sure: Bool[AnyArray, "t k"],
    expected_bboxes: Float[AnyArray, "t 4"],
    found: Float[AnyArray, "n k 2"],
    found_sure: Bool[AnyArray, "n k"],
    found_bboxes: Float[AnyArray, "n 4"],
    sigmas: Float[Any, " k"],
    min_joints: Any,
) -> Float[AnyArray, "t n"]:
    """`expected_oks` on the joints that are sure in both poses; IoU of the boxes if they are few.

    Args:
      expected: means, image pixels.
      variance: of the expected joints, square pixels.
      expected_sure: the joints of the expected poses that count.
      expected_bboxes: xyxy image pixels.
      found: image pixels.
      found_sure: the joints of the found poses that count.
      found_bboxes: xyxy image pixels.
      sigmas: per joint, as in `Skeleton.sigmas`.
      min_joints: with fewer joints in common, or fewer than all joints of a smaller skeleton, the
        boxes decide.
    """
    xp = expected.__array_namespace__()
    counted = expected_sure[:, None] & found_sure
    area = geometry.box_area(expected_bboxes)
    by_pose = expected_oks(expected, variance, found, counted, area, sigmas)
    by_box = geometry.box_iou(expected_bboxes, found_bboxes)
    needed = xp.minimum(xp.asarray(min_joints), xp.asarray(expected.shape[-2]))
    return xp.where(counted.sum(-1) >= needed, by_pose, by_box)
