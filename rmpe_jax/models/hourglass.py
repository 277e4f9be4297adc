"""Stacked hourglasses (Newell et al., ECCV 2016), the estimator of the RMPE paper.

The paper stacks eight, and four in its parallel branch. Every convolution has a bias, as in the
paper's code. Kernels start He-normal, those that make heatmaps N(0, 0.001).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.layers import batch_norm, check_size, conv, heatmap_conv, upsample_nearest


class Residual(nn.Module):
    """Pre-activated bottleneck: (norm, ReLU, conv) with kernels 1, 3, 1, plus the input.

    Attributes:
      features: output channels; half as many inside. An input of another width is projected by a
        1x1 convolution without norm.
      dtype: precision of the arithmetic.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"], train: bool = False) -> Float[Array, "..."]:
        y, half = x, self.features // 2
        for index, (features, kernel) in enumerate(((half, 1), (half, 3), (self.features, 1)), 1):
            y = nn.relu(batch_norm(train=train, dtype=self.dtype, name=f"bn{index}")(y))
            y = conv(features, kernel, bias=True, dtype=self.dtype, name=f"conv{index}")(y)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, bias=True, dtype=self.dtype, name="skip")(x)
        return x + y


class Hourglass(nn.Module):
    """Halves the map `depth` times and comes back up, adding a residual of every size on the way.

    Height and width are multiples of 2 ** depth; the output has the input's shape.
    """

    depth: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"], train: bool = False) -> Float[Array, "..."]:
        def residual(name):
            return Residual(x.shape[-1], dtype=self.dtype, name=name)

        low = nn.max_pool(x, (2, 2), strides=(2, 2))
        low = residual("down")(low, train)
        if self.depth > 1:
            low = Hourglass(self.depth - 1, dtype=self.dtype, name="inner")(low, train)
        else:
            low = residual("bottom")(low, train)
        low = residual("up")(low, train)
        return residual("skip")(x, train) + upsample_nearest(low, 2)


class StackedHourglass(nn.Module):
    """Images (b, H, W, 3) to one float32 heatmap (b, H/4, W/4, k) per stack, the last one best.

    H and W are multiples of 64; 256x256 in the paper.

    Attributes:
      num_keypoints: k.
      num_stacks: how many hourglasses.
      features: channels of the hourglasses.
      dtype: precision of the arithmetic.
    """

    num_keypoints: int
    num_stacks: int = 8
    features: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w 3"], train: bool = False
    ) -> list[Float[Array, "..."]]:
        check_size(x, 64, "hourglass")
        x = self.stem(x, train)
        heatmaps = []
        for stack in range(self.num_stacks):
            y = Hourglass(dtype=self.dtype, name=f"hourglass_{stack}")(x, train)
            y = Residual(self.features, dtype=self.dtype, name=f"residual_{stack}")(y, train)
            y = self.conv(1, f"linear_{stack}")(y)
            y = nn.relu(batch_norm(train=train, dtype=self.dtype, name=f"linear_bn_{stack}")(y))
            heatmaps.append(heatmap_conv(self.num_keypoints, 1, name=f"heatmaps_{stack}")(y))
            if stack < self.num_stacks - 1:
                x = x + self.conv(1, f"remap_features_{stack}")(y)
                x = x + self.conv(1, f"remap_heatmaps_{stack}")(heatmaps[-1])
        return heatmaps

    def stem(self, x, train):
        """A quarter of the size: (..., H, W, 3) to (..., H/4, W/4, features)."""
        x = conv(64, 7, stride=2, bias=True, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="bn1")(x))
        x = Residual(self.features // 2, dtype=self.dtype, name="stem_1")(x, train)
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = Residual(self.features // 2, dtype=self.dtype, name="stem_2")(x, train)
        return Residual(self.features, dtype=self.dtype, name="stem_3")(x, train)

    def conv(self, kernel, name):
        return conv(self.features, kernel, bias=True, dtype=self.dtype, name=name)
