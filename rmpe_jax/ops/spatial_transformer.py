"""The symmetric spatial transformer: STN, and its inverse, SDTN (Fang et al., RMPE, ICCV 2017).

`theta` (2, 3) maps target to source in normalized coordinates, in (x, y) order: in each raster, -1
and +1 are the centers of the first and last pixel (torch: align_corners=True). It is converted to
pixel units before sampling, so that sampling with the identity is exact. For batches use
`jax.vmap`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from rmpe_jax.ops import geometry

MIN_DETERMINANT = 1e-6


def affine_sample(
    image: Float[Array, "h w c"],
    theta: Float[Array, "2 3"],
    output_size: tuple[int, int],
    window_of: tuple[int, int] | None = None,
) -> Float[Array, "height width c"]:
    """Sample `image` bilinearly at the positions that `theta` gives; eq. 1 of the paper.

    `theta` maps each pixel of the output to a position in `image`. Of the four pixels around that
    position, those outside `image` count as 0. The function is differentiable in `image` and
    `theta`; at a position on a pixel center, the derivative is the right-hand one.

    Args:
      image: values at pixels.
      theta: see above; positions are computed in float32 for `image` of any precision.
      output_size: (height, width) of the output.
      window_of: (height, width) of the raster that `theta` maps, if the output is only the central
        window of it; by default `output_size`.
    """
    source_size = image.shape[0], image.shape[1]
    x, y = _positions(theta, source_size, output_size, window_of or output_size)
    sample = partial(map_coordinates, coordinates=(y, x), order=1, mode="constant", cval=0)
    # Per channel, because one call with a third coordinate takes several times as long
    # (docs/sstn.md).
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def _positions(
    theta: Float[Array, "2 3"],
    source_size: tuple[int, int],
    window_size: tuple[int, int],
    target_size: tuple[int, int],
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """x and y in source pixels of every pixel in the central window of the target."""
    theta = theta.astype(jnp.promote_types(theta.dtype, jnp.float32))
    source, target = _half_extent(source_size), _half_extent(target_size)
    # A side of one pixel has no extent; its pixel is at 0.
    pixels_per_pixel = source[:, None] / np.where(target > 0, target, 1)
    linear = theta[:, :2] * jnp.asarray(pixels_per_pixel, theta.dtype)
    (height, width), window = window_size, _half_extent(window_size)
    columns = jnp.arange(width, dtype=theta.dtype) - window[0].item()
    rows = jnp.arange(height, dtype=theta.dtype)[:, None] - window[1].item()
    center = jnp.asarray(source, theta.dtype) * (1 + theta[:, 2])
    # Sums of float32 products instead of a matrix product, which accelerators would round.
    x = linear[0, 0] * columns + linear[0, 1] * rows + center[0]
    y = linear[1, 0] * columns + linear[1, 1] * rows + center[1]
    return x, y


def _half_extent(size: tuple[int, int]) -> Float[np.ndarray, " 2"]:
    """The distance in pixels, (x, y), from a raster's center to the center of its last pixel."""
    return (np.array(size[::-1]) - 1) / 2


def invert_theta(theta: Float[Array, "*b 2 3"]) -> Float[Array, "*b 2 3"]:
    """The inverse warp, gamma, for the SDTN: G = A⁻¹ and g₃ = -G t; eqs. 2 and 3 of the paper.

    A determinant closer to 0 than `MIN_DETERMINANT` is replaced by that value with its sign. So
    gamma and its gradient stay finite where there is no inverse.
    """
    a, b, c, d = theta[..., 0, 0], theta[..., 0, 1], theta[..., 1, 0], theta[..., 1, 1]
    det = a * d - b * c
    smallest = jnp.where(det < 0, -MIN_DETERMINANT, MIN_DETERMINANT).astype(det.dtype)
    det = jnp.where(jnp.abs(det) < MIN_DETERMINANT, smallest, det)
    x, y = theta[..., 0, 2], theta[..., 1, 2]
    rows = (d, -b, b * y - d * x), (-c, a, c * x - a * y)
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2) / det[..., None, None]


def theta_on_raster(
    theta: Float[Array, "*b 2 3"], size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Array, "*b 2 3"]:
    """The same warp for a finer or coarser raster of the same area, such as the heatmaps of a crop.

    Rasters of the same area share their outer edges (`geometry.heatmap_from_crop`), but the centers
    of their first pixels, where normalized coordinates are -1, differ. The paper's code uses theta
    unchanged, which moves 64x64 heatmaps by 1.2 % of the translation.

    Args:
      theta: a warp from a raster of `size` to a raster of the same size.
      size: (height, width).
      new_size: (height, width) of the raster to warp; two pixels or more.
    """
    old, new = np.array(size[::-1]), np.array(new_size[::-1])
    # In normalized coordinates the edge of the area is size / (size - 1) away from its center.
    scale = (old - 1) / old * new / (new - 1)
    factor = np.concatenate([scale[:, None] / scale, scale[:, None]], 1)
    return theta * jnp.asarray(factor, theta.dtype)


def theta_from_pixels(
    affine: Float[Array, "*b 2 3"],
    size: tuple[int, int],
    source_size: tuple[int, int] | None = None,
) -> Float[Array, "*b 2 3"]:
    """Theta of an affine that maps pixels of the target to pixels of the source.

    Args:
      affine: source_from_target.
      size: (height, width) of the target.
      source_size: (height, width) of the source, two pixels or more; by default `size`.
    """
    target = jnp.asarray(_half_extent(size), affine.dtype)
    source = jnp.asarray(_half_extent(source_size or size), affine.dtype)[:, None]
    linear = affine[..., :2] * target / source
    offset = linear.sum(-1, keepdims=True) + affine[..., 2:] / source - 1
    return jnp.concatenate([linear, offset], -1)


def pixels_from_theta(
    theta: Float[Array, "*b 2 3"], size: tuple[int, int]
) -> Float[Array, "*b 2 3"]:
    """The affine in pixels of a theta: source_from_target, the inverse of `theta_from_pixels`.

    Args:
      theta: a warp from a raster of `size` to a raster of the same size.
      size: (height, width).
    """
    half = jnp.asarray(_half_extent(size), theta.dtype)
    linear = theta[..., :2] * half[:, None] / half
    offset = half[:, None] * (1 + theta[..., 2:]) - (linear * half).sum(-1, keepdims=True)
    return jnp.concatenate([linear, offset], -1)


def placement_error(
    theta: Float[Array, "b 2 3"], centered_from_crop: Float[Array, "b 2 3"], size: tuple[int, int]
) -> Float[Array, ""]:
    """How far the STN's views are from the well-placed crops; 0.1 is a tenth of half a side.

    The mean over corners and batch of the distance between the corners of the view and of the
    well-placed crop, in normalized coordinates of the crop.

    Args:
      theta: of the STN.
      centered_from_crop: crop pixels to pixels of the well-placed crop.
      size: (height, width) of the crop.
    """
    target = theta_from_pixels(geometry.invert(centered_from_crop), size)
    corners = jnp.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], theta.dtype)
    squares = (geometry.transform_points(theta - target, corners) ** 2).sum(-1)
    # This is also used as a loss, so its gradient must be finite at 0.
    return jnp.sqrt(squares + 1e-12).mean()


def theta_metrics(theta: Float[Array, "b 2 3"]) -> dict[str, Float[Array, ""]]:
    """How far thetas are from the identity: means over the batch, for the training log.

    `theta_change` is the mean of |theta - identity| over its six numbers, `theta_translation` the
    length of the translation in half sides of the crop, and `theta_scale` the length scale of the
    linear part; below 1 the view is magnified.
    """
    identity = jnp.eye(2, 3, dtype=theta.dtype)
    determinant = theta[:, 0, 0] * theta[:, 1, 1] - theta[:, 0, 1] * theta[:, 1, 0]
    return {
        "theta_change": jnp.abs(theta - identity).mean(),
        "theta_translation": jnp.linalg.norm(theta[:, :, 2], axis=-1).mean(),
        "theta_scale": jnp.sqrt(jnp.abs(determinant)).mean(),
    }
