"""Crops of people on the device, like those that `data.augment.crop` makes on the host."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from rmpe_jax.ops import geometry
from rmpe_jax.ops.spatial_transformer import affine_sample, theta_from_pixels

_LEVELS = 3  # of coarseness: blocks of up to 8 pixels


def crop_people(
    pixels: UInt8[Array, "i l 3"],
    sizes: Int[Array, "i 2"],
    image_index: Int[Array, " n"],
    image_from_crop: Float[Array, "n 2 3"],
    input_size: tuple[int, int],
) -> Float[Array, "n height width 3"]:
    """Crop people out of images.

    If a crop pixel spans two or more image pixels, the image is first averaged over blocks of that
    many pixels, so that `affine_sample` has to reduce it by a factor below two. Only blocks that
    lie entirely in the image count. A crop pixel that spans more than the image is black.

    Args:
      pixels: RGB pixels of each image, row by row; those after its last row are arbitrary.
      sizes: (height, width) of each image.
      image_index: the image that each person is in.
      image_from_crop: affine from crop pixels to image pixels, without rotation.
      input_size: (height, width) of the crops.

    Returns:
      The crops: RGB from 0 to 255, not rounded, black outside the image.
    """
    crop = functools.partial(_crop, pixels, sizes, input_size)
    return jax.vmap(crop)(image_index, image_from_crop)


def crop_canvases(
    canvases: UInt8[Array, "n h w 3"],
    canvas: Int[Array, " b"],
    canvas_from_crop: Float[Array, "b 2 3"],
    color_gain: Float[Array, "b 3"],
    region: Float[Array, "b 4"],
    coarseness: Float[Array, " b"],
    input_size: tuple[int, int],
) -> Float[Array, "b height width 3"]:
    """Sample crops from people's canvases (`data.resident`) and multiply the channels by a gain.

    If a crop pixel, times the coarseness, spans two canvas pixels or more, the canvas is first
    averaged over blocks of 2, 4 or 8 pixels.

    Args:
      canvases: RGB, of all people.
      canvas: the canvas that each crop is of.
      canvas_from_crop: affine from crop pixels to canvas pixels.
      color_gain: of R, G, B.
      region: the part of each canvas that is used, its outer edges; the rest is black.
      coarseness: of each crop, see `data.augment.CropPlan`.
      input_size: (height, width) of the crops.

    Returns:
      The crops: RGB from 0 to 255, not rounded, black outside the canvas.
    """
    height, width = canvases.shape[1:3]
    theta = theta_from_pixels(canvas_from_crop, input_size, (height, width))
    # Side of a crop pixel in canvas pixels.
    side = jnp.sqrt(jnp.abs(jnp.linalg.det(canvas_from_crop[..., :2])))
    level = jnp.clip(jnp.floor(jnp.log2(coarseness * side)), 0, _LEVELS).astype(jnp.int32)

    def crop(index, theta, gain, region, level):
        rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
        inside = (columns > region[0]) & (columns < region[2])
        inside &= (rows > region[1]) & (rows < region[3])
        pixels = jnp.where(inside[..., None], canvases[index].astype(jnp.float32), 0)
        coarser = [functools.partial(_coarse, block=2**n) for n in range(_LEVELS + 1)]
        sampled = affine_sample(jax.lax.switch(level, coarser, pixels), theta, input_size)
        return jnp.clip(sampled * gain, 0, 255)

    return jax.vmap(crop)(canvas, theta, color_gain, region, level)


def _coarse(pixels: Float[Array, "h w c"], block: int) -> Float[Array, "h w c"]:
    """Means over blocks of pixels, interpolated between the blocks' centers."""
    if block == 1:
        return pixels
    height, width, channels = pixels.shape
    small = (height // block, block, width // block, block, channels)
    means = pixels[: small[0] * block, : small[2] * block].reshape(small).mean((1, 3))
    return jax.image.resize(means, pixels.shape, "linear")


def _crop(
    pixels: UInt8[Array, "i l 3"],
    sizes: Int[Array, "i 2"],
    input_size: tuple[int, int],
    image_index: Int[Array, ""],
    image_from_crop: Float[Array, "2 3"],
) -> Float[Array, "height width 3"]:
    block = jnp.sqrt(jnp.abs(jnp.linalg.det(image_from_crop[:, :2]))).astype(jnp.int32)
    block = jnp.maximum(block, 1)
    offset = (1 / block - 1) / 2  # of the centers of blocks
    small_from_image = jnp.eye(2, 3) / block + offset * jnp.eye(1, 3, k=2)
    small_from_crop = geometry.compose(small_from_image, image_from_crop)
    corner = jnp.floor(small_from_crop[:, 2])
    region_size = (2 * input_size[0], 2 * input_size[1])
    region = _block_means(pixels, sizes, image_index, corner.astype(jnp.int32), block, region_size)
    region_from_crop = small_from_crop.at[:, 2].add(-corner)
    theta = theta_from_pixels(region_from_crop, input_size, region_size)
    return affine_sample(region, theta, input_size)


def _block_means(
    pixels: UInt8[Array, "i l 3"],
    sizes: Int[Array, "i 2"],
    image_index: Int[Array, ""],
    corner: Int[Array, " 2"],
    block: Int[Array, ""],
    region_size: tuple[int, int],
) -> Float[Array, "h w 3"]:
    """Means of the image's complete blocks, starting at block `corner` (x, y); 0 elsewhere."""
    size = sizes[image_index]
    rows = (corner[1] + jnp.arange(region_size[0]))[:, None]
    columns = corner[0] + jnp.arange(region_size[1])
    small_height, small_width = size[0] // block, size[1] // block
    inside = (rows >= 0) & (rows < small_height) & (columns >= 0) & (columns < small_width)

    def add(i: Int[Array, ""], total: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
        y, x = rows * block + i // block, columns * block + i % block
        return total + pixels[image_index, jnp.where(inside, y * size[1] + x, 0)]

    total = jax.lax.fori_loop(0, block**2, add, jnp.zeros((*region_size, 3)))
    return jnp.where(inside[..., None], total / block**2, 0)
