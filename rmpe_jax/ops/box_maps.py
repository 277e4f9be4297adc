"""Person boxes as output maps of a detector: encode boxes as targets, decode maps to boxes.

A person is the box's center in a heatmap (Zhou et al., "Objects as Points", 2019), and the
distances from there to the box's four sides. The targets are those of TTFNet (Liu et al.,
"Training-Time-Friendly Network for Real-Time Object Detection", AAAI 2020): Gaussians of the box's
shape, and box targets in all cells around the center, so that few training steps suffice.

Boxes are xyxy pixels of the network's input, with edges as in COCO. A cell is a pixel of the maps
and `stride` input pixels wide. Cell (i, j) has its center at ((j + 1/2) stride, (i + 1/2) stride).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.ops import geometry

GAUSSIAN_FRACTION = 0.54  # part of a box's sides that its Gaussian covers: TTFNet's alpha
_UNIT_CELLS = 4.0  # exp(0), the unit of distance, in cells
_MAX_LOG_DISTANCE = 5.0  # exp(5) * 4 cells is larger than any image


class BoxTargets(NamedTuple):
    """The targets of a batch of maps.

    Attributes:
      heat: 1 in the cells of centers, Gaussians around them.
      centers: the person's weight in the cells of centers, 0 elsewhere.
      bboxes: the box that each cell should predict; arbitrary where its weight is 0.
      bbox_weights: 0 in cells that belong to no person.
    """

    heat: Float[Array, "b h w"]
    centers: Float[Array, "b h w"]
    bboxes: Float[Array, "b h w 4"]
    bbox_weights: Float[Array, "b h w"]


def encode(
    bboxes: Float[Array, "b n 4"],
    weights: Float[Array, "b n"],
    heatmap_size: tuple[int, int],
    stride: int,
) -> BoxTargets:
    """The targets of people's boxes.

    With the fraction α = `GAUSSIAN_FRACTION`, the heat of a box of w x h cells is a Gaussian about
    the cell of its center, with deviations α w / 6 and α h / 6, cut off outside the α w x α h cells
    around it. A cell inside several Gaussians belongs to the smallest box. The cells of a box have
    a total weight of log(area) times the person's weight, in proportion to their heat (TTFNet,
    eq. 6).

    Args:
      bboxes: xyxy input pixels.
      weights: of people; people of weight 0 are ignored, as padding.
      heatmap_size: (height, width) of the maps.
      stride: input pixels per cell.
    """
    cells = bboxes / stride
    size = jnp.maximum(cells[..., 2:] - cells[..., :2], 1e-3)
    height, width = heatmap_size
    limit = jnp.array([width, height]) - 1
    center = jnp.clip(jnp.floor((cells[..., :2] + cells[..., 2:]) / 2), 0, limit)
    rows = _profile(center[..., 1], size[..., 1], height)
    columns = _profile(center[..., 0], size[..., 0], width)
    present = weights > 0
    heat = rows[..., :, None] * columns[..., None, :] * present[..., None, None]  # b n h w

    is_center = heat == 1
    centers = jnp.where(is_center, weights[..., None, None], 0).max(1)
    area = geometry.box_area(bboxes)
    candidates = jnp.where(heat > 0, area[..., None, None], jnp.inf)
    owner = candidates.argmin(1)
    owned = (jnp.arange(bboxes.shape[1])[:, None, None] == owner[:, None]) * heat
    scale = weights * jnp.log(jnp.maximum(area, jnp.e)) / jnp.maximum(owned.sum((2, 3)), 1e-6)
    return BoxTargets(
        heat=heat.max(1),
        centers=centers,
        bboxes=jax.vmap(lambda boxes, index: boxes[index])(bboxes, owner),
        bbox_weights=(owned * scale[..., None, None]).sum(1),
    )


def _profile(
    center: Float[Array, "b n"], size: Float[Array, "b n"], length: int
) -> Float[Array, "b n length"]:
    """Gaussians along one axis: exactly 1 in the cell of the center, 0 where they are cut off."""
    offset = jnp.arange(length) - center[..., None]
    extent = GAUSSIAN_FRACTION * size[..., None]
    sigma = extent / 6
    within = jnp.abs(offset) <= extent / 2
    values = jnp.exp(-(offset**2) / (2 * sigma**2))
    return jnp.where(offset == 0, 1.0, jnp.where(within, values, 0.0))


def cells_inside(
    bboxes: Float[Array, "b n 4"], heatmap_size: tuple[int, int], stride: int
) -> Bool[Array, "b h w"]:
    """The cells whose center is inside any of the boxes; boxes without area contain none."""
    height, width = heatmap_size
    y = (jnp.arange(height) + 0.5) * stride
    x = (jnp.arange(width) + 0.5) * stride
    rows = (y >= bboxes[..., 1, None]) & (y < bboxes[..., 3, None])
    columns = (x >= bboxes[..., 0, None]) & (x < bboxes[..., 2, None])
    return (rows[..., :, None] & columns[..., None, :]).any(1)


def to_bboxes(distances: Float[Array, "*b h w 4"], stride: int) -> Float[Array, "*b h w 4"]:
    """The box that each cell predicts.

    Args:
      distances: logarithms of the distances left, up, right and down, in units of 4 cells.
      stride: input pixels per cell.

    Returns:
      xyxy input pixels.
    """
    height, width = distances.shape[-3:-1]
    limited = jnp.clip(distances, -_MAX_LOG_DISTANCE, _MAX_LOG_DISTANCE)
    pixels = jnp.exp(limited) * _UNIT_CELLS * stride
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    point = (jnp.stack([x, y], -1) + 0.5) * stride
    return jnp.concatenate([point - pixels[..., :2], point + pixels[..., 2:]], -1)


def peaks(heat: Float[Array, "b h w"], count: int) -> tuple[Float[Array, "b n"], Int[Array, "b n"]]:
    """The `count` highest local maxima, best first: their heat, and their index into h * w.

    A local maximum is a cell that no neighbor exceeds. If there are fewer, the rest has heat 0.
    """
    padded = jnp.pad(heat, ((0, 0), (1, 1), (1, 1)))
    height, width = heat.shape[1:]
    around = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    highest = jnp.stack(around).max(0)
    values, index = jax.lax.top_k(jnp.where(heat >= highest, heat, 0).reshape(len(heat), -1), count)
    return values, index


def vote_boxes(
    bboxes: Float[Array, "h w 4"], heat: Float[Array, "h w"], index: Int[Array, " n"]
) -> Float[Array, "n 4"]:
    """The boxes at cells `index` (into h * w), each averaged with similar boxes of cells around it.

    Box voting (Gidaris & Komodakis, ICCV 2015, section 3.3) among 5 x 5 cells: the mean, weighted
    by heat, of the boxes whose intersection over union with the cell's own box is above one half.
    """
    height, width = heat.shape
    offsets = jnp.arange(-2, 3)
    rows = index[:, None, None] // width + offsets[:, None]
    columns = index[:, None, None] % width + offsets
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    around = bboxes[rows, columns].reshape(len(index), -1, 4)
    votes = jnp.where(inside, heat[rows, columns], 0).reshape(len(index), -1)
    middle = around.shape[1] // 2
    own = around[:, middle : middle + 1]
    # The cell itself always votes, even if its box has no area.
    agrees = (geometry.box_iou(own, around)[:, 0] > 0.5).at[:, middle].set(True)
    votes = jnp.maximum(jnp.where(agrees, votes, 0), 1e-12 * (jnp.arange(25) == middle))
    return (votes[..., None] * around).sum(1) / votes.sum(-1, keepdims=True)
