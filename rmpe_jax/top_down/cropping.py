"""People cut out of pictures on the device, as `data.augment.crop` cuts them on the host."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from rmpe_jax.ops import geometry
from rmpe_jax.ops.spatial_transformer import affine_sample, theta_from_pixels


def crop_people(
    pictures: UInt8[Array, "p l 3"],
    sizes: Int[Array, "p 2"],
    picture: Int[Array, " n"],
    image_from_crop: Float[Array, "n 2 3"],
    input_size: tuple[int, int],
) -> Float[Array, "n height width 3"]:
    """Crops of people, 0 to 255 and not rounded; black outside of their picture.

    Where a crop pixel spans two or more image pixels, the picture is averaged over blocks of that
    many first; what is left to `affine_sample` is to reduce by less than two. A crop pixel that
    spans more than the picture is black.

    Args:
      pictures: RGB, the pixels of each row by row from its start, and then anything.
      sizes: (height, width) of each.
      picture: which one a person is in.
      image_from_crop: of crops that are not turned.
      input_size: (height, width) of the crops.
    """
    crop = functools.partial(_crop, pictures, sizes, input_size)
    return jax.vmap(crop)(picture, image_from_crop)


def _crop(
    pictures: UInt8[Array, "p l 3"],
    sizes: Int[Array, "p 2"],
    input_size: tuple[int, int],
    picture: Int[Array, ""],
    image_from_crop: Float[Array, "2 3"],
) -> Float[Array, "height width 3"]:
    block = jnp.sqrt(jnp.abs(jnp.linalg.det(image_from_crop[:, :2]))).astype(jnp.int32)
    block = jnp.maximum(block, 1)
    offset = (1 / block - 1) / 2  # of the centres of blocks
    small_from_image = jnp.eye(2, 3) / block + offset * jnp.eye(1, 3, k=2)
    small_from_crop = geometry.compose(small_from_image, image_from_crop)
    corner = jnp.floor(small_from_crop[:, 2])
    region_size = (2 * input_size[0], 2 * input_size[1])
    region = _block_means(pictures, sizes, picture, corner.astype(jnp.int32), block, region_size)
    region_from_crop = small_from_crop.at[:, 2].add(-corner)
    theta = theta_from_pixels(region_from_crop, input_size, region_size)
    return affine_sample(region, theta, input_size)


def _block_means(
    pictures: UInt8[Array, "p l 3"],
    sizes: Int[Array, "p 2"],
    picture: Int[Array, ""],
    corner: Int[Array, " 2"],
    block: Int[Array, ""],
    region_size: tuple[int, int],
) -> Float[Array, "h w 3"]:
    """Means of the picture's whole blocks, from the block `corner` (x, y) on; 0 for others."""
    size = sizes[picture]
    rows = (corner[1] + jnp.arange(region_size[0]))[:, None]
    columns = corner[0] + jnp.arange(region_size[1])
    small_height, small_width = size[0] // block, size[1] // block
    inside = (rows >= 0) & (rows < small_height) & (columns >= 0) & (columns < small_width)

    def add(i: Int[Array, ""], total: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
        y, x = rows * block + i // block, columns * block + i % block
        pixels = pictures[picture, jnp.where(inside, y * size[1] + x, 0)]
        return total + pixels

    total = jax.lax.fori_loop(0, block**2, add, jnp.zeros((*region_size, 3)))
    return jnp.where(inside[..., None], total / block**2, 0)
