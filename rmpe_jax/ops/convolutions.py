"""Convolutions as what each platform computes fast.

GPUs and TPUs get XLA's convolutions. On CPUs XLA lacks fast code for some of them, or for their
gradients; there they are matrix products or smaller convolutions. Values and gradients are the same
to rounding. Arrays are NHWC, kernels HWIO.
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

    On CPUs this is a matrix product, which takes XLA as little as half the time. GPUs keep the
    convolution, because it shares the channel layout of its neighbors.
    """

    def product(x, kernel):
        return jnp.einsum("bhwc,cd->bhwd", x[:, :: strides[0], :: strides[1]], kernel[0, 0])

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
