"""Convolutions and pooling as what each platform computes fast.

GPUs and TPUs get XLA's operations. On CPUs XLA lacks fast code for some of them, or for their
gradients; there they are matrix products, smaller convolutions, or maxima of slices. Values and
gradients are the same to rounding, but for the gradient of equal pixels in pooling. Arrays are
NHWC, kernels HWIO.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve_1x1(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "1 1 c features"],
    strides: tuple[int, int],
    padding: Any,
    **options: Any,
) -> Float[Array, "b h2 w2 features"]:
    """`lax.conv_general_dilated` for 1x1 kernels without padding.

    On CPUs this is a product of two matrices, which takes XLA as little as half the time. With `x`
    as an array of four axes, XLA would copy it transposed for the gradient of the kernel. GPUs keep
    the convolution, because it shares the channel layout of its neighbors.
    """

    def product(x, kernel):
        x = x[:, :: strides[0], :: strides[1]]
        pixels = x.reshape(-1, x.shape[-1])
        return (pixels @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

    return jax.lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def deconvolve_4x4(
    x: Float[Array, "b h w c"], kernel: Float[Array, "4 4 c features"]
) -> Float[Array, "b 2*h 2*w features"]:
    """`lax.conv_transpose` with stride 2 and a padding of 2, which doubles height and width.

    On CPUs this is four 2x2 convolutions, one for the even or odd rows and columns of the output:
    XLA's gradients of the transposed convolution take 25 times as long.
    """

    def transposed(x, kernel):
        padding = ((2, 2), (2, 2))
        return jax.lax.conv_transpose(x, kernel, (2, 2), padding, dimension_numbers=_LAYOUT)

    return jax.lax.platform_dependent(x, kernel, cpu=_deconvolve_by_phase, default=transposed)


def _deconvolve_by_phase(
    x: Float[Array, "b h w c"], kernel: Float[Array, "4 4 c features"]
) -> Float[Array, "b 2*h 2*w features"]:
    batch, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def phase(i, j):
        window, taps = x[:, i : i + height + 1, j : j + width + 1], kernel[i::2, j::2]
        return jax.lax.conv_general_dilated(
            window, taps, (1, 1), "VALID", dimension_numbers=_LAYOUT
        )

    rows = [jnp.stack([phase(i, 0), phase(i, 1)], axis=3) for i in range(2)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)


def max_pool_3x3(x: Float[Array, "*b h w c"]) -> Float[Array, "*b (h+1)//2 (w+1)//2 c"]:
    """3x3 max pooling, stride 2, padded by one pixel of -infinity: the stem pooling of ResNets.

    On CPUs these are maxima of even and odd rows, then columns: XLA's gradient of pooling takes
    five times as long (docs/performance.md). Where several pixels of a window have the maximum,
    they share the gradient there; with XLA's pooling, one of them gets it all. For zeros after a
    ReLU that makes no difference.
    """

    def pooling(x):
        batch = (1,) * (x.ndim - 3)
        edges = ((0, 0),) * (x.ndim - 3) + ((1, 1), (1, 1), (0, 0))
        window, strides = (*batch, 3, 3, 1), (*batch, 2, 2, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, edges)

    def maxima(x):
        return _max_of_3(_max_of_3(x, x.ndim - 3), x.ndim - 2)

    return jax.lax.platform_dependent(x, cpu=maxima, default=pooling)


def _max_of_3(x: Float[Array, "*b h w c"], axis: int) -> Float[Array, "*b h2 w2 c"]:
    """The maximum of each element with an even index and its neighbors, along an axis."""
    size = x.shape[axis]
    even = jax.lax.slice_in_dim(x, 0, size, 2, axis)
    odd = jax.lax.slice_in_dim(x, 1, size, 2, axis)
    edges = [(0, 0)] * x.ndim
    edges[axis] = (1, size % 2)
    odd = jnp.pad(odd, edges, constant_values=-jnp.inf)
    count = even.shape[axis]
    before = jax.lax.slice_in_dim(odd, 0, count, 1, axis)
    after = jax.lax.slice_in_dim(odd, 1, count + 1, 1, axis)
    return jnp.maximum(jnp.maximum(before, even), after)
