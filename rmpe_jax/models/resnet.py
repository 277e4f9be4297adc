"""ResNet backbones of the pose networks, with squeeze-and-excitation and pixel-unshuffle variants.

He et al., Deep Residual Learning, CVPR 2016; the stride of a bottleneck is in its 3x3 convolution.
Hu et al., Squeeze-and-Excitation Networks, CVPR 2018: here only in the first block of each stage,
and without reduction. Submodule names follow published checkpoints: their `layer2.0.bn1` is
`layer2_0/bn1` here.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.layers import conv_bn, pixel_unshuffle
from rmpe_jax.ops.convolutions import max_pool_3x3

NUM_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class SqueezeExcite(nn.Module):
    """Scales channels by sigmoid(W2 relu(W1 mean(x))); square LeCun-normal matrices W1 and W2."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        features = x.shape[-1]
        scale = x.mean(axis=(-3, -2))
        scale = nn.relu(nn.Dense(features, dtype=self.dtype, name="fc_0")(scale))
        scale = nn.sigmoid(nn.Dense(features, dtype=self.dtype, name="fc_2")(scale))
        return x * scale[..., None, None, :]


class _Block(nn.Module):
    """Common part of both residual blocks.

    Attributes:
      planes: channels of the 3x3 convolutions; the block's output has `expansion` times as many.
      stride: 1 or 2.
      se: scale the residual by `SqueezeExcite` before adding the shortcut.
      shuffle: downsample by `pixel_unshuffle` and a wider convolution, which skips no pixel.
      dtype: precision of the arithmetic.
    """

    planes: int
    stride: int = 1
    se: bool = False
    shuffle: bool = False
    dtype: DTypeLike = jnp.float32
    expansion: ClassVar[int] = 1

    def conv_bn(
        self,
        x: Float[Array, "*b h w c"],
        features: int,
        kernel: int,
        train: bool,
        index: int,
        stride: int = 1,
    ) -> Float[Array, "*b h2 w2 {features}"]:
        """The block's convolution number `index` (1, 2, ...) and its batch norm."""
        names = (f"conv{index}", f"bn{index}")
        if stride == 2 and self.shuffle:
            x, stride, names = pixel_unshuffle(x), 1, (f"conv{index}_1", f"bn{index}")
        return conv_bn(
            x, features, kernel, stride=stride, train=train, dtype=self.dtype, names=names
        )

    def add_shortcut(
        self, x: Float[Array, "*b h w c"], residual: Float[Array, "*b h2 w2 c2"], train: bool
    ) -> Float[Array, "*b h2 w2 c2"]:
        """relu(residual + shortcut); the shortcut is x, projected if its shape differs."""
        if self.se:
            residual = SqueezeExcite(dtype=self.dtype, name="se")(residual)
        if self.stride != 1 or x.shape[-1] != residual.shape[-1]:
            x = conv_bn(
                x,
                residual.shape[-1],
                1,
                stride=self.stride,
                train=train,
                dtype=self.dtype,
                names=("downsample_0", "downsample_1"),
            )
        return nn.relu(residual + x)


class BasicBlock(_Block):
    """conv3x3(stride), conv3x3 and the shortcut."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h2 w2 {self.planes}"]:
        y = nn.relu(self.conv_bn(x, self.planes, 3, train, 1, self.stride))
        y = self.conv_bn(y, self.planes, 3, train, 2)
        return self.add_shortcut(x, y, train)


class Bottleneck(_Block):
    """conv1x1, conv3x3(stride), conv1x1 to 4 * planes channels, and the shortcut."""

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h2 w2 4*{self.planes}"]:
        y = nn.relu(self.conv_bn(x, self.planes, 1, train, 1))
        y = nn.relu(self.conv_bn(y, self.planes, 3, train, 2, self.stride))
        y = self.conv_bn(y, self.expansion * self.planes, 1, train, 3)
        return self.add_shortcut(x, y, train)


def block_class(depth: int) -> type[_Block]:
    """The class of the blocks in a ResNet of this depth."""
    return BasicBlock if depth < 50 else Bottleneck


class ResNet(nn.Module):
    """ResNet without its classifier: images (b, H, W, 3) to features at 1/32 of the size.

    Attributes:
      depth: 18, 34, 50, 101 or 152. The output has 512 channels up to 34 and 2048 from 50 on.
      se: use squeeze-and-excitation in the first block of each of the four stages.
      shuffle: downsample by `pixel_unshuffle` in the strided blocks.
      dtype: precision of the arithmetic.
    """

    depth: int
    se: bool = False
    shuffle: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w 3"], train: bool = False
    ) -> Float[Array, "*b h2 w2 c"]:
        x = conv_bn(x, 64, 7, stride=2, train=train, dtype=self.dtype, names=("conv1", "bn1"))
        x = max_pool_3x3(nn.relu(x))
        for stage, num_blocks in enumerate(NUM_BLOCKS[self.depth]):
            for index in range(num_blocks):
                x = block_class(self.depth)(
                    planes=64 * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    se=self.se and index == 0,
                    shuffle=self.shuffle,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{index}",
                )(x, train)
        return x
