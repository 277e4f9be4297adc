"""Between person boxes and the maps of a detector: targets to learn, boxes to read out.

Each person is a point, the centre of the box, in a heat map (Zhou et al., "Objects as Points",
2019), and the distances from there to the box's four sides. Targets are those of TTFNet (Liu et
al., "Training-Time-Friendly Network for Real-Time Object Detection", AAAI 2020): Gaussians of the
box's own shape, and boxes learned all around the centre. They make the most of few steps.

Boxes are xyxy pixels of the network's input, edges as in COCO; a cell is a pixel of the maps, and
`stride` input pixels wide. Cell (i, j) has its centre at ((j + 1/2) stride, (i + 1/2) stride).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.ops import geometry

REACH = 0.54  # of a box's width and height, on which its Gaussian lives: TTFNet's alpha
_UNIT = 4.0  # cells that a distance of exp(0) means
_LIMIT = 5.0  # of the logarithm of a distance; exp(5) * 4 cells is more than any picture


class BoxTargets(NamedTuple):
    """What the maps of a batch are to look like.

    Attributes:
      heat: 1 in the cells of centres, Gaussians around them.
      centres: the person's weight in the cells of centres, 0 elsewhere.
      bboxes: the box to be read out of each cell; anything where its weight is 0.
      bbox_weights: 0 in cells that belong to nobody.
    """

    heat: Float[Array, "b h w"]
    centres: Float[Array, "b h w"]
    bboxes: Float[Array, "b h w 4"]
    bbox_weights: Float[Array, "b h w"]


def encode(
    bboxes: Float[Array, "b n 4"],
    weights: Float[Array, "b n"],
    heatmap_size: tuple[int, int],
    stride: int,
) -> BoxTargets:
    """The targets of people's boxes; people of weight 0 are none, and their boxes do not matter.

    The heat of a box of w x h cells around the cell (i, j) of its centre is the Gaussian of
    deviations REACH w / 6 and REACH h / 6, on the REACH w x REACH h cells about it. A cell in more
    than one box's reach belongs to the smallest. A box's cells share a weight of log(area) times
    the person's, by their heat (TTFNet, eq. 6).
    """
    cells = bboxes / stride
    size = jnp.maximum(cells[..., 2:] - cells[..., :2], 1e-3)
    height, width = heatmap_size
    limit = jnp.array([width, height]) - 1
    centre = jnp.clip(jnp.floor((cells[..., :2] + cells[..., 2:]) / 2), 0, limit)
    rows = _profile(centre[..., 1], size[..., 1], height)
    columns = _profile(centre[..., 0], size[..., 0], width)
    present = weights > 0
    heat = rows[..., :, None] * columns[..., None, :] * present[..., None, None]  # b n h w

    is_centre = heat == 1
    centres = jnp.where(is_centre, weights[..., None, None], 0).max(1)
    area = geometry.box_area(bboxes)
    candidates = jnp.where(heat > 0, area[..., None, None], jnp.inf)
    owner = candidates.argmin(1)
    owned = (jnp.arange(bboxes.shape[1])[:, None, None] == owner[:, None]) * heat
    share = weights * jnp.log(jnp.maximum(area, jnp.e)) / jnp.maximum(owned.sum((2, 3)), 1e-6)
    return BoxTargets(
        heat=heat.max(1),
        centres=centres,
        bboxes=jax.vmap(lambda boxes, index: boxes[index])(bboxes, owner),
        bbox_weights=(owned * share[..., None, None]).sum(1),
    )


def _profile(
    centre: Float[Array, "b n"], size: Float[Array, "b n"], length: int
) -> Float[Array, "b n length"]:
    """Gaussians along one axis, exactly 1 in the cell of the centre, 0 out of reach."""
    offset = jnp.arange(length) - centre[..., None]
    sigma = REACH * size[..., None] / 6
    within = jnp.abs(offset) <= REACH * size[..., None] / 2
    values = jnp.exp(-(offset**2) / (2 * sigma**2))
    return jnp.where(offset == 0, 1.0, jnp.where(within, values, 0.0))


def cells_inside(
    bboxes: Float[Array, "b n 4"], heatmap_size: tuple[int, int], stride: int
) -> Bool[Array, "b h w"]:
    """The cells whose centre lies in any of the boxes; boxes without area hold none."""
    height, width = heatmap_size
    y = (jnp.arange(height) + 0.5) * stride
    x = (jnp.arange(width) + 0.5) * stride
    rows = (y >= bboxes[..., 1, None]) & (y < bboxes[..., 3, None])
    columns = (x >= bboxes[..., 0, None]) & (x < bboxes[..., 2, None])
    return (rows[..., :, None] & columns[..., None, :]).any(1)


def to_bboxes(distances: Float[Array, "*b h w 4"], stride: int) -> Float[Array, "*b h w 4"]:
    """The box that each cell tells: logarithms of the distances left, up, right and down."""
    height, width = distances.shape[-3:-1]
    reach = jnp.exp(jnp.clip(distances, -_LIMIT, _LIMIT)) * _UNIT * stride
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    point = (jnp.stack([x, y], -1) + 0.5) * stride
    return jnp.concatenate([point - reach[..., :2], point + reach[..., 2:]], -1)


def peaks(heat: Float[Array, "b h w"], count: int) -> tuple[Float[Array, "b n"], Int[Array, "b n"]]:
    """The `count` highest cells that no neighbour tops, best first: heat, and index into h * w.

    Where there are fewer the rest has heat 0.
    """
    padded = jnp.pad(heat, ((0, 0), (1, 1), (1, 1)))
    height, width = heat.shape[1:]
    around = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    top = jnp.stack(around).max(0)
    return jax.lax.top_k(jnp.where(heat >= top, heat, 0).reshape(len(heat), -1), count)


def voted(
    bboxes: Float[Array, "h w 4"], heat: Float[Array, "h w"], index: Int[Array, " n"]
) -> Float[Array, "n 4"]:
    """The boxes at cells `index` (into h * w), averaged by heat with like ones of cells around.

    Box voting (Gidaris & Komodakis, ICCV 2015, section 3.3) among the 5 x 5 cells: those vote whose
    box has an intersection over union of more than one half with that of the cell.
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
    # The cell's own vote stands, whatever becomes of boxes without area.
    agrees = (geometry.box_iou(own, around)[:, 0] > 0.5).at[:, middle].set(True)
    votes = jnp.maximum(jnp.where(agrees, votes, 0), 1e-12 * (jnp.arange(25) == middle))
    return (votes[..., None] * around).sum(1) / votes.sum(-1, keepdims=True)
