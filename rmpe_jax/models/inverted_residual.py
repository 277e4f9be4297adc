"""Backbones of inverted residual blocks, for CPUs: EfficientNet-Lite0 and MobileNetV2.

Sandler et al., MobileNetV2, CVPR 2018; Tan & Le, EfficientNet, ICML 2019, in its "lite" form: no
squeeze-and-excitation, ReLU6 throughout. ImageNet weights of EfficientNet-Lite0 are read by
`rmpe_jax.interop.efficientnet`. MobileNetV2 is the backbone of `rmpe_jax.models.movenet`.
"""

import functools
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.layers import BatchNorm, conv

BATCH_NORM_EPSILON = 1e-3  # as in the PyTorch port of EfficientNet


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(
    x: Float[Array, "b h w c"], kernel: Float[Array, "s s c"], stride: int
) -> Float[Array, "b h2 w2 c"]:
    """Depthwise convolution, padded by s // 2, as a sum of shifted products.

    On a CPU, XLA's grouped convolution takes many times as long (`benchmarks/depthwise.py`). The
    automatic derivative of the sum is slow too, so the gradients are written out below.
    """
    size = kernel.shape[0]
    height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    padded = _pad(x, size // 2, size // 2, dilation=1)
    return _correlate(padded, kernel, height, width, stride)


def _pad(
    x: Float[Array, "b h w c"], low: int, high: int, dilation: int
) -> Float[Array, "b h2 w2 c"]:
    """Pads rows and columns with zeros, and inserts `dilation` - 1 zeros between pixels.

    The barrier gives the padded array its own buffer. Without it, XLA fuses the padding into each
    tap and computes it s * s times.
    """
    edges = (low, high, dilation - 1)
    zero = jnp.zeros((), x.dtype)
    return jax.lax.optimization_barrier(jax.lax.pad(x, zero, ((0, 0, 0), edges, edges, (0, 0, 0))))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _correlate(
    padded: Float[Array, "b h w c"],
    kernel: Float[Array, "s s c"],
    height: int,
    width: int,
    stride: int,
) -> Float[Array, "b {height} {width} c"]:
    """The sum over kernel elements of the element times the pixels under it.

    Layers of the same shape are traced once, by `jit`. `jax.lax` takes half the time to trace that
    indices and operators do.
    """
    size, _, channels = kernel.shape

    def product(i: int, j: int, tap: Array) -> Array:
        element = jax.lax.slice(kernel, (i, j, 0), (i + 1, j + 1, channels))
        return jax.lax.mul(tap, jax.lax.broadcast_in_dim(element, tap.shape, (1, 2, 3)))

    taps = _taps(padded, size, height, width, stride)
    return functools.reduce(jax.lax.add, (product(i, j, tap) for i, j, tap in taps))


def _taps(
    padded: Float[Array, "b h w c"], size: int, height: int, width: int, stride: int
) -> Iterator[tuple[int, int, Array]]:
    """Yields (i, j, the pixels under kernel element (i, j)) for every element of the kernel."""
    batch, _, _, channels = padded.shape
    for i in range(size):
        for j in range(size):
            end = (batch, i + stride * (height - 1) + 1, j + stride * (width - 1) + 1, channels)
            yield i, j, jax.lax.slice(padded, (0, i, j, 0), end, (1, stride, stride, 1))


def _depthwise_forward(x: Array, kernel: Array, stride: int):
    return depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride: int, residual: tuple[Array, Array], grad: Array):
    x, kernel = residual
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    _, height, width, _ = x.shape
    # Output pixel o depends on the input pixels stride * o - pad + i. So the gradient of the input
    # is the gradient of the output, dilated by the stride and correlated with the mirrored kernel.
    dilated = _pad(grad, size - 1 - pad, size, dilation=stride)
    grad_x = _correlate(dilated, kernel[::-1, ::-1], height, width, 1)
    padded = _pad(x, pad, pad, dilation=1)
    grad_kernel = jax.lax.platform_dependent(
        padded,
        grad,
        cpu=functools.partial(_kernel_gradient_by_image, size=size, stride=stride),
        default=functools.partial(_kernel_gradient, size=size, stride=stride),
    )
    return grad_x, grad_kernel


def _kernel_gradient(
    padded: Float[Array, "b h w c"], grad: Float[Array, "b h2 w2 c"], size: int, stride: int
) -> Float[Array, "{size} {size} c"]:
    """The sum over the output's pixels of their gradient times the pixel under each element."""
    _, height, width, _ = grad.shape
    taps = _taps(padded, size, height, width, stride)
    sums = jnp.stack([(tap * grad).sum((0, 1, 2)) for _, _, tap in taps])
    return sums.reshape(size, size, -1)


def _kernel_gradient_by_image(
    padded: Float[Array, "b h w c"], grad: Float[Array, "b h2 w2 c"], size: int, stride: int
) -> Float[Array, "{size} {size} c"]:
    """`_kernel_gradient`, one image after the other.

    Each element of the kernel reads all pixels again. Those of one image stay in the cache of a
    CPU, those of a batch do not, and reading them takes five times as long as the arithmetic. A
    batch that is divided over several CPU devices is gathered on each of them.
    """
    sum_type = jnp.promote_types(grad.dtype, jnp.float32)

    def add(total: Array, image: tuple[Array, Array]) -> tuple[Array, None]:
        one_padded, one_grad = (values[None].astype(sum_type) for values in image)
        return total + _kernel_gradient(one_padded, one_grad, size, stride), None

    zeros = jnp.zeros((size, size, grad.shape[3]), sum_type)
    total, _ = jax.lax.scan(add, zeros, (padded, grad))
    return total.astype(grad.dtype)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def frozen_batch_norm(dtype: DTypeLike, name: str) -> BatchNorm:
    """Batch norm with constant statistics and trained scale and bias.

    Small batches of crops would degrade pretrained statistics.
    """
    return BatchNorm(train=False, dtype=dtype, epsilon=BATCH_NORM_EPSILON, name=name)


class InvertedResiduals(nn.Module):
    """(b, H, W, 3) -> features at strides 4, 8, 16 and 32.

    Batch statistics are never updated, so start from trained weights. The depthwise kernels hold
    under 3 % of the weights, but their gradient is the most expensive operation of a training step
    on a CPU: they can be frozen there (`config.optim.frozen`).

    Attributes:
      blocks: (kernel, stride, expansion, channels) of each block. The channels are multiplied by
        the expansion, filtered by a depthwise kernel and projected to `channels`.
      pyramid: indices of the blocks whose outputs are the features.
      stem: channels of the first convolution.
      pad_after: strided convolutions are padded below and on the right only, as TensorFlow does for
        inputs of even size, not on all sides.
      dtype: of the arithmetic.
    """

    blocks: tuple[tuple[int, int, int, int], ...]
    pyramid: tuple[int, int, int, int]
    stem: int = 32
    pad_after: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> list[Float[Array, "b _h _w _c"]]:
        x = x.astype(self.dtype)
        stem = conv(self.stem, 3, stride=2, dtype=self.dtype, name="stem")
        x = nn.relu6(frozen_batch_norm(self.dtype, name="stem_bn")(self._strided(stem, x)))
        features = []
        for index, (size, stride, expansion, channels) in enumerate(self.blocks):
            x = self._block(x, f"block{index}", size, stride, expansion, channels)
            if index in self.pyramid:
                features.append(x)
        return features

    def _block(
        self,
        x: Float[Array, "b h w c"],
        name: str,
        size: int,
        stride: int,
        expansion: int,
        features: int,
    ) -> Float[Array, "b h2 w2 {features}"]:
        shortcut = x
        channels = expansion * x.shape[-1]
        if expansion > 1:
            x = conv(channels, 1, dtype=self.dtype, name=f"{name}_expand")(x)
            x = nn.relu6(frozen_batch_norm(self.dtype, name=f"{name}_expand_bn")(x))
        kernel = self.param(
            f"{name}_depthwise", nn.initializers.normal(1 / size), (size, size, channels)
        )
        filtered = functools.partial(depthwise, kernel=kernel.astype(self.dtype), stride=stride)
        x = self._strided(filtered, x) if stride > 1 else filtered(x)
        x = nn.relu6(frozen_batch_norm(self.dtype, name=f"{name}_depthwise_bn")(x))
        x = conv(features, 1, dtype=self.dtype, name=f"{name}_project")(x)
        x = frozen_batch_norm(self.dtype, name=f"{name}_project_bn")(x)
        return x + shortcut if x.shape == shortcut.shape else x

    def _strided(
        self, layer: Callable[[Array], Array], x: Float[Array, "b h w c"]
    ) -> Float[Array, "b h2 w2 d"]:
        """A convolution with stride 2; `layer` pads all sides.

        To pad after the image only, a row and a column of zeros are put before it, and the first
        row and column of the output are left out.
        """
        if not self.pad_after:
            return layer(x)
        return layer(jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))))[:, 1:, 1:]


# Table 1 of the EfficientNet paper. Channels of the features: 24, 40, 112, 320.
EfficientNetLite0 = functools.partial(
    InvertedResiduals,
    blocks=(
        (3, 1, 1, 16),
        *((3, 2, 6, 24), (3, 1, 6, 24)),
        *((5, 2, 6, 40), (5, 1, 6, 40)),
        *((3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)),
        *((5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)),
        *((5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)),
        (3, 1, 6, 320),
    ),
    pyramid=(2, 4, 10, 15),
)


def mobilenet_v2(
    width: float, dtype: DTypeLike = jnp.float32, name: str | None = None
) -> InvertedResiduals:
    """MobileNetV2 up to its last block, padded as in TensorFlow. Table 2 of its paper.

    Args:
      width: factor on all channels, which are rounded to multiples of 8. With 1, the features have
        24, 32, 64 and 320.
      dtype: of the arithmetic.
      name: of the submodule.
    """
    blocks = (
        (3, 1, 1, 16),
        *((3, 2, 6, 24), (3, 1, 6, 24)),
        *((3, 2, 6, 32), (3, 1, 6, 32), (3, 1, 6, 32)),
        *((3, 2, 6, 64), (3, 1, 6, 64), (3, 1, 6, 64), (3, 1, 6, 64)),
        *((3, 1, 6, 96), (3, 1, 6, 96), (3, 1, 6, 96)),
        *((3, 2, 6, 160), (3, 1, 6, 160), (3, 1, 6, 160)),
        (3, 1, 6, 320),
    )

    def scaled(channels: int) -> int:
        return 8 * int(channels * width / 8 + 0.5)

    return InvertedResiduals(
        blocks=tuple((size, step, grow, scaled(channels)) for size, step, grow, channels in blocks),
        pyramid=(2, 5, 9, 16),
        stem=scaled(32),
        pad_after=True,
        dtype=dtype,
        name=name,
    )
