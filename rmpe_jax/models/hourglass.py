"""Stacked hourglasses (Newell et al., ECCV 2016), the pose estimator of the RMPE paper.

The RMPE paper stacks eight, and four in the parallel branch. Every convolution has a bias, as in
the published code. Initialization: kernels He-normal, those that compute heatmaps N(0, 0.001).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.layers import BatchNorm, check_size, conv, heatmap_conv, upsample_nearest


class Residual(nn.Module):
    """Pre-activation bottleneck: (norm, ReLU, conv) with kernels 1, 3, 1, plus the input.

    Attributes:
      features: output channels; the inner convolutions have half as many. An input with a different
        number of channels is projected by a 1x1 convolution without norm.
      dtype: precision of the arithmetic.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h w {self.features}"]:
        y, half = x, self.features // 2
        for index, (features, kernel) in enumerate(((half, 1), (half, 3), (self.features, 1)), 1):
            y = nn.relu(BatchNorm(train, self.dtype, name=f"bn{index}")(y))
            y = conv(features, kernel, bias=True, dtype=self.dtype, name=f"conv{index}")(y)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, bias=True, dtype=self.dtype, name="skip")(x)
        return x + y


class Hourglass(nn.Module):
    """Downsamples by 2 `depth` times and upsamples again, with a skip connection at every size.

    Height and width are multiples of 2 ** depth; the output has the shape of the input.
    """

    depth: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h w c"]:
        def residual(name: str) -> Residual:
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
    """Maps images (b, H, W, 3) to float32 heatmaps (b, H/4, W/4, k), one array per stack.

    The last stack's heatmaps are the best. H and W are multiples of 64; 256x256 in the paper.

    Attributes:
      num_keypoints: k, the number of heatmaps.
      num_stacks: number of hourglasses.
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
    ) -> list[Float[Array, "*b h//4 w//4 {self.num_keypoints}"]]:
        check_size(x, 64, "hourglass")
        x = self.stem(x, train)
        heatmaps = []
        for stack in range(self.num_stacks):
            y = Hourglass(dtype=self.dtype, name=f"hourglass_{stack}")(x, train)
            y = Residual(self.features, dtype=self.dtype, name=f"residual_{stack}")(y, train)
            y = self.conv(1, f"linear_{stack}")(y)
            y = nn.relu(BatchNorm(train, self.dtype, name=f"linear_bn_{stack}")(y))
            heatmaps.append(heatmap_conv(self.num_keypoints, 1, name=f"heatmaps_{stack}")(y))
            if stack < self.num_stacks - 1:
                x = x + self.conv(1, f"remap_features_{stack}")(y)
                x = x + self.conv(1, f"remap_heatmaps_{stack}")(heatmaps[-1])
        return heatmaps

    def stem(
        self, x: Float[Array, "*b h w 3"], train: bool
    ) -> Float[Array, "*b h//4 w//4 {self.features}"]:
        """Downsamples to a quarter of the size."""
        x = conv(64, 7, stride=2, bias=True, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm(train, self.dtype, name="bn1")(x))
        x = Residual(self.features // 2, dtype=self.dtype, name="stem_1")(x, train)
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = Residual(self.features // 2, dtype=self.dtype, name="stem_2")(x, train)
        return Residual(self.features, dtype=self.dtype, name="stem_3")(x, train)

    def conv(self, kernel: int, name: str) -> nn.Conv:
        """A convolution with `features` output channels and a bias."""
        return conv(self.features, kernel, bias=True, dtype=self.dtype, name=name)
