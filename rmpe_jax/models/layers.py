"""The small pieces every network here is made of.

Functions that take `name` create a flax submodule: call them inside an `@nn.compact` method. Arrays
are NHWC; leading batch dimensions are free. Parameters and batch statistics are float32, `dtype` is
the precision of the arithmetic. Padding is always explicit and symmetric: XLA's 'SAME' pads a
strided window on one side only, which shifts the feature map by half a pixel.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.errors import UserError

conv_init = nn.initializers.he_normal()
heatmap_init = nn.initializers.normal(0.001)


def check_size(x: Float[Array, "*b h w c"], multiple: int, network: str) -> None:
    """Raises UserError unless height and width of `x` are multiples of `multiple`."""
    height, width = x.shape[-3:-1]
    if height % multiple or width % multiple:
        raise UserError(
            f"{network}: input of {height}x{width} pixels; make both sides multiples of {multiple}"
        )


def conv(
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    bias: bool = False,
    dtype: DTypeLike = jnp.float32,
    kernel_init: nn.initializers.Initializer = conv_init,
    name: str,
) -> nn.Conv:
    """A square convolution padded by kernel // 2 on every side; He-normal kernel, zero bias."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((kernel // 2, kernel // 2),) * 2,
        use_bias=bias,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=_convolve_1x1 if kernel == 1 else None,
        name=name,
    )


def _convolve_1x1(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "1 1 c features"],
    strides: tuple[int, int],
    padding: Any,
    **options: Any,
) -> Float[Array, "b h2 w2 features"]:
    """`lax.conv_general_dilated` of a 1x1 kernel without padding.

    On CPUs it is a matrix product, which XLA computes there in down to half the time. GPUs keep the
    convolution, which shares its neighbours' layout of the channels.
    """

    def product(x, kernel):
        return jnp.einsum("bhwc,cd->bhwd", x[:, :: strides[0], :: strides[1]], kernel[0, 0])

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

    return jax.lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def batch_norm(*, train: bool, dtype: DTypeLike = jnp.float32, name: str) -> nn.BatchNorm:
    """Batch normalisation with this project's constants.

    Statistics move by a tenth per step (torch's momentum 0.1) and are float32. The running variance
    is the biased one, sum of squares over n, where torch stores n / (n - 1) times that; a training
    step's output is the same. Under `jit` on a sharded batch the statistics are of the whole batch.
    """
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name
    )


def conv_bn(
    x: Float[Array, "*b h w c"],
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    train: bool,
    dtype: DTypeLike,
    names: tuple[str, str],
) -> Float[Array, "*b h2 w2 features"]:
    """Convolution without bias, then batch norm; `names` are those of the two submodules."""
    x = conv(features, kernel, stride=stride, dtype=dtype, name=names[0])(x)
    return batch_norm(train=train, dtype=dtype, name=names[1])(x)


def heatmap_conv(num_keypoints: int, kernel: int, *, name: str) -> nn.Conv:
    """The last layer: N(0, 0.001) kernel, zero bias, always computed in float32.

    A bfloat16 heatmap has 8 bits, too few for the neighbour differences that decoding looks at.
    """
    return conv(num_keypoints, kernel, bias=True, kernel_init=heatmap_init, name=name)


def max_pool_3x3(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c"]:
    """3x3 maximum, stride 2, one pixel of -infinity around: the stem pooling of the ResNets."""
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def upsample_nearest(x: Float[Array, "*b h w c"], factor: int) -> Float[Array, "*b h2 w2 c"]:
    """Repeats every pixel `factor` times along height and width."""
    return x.repeat(factor, axis=-3).repeat(factor, axis=-2)


def pixel_shuffle(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c4"]:
    """Channel 4c + 2i + j of pixel (y, x) becomes channel c of pixel (2y + i, 2x + j)."""
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height, width, channels // 4, 2, 2)
    x = jnp.moveaxis(x, (-2, -1), (-4, -2))  # (..., h, i, w, j, c)
    return x.reshape(*batch, 2 * height, 2 * width, channels // 4)


def pixel_unshuffle(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c4"]:
    """The inverse of `pixel_shuffle`: four times the channels at half the size."""
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height // 2, 2, width // 2, 2, channels)
    x = jnp.moveaxis(x, (-4, -2), (-2, -1))  # (..., h, w, c, i, j)
    return x.reshape(*batch, height // 2, width // 2, 4 * channels)


def deconv_4x4(features: int, *, dtype: DTypeLike = jnp.float32, name: str) -> nn.ConvTranspose:
    """Transposed convolution 4x4, stride 2, no bias: doubles height and width.

    Equals torch's ConvTranspose2d(kernel 4, stride 2, padding 1) whose IOHW weight is flipped along
    both spatial axes and transposed to HWIO.
    """
    return nn.ConvTranspose(
        features,
        (4, 4),
        strides=(2, 2),
        padding=((2, 2), (2, 2)),
        use_bias=False,
        dtype=dtype,
        kernel_init=conv_init,
        name=name,
    )
