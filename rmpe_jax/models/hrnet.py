"""HRNet: parallel branches at 1/4 to 1/32 of the input size that repeatedly exchange features.

Sun et al., Deep High-Resolution Representation Learning for Human Pose Estimation, CVPR 2019.
Submodule names follow the published checkpoints: their `stage3.0.fuse_layers.2.0.1.0` is
`stage3_0/fuse_layers_2_0_1_0` here.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.layers import check_size, conv_bn, heatmap_conv, upsample_nearest
from rmpe_jax.models.resnet import BasicBlock, Bottleneck

_BLOCKS_PER_BRANCH = 4
_STAGES = ((2, 1), (3, 4), (4, 3))  # (branches, modules); stages are named by their branches


class HighResolutionModule(nn.Module):
    """Four basic blocks on every branch; then every output branch is the sum of all branches.

    Branch i + 1 has half the height and width of branch i.

    Attributes:
      num_outputs: number of branches to return, finest first.
      dtype: precision of the arithmetic.
    """

    num_outputs: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, branches: list[Float[Array, "*b _h _w _c"]], train: bool = False
    ) -> list[Float[Array, "*b _h _w _c"]]:
        for index in range(_BLOCKS_PER_BRANCH):
            branches = [
                BasicBlock(x.shape[-1], dtype=self.dtype, name=f"branches_{i}_{index}")(x, train)
                for i, x in enumerate(branches)
            ]
        widths = [x.shape[-1] for x in branches]
        return [
            nn.relu(sum(self.resample(x, i, j, widths[i], train) for j, x in enumerate(branches)))
            for i in range(self.num_outputs)
        ]

    def resample(
        self, x: Float[Array, "*b h w c"], target: int, source: int, features: int, train: bool
    ) -> Float[Array, "*b h2 w2 {features}"]:
        """Converts branch `source` to the resolution and the channels of branch `target`."""
        name = f"fuse_layers_{target}_{source}"
        if source > target:
            names = (f"{name}_0", f"{name}_1")
            x = conv_bn(x, features, 1, train=train, dtype=self.dtype, names=names)
            return upsample_nearest(x, 2 ** (source - target))
        for step in range(target - source):
            last = step == target - source - 1
            names = (f"{name}_{step}_0", f"{name}_{step}_1")
            width = features if last else x.shape[-1]
            x = conv_bn(x, width, 3, stride=2, train=train, dtype=self.dtype, names=names)
            x = x if last else nn.relu(x)
        return x


class HRNet(nn.Module):
    """Maps images (b, H, W, 3) to float32 heatmaps (b, H/4, W/4, k); H and W are multiples of 32.

    Initialization: kernels He-normal, the last one N(0, 0.001).

    Attributes:
      num_keypoints: k, the number of heatmaps.
      width: channels of the finest branch; each coarser one has twice as many.
      dtype: precision of the arithmetic.
    """

    num_keypoints: int
    width: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w 3"], train: bool = False
    ) -> Float[Array, "*b h//4 w//4 {self.num_keypoints}"]:
        check_size(x, 32, "hrnet")
        x = self.conv_bn_relu(x, 64, train, "conv1", "bn1", stride=2)
        x = self.conv_bn_relu(x, 64, train, "conv2", "bn2", stride=2)
        for index in range(4):
            x = Bottleneck(64, dtype=self.dtype, name=f"layer1_{index}")(x, train)
        coarsest = x
        branches = [self.conv_bn_relu(x, self.width, train, "transition1_0_0", "transition1_0_1")]
        for stage, num_modules in _STAGES:
            name = f"transition{stage - 1}_{stage - 1}_0"
            width = self.width * 2 ** (stage - 1)
            branches.append(
                self.conv_bn_relu(coarsest, width, train, f"{name}_0", f"{name}_1", stride=2)
            )
            for index in range(num_modules):
                last = stage == 4 and index == num_modules - 1
                branches = HighResolutionModule(
                    1 if last else stage, dtype=self.dtype, name=f"stage{stage}_{index}"
                )(branches, train)
            coarsest = branches[-1]
        return heatmap_conv(self.num_keypoints, 1, name="final_layer")(branches[0])

    def conv_bn_relu(
        self,
        x: Float[Array, "*b h w c"],
        features: int,
        train: bool,
        conv_name: str,
        bn_name: str,
        stride: int = 1,
    ) -> Float[Array, "*b h2 w2 {features}"]:
        """3x3 convolution, batch norm, ReLU."""
        names = (conv_name, bn_name)
        return nn.relu(
            conv_bn(x, features, 3, stride=stride, train=train, dtype=self.dtype, names=names)
        )
