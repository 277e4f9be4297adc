"""Layers shared by all networks.

Functions that take `name` create a Flax submodule: call them inside an `@nn.compact` method. Arrays
are NHWC with any number of leading batch dimensions. Parameters and batch statistics are float32;
`dtype` is the precision of the arithmetic. Padding is always explicit and symmetric: XLA's 'SAME'
pads a strided window on one side only, which shifts the feature map by half a pixel.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.errors import UserError
from rmpe_jax.ops.convolutions import convolve_1x1, deconvolve_4x4

conv_init = nn.initializers.he_normal()
heatmap_init = nn.initializers.normal(0.001)


def check_size(x: Float[Array, "*b h w c"], multiple: int, network: str) -> None:
    """Raises UserError unless the height and width of `x` are multiples of `multiple`."""
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
    """A convolution with a square kernel, padded by kernel // 2 on every side.

    Initialization: He-normal kernel, zero bias.
    """
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((kernel // 2, kernel // 2),) * 2,
        use_bias=bias,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=convolve_1x1 if kernel == 1 else None,
        name=name,
    )


class BatchNorm(nn.Module):
    """Batch normalization: y = (x - mean) a + bias with a = scale / sqrt(var + epsilon).

    Mean and variance are those of a channel, over all other axes. y is computed as
    x a + (bias - mean a), so that the gradient needs nothing but x. `nn.BatchNorm` keeps x - mean
    too, which costs time on CPUs (docs/performance.md).

    Running statistics are float32 and move by a tenth per step (momentum 0.1 in torch). The running
    variance is the biased one, the sum of squares over n; torch stores n / (n - 1) times that. The
    output of a training step is the same. Under `jit` on a sharded batch the statistics cover all
    shards.

    Attributes:
      train: use the mean and variance of the batch and update the running ones, instead of using
        the running ones.
      dtype: of the output. The arithmetic is float32.
      epsilon: see above.
    """

    train: bool
    dtype: DTypeLike = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        kind = x.shape[-1:], jnp.float32
        scale = self.param("scale", nn.initializers.ones, *kind)
        bias = self.param("bias", nn.initializers.zeros, *kind)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, *kind)
        running_var = self.variable("batch_stats", "var", jnp.ones, *kind)
        x = x.astype(jnp.float32)
        if self.train:
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            var = jnp.maximum(0.0, jnp.square(x).mean(axes) - jnp.square(mean))
            if not self.is_initializing():
                running_mean.value = 0.9 * running_mean.value + 0.1 * mean
                running_var.value = 0.9 * running_var.value + 0.1 * var
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x * factor + (bias - mean * factor)).astype(self.dtype)


def conv_bn(
    x: Float[Array, "*b h w c"],
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    train: bool,
    dtype: DTypeLike,
    names: tuple[str, str],
) -> Float[Array, "*b h2 w2 {features}"]:
    """Convolution without bias, then batch norm; `names` are the names of the two submodules."""
    x = conv(features, kernel, stride=stride, dtype=dtype, name=names[0])(x)
    return BatchNorm(train, dtype, name=names[1])(x)


def heatmap_conv(num_keypoints: int, kernel: int, *, name: str) -> nn.Conv:
    """The last layer of a pose network: N(0, 0.001) kernel, zero bias, always in float32.

    bfloat16 has 8 significant bits, too few for the differences between neighboring heatmap pixels
    that decoding uses.
    """
    return conv(num_keypoints, kernel, bias=True, kernel_init=heatmap_init, name=name)


def upsample_nearest(
    x: Float[Array, "*b h w c"], factor: int
) -> Float[Array, "*b {factor}*h {factor}*w c"]:
    """Repeats every pixel `factor` times along height and width."""
    return x.repeat(factor, axis=-3).repeat(factor, axis=-2)


def pixel_shuffle(x: Float[Array, "*b h w c"]) -> Float[Array, "*b 2*h 2*w c//4"]:
    """Moves channel 4c + 2i + j of pixel (y, x) to channel c of pixel (2y + i, 2x + j)."""
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height, width, channels // 4, 2, 2)
    x = jnp.moveaxis(x, (-2, -1), (-4, -2))  # (..., h, i, w, j, c)
    return x.reshape(*batch, 2 * height, 2 * width, channels // 4)


def pixel_unshuffle(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h//2 w//2 4*c"]:
    """The inverse of `pixel_shuffle`: four times the channels at half the height and width."""
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height // 2, 2, width // 2, 2, channels)
    x = jnp.moveaxis(x, (-4, -2), (-2, -1))  # (..., h, w, c, i, j)
    return x.reshape(*batch, height // 2, width // 2, 4 * channels)


class Deconv4x4(nn.Module):
    """4x4 transposed convolution, stride 2, no bias: doubles height and width.

    Equals torch's ConvTranspose2d(kernel 4, stride 2, padding 1) with its IOHW weight flipped along
    both spatial axes and transposed to HWIO, and `nn.ConvTranspose` with padding 2.

    Attributes:
      features: number of output channels.
      dtype: of the arithmetic.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b 2*h 2*w {self.features}"]:
        *batch, height, width, channels = x.shape
        kernel = self.param("kernel", conv_init, (4, 4, channels, self.features))
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        x = x.reshape(-1, height, width, channels)
        y = deconvolve_4x4(x, kernel)
        return y.reshape(*batch, 2 * height, 2 * width, self.features)
