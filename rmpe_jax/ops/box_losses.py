"""Losses of a detector that finds people as center points. All are float32 scalars."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmpe_jax.ops import geometry
from rmpe_jax.ops.box_maps import BoxTargets


def focal(
    logits: Float[Array, "b h w"], targets: BoxTargets, counts: Float[Array, "b h w"]
) -> Float[Array, ""]:
    """Penalty-reduced focal loss over the people's weights (Law & Deng, ECCV 2018, eq. 1).

    -(1 - p)² log p in the cells of centers, times the person's weight; -(1 - t)⁴ p² log(1 - p)
    elsewhere, where t is the target's heat. Divided by the sum of the weights, or by 1 if it is
    less.

    Args:
      logits: of the heatmap, before the sigmoid.
      targets: of `box_maps.encode`.
      counts: 0 in cells whose background loss is ignored, 1 elsewhere.
    """
    p = jax.nn.sigmoid(logits)
    center = -((1 - p) ** 2) * jax.nn.log_sigmoid(logits) * targets.centers
    elsewhere = -((1 - targets.heat) ** 4) * p**2 * jax.nn.log_sigmoid(-logits) * counts
    return (center.sum() + elsewhere.sum()) / jnp.maximum(targets.centers.sum(), 1)


def giou_loss(bboxes: Float[Array, "b h w 4"], targets: BoxTargets) -> Float[Array, ""]:
    """The weighted mean over cells of 1 - GIoU (Rezatofighi et al., CVPR 2019)."""
    per_cell = 1 - giou(bboxes, targets.bboxes)
    total = targets.bbox_weights.sum()
    return (per_cell * targets.bbox_weights).sum() / jnp.where(total > 0, total, 1)


def giou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Generalized intersection over union of each pair of boxes (xyxy), -1 to 1."""
    inner = jnp.concatenate(
        [jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])], -1
    )
    hull = jnp.concatenate(
        [jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])], -1
    )
    overlap, around = geometry.box_area(inner), jnp.maximum(geometry.box_area(hull), 1e-6)
    union = jnp.maximum(geometry.box_area(a) + geometry.box_area(b) - overlap, 1e-6)
    return overlap / union - (around - union) / around
