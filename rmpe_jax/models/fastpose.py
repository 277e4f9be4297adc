"""FastPose and FastPose-DUC: SE-ResNets whose heads upsample by pixel shuffling.

Fang et al., AlphaPose, TPAMI 2022; dense upsampling convolution (DUC): Wang et al., Understanding
Convolution for Semantic Segmentation, WACV 2018. Both map images (b, H, W, 3) to float32 heatmaps
(b, H/4, W/4, k); H and W are multiples of 32. Initialization: kernels He-normal, matrices of
squeeze-and-excitation LeCun-normal, `conv_out` N(0, 0.001) with zero bias.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.layers import check_size, conv_bn, heatmap_conv, pixel_shuffle
from rmpe_jax.models.resnet import ResNet


class Duc(nn.Module):
    """Dense upsampling: 3x3 convolution to `features`, batch norm, ReLU, `pixel_shuffle`."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b 2*h 2*w {self.features}//4"]:
        x = conv_bn(x, self.features, 3, train=train, dtype=self.dtype, names=("conv", "bn"))
        return pixel_shuffle(nn.relu(x))


class FastPose(nn.Module):
    """SE-ResNet, pixel shuffle, two DUC layers, one 3x3 convolution.

    Attributes:
      num_keypoints: k, the number of heatmaps.
      depth: depth of the ResNet: 18, 34, 50, 101 or 152.
      duc_features: channels of the two DUC convolutions. Published: (1024, 512), or (1024, 1024)
        with 136 keypoints. The published code cannot build depths 18 and 34, whose features shuffle
        to 128 channels instead of 512; `build_sppe` gives them our own choice, (512, 512).
      se: use squeeze-and-excitation in the ResNet, as in all published variants.
      dtype: precision of the arithmetic.
    """

    num_keypoints: int
    depth: int = 50
    duc_features: tuple[int, int] = (1024, 512)
    se: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w 3"], train: bool = False
    ) -> Float[Array, "*b h//4 w//4 {self.num_keypoints}"]:
        check_size(x, 32, "fastpose")
        x = ResNet(self.depth, self.se, dtype=self.dtype, name="preact")(x, train)
        x = pixel_shuffle(x)
        for index, features in enumerate(self.duc_features, start=1):
            x = Duc(features, dtype=self.dtype, name=f"duc{index}")(x, train)
        return heatmap_conv(self.num_keypoints, 3, name="conv_out")(x)


# Channels of the convolutions after each of the three pixel shuffles.
_DUC_STAGES = ((512, 512, 512, 1024), (256, 512), (256,))


class FastPoseDuc(nn.Module):
    """ResNet, three stages of a pixel shuffle and four, two, one convolutions, a 3x3 convolution.

    Published variants: depth 50 with `se` and `shuffle`; depth 152 with `se` alone or with neither.

    Attributes:
      num_keypoints: k, the number of heatmaps.
      depth: depth of the ResNet: 50, 101 or 152.
      se: use squeeze-and-excitation in the ResNet.
      shuffle: downsample by `pixel_unshuffle` in the ResNet's strided blocks.
      dtype: precision of the arithmetic.
    """

    num_keypoints: int
    depth: int = 50
    se: bool = True
    shuffle: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w 3"], train: bool = False
    ) -> Float[Array, "*b h//4 w//4 {self.num_keypoints}"]:
        check_size(x, 32, "fastpose_duc")
        x = ResNet(self.depth, self.se, self.shuffle, dtype=self.dtype, name="preact")(x, train)
        for stage, widths in enumerate(_DUC_STAGES, start=1):
            x = pixel_shuffle(x)
            for index, features in enumerate(widths):
                # Published checkpoints number conv, norm and ReLU consecutively, starting at 1.
                names = (f"duc{stage}_{3 * index + 1}", f"duc{stage}_{3 * index + 2}")
                x = conv_bn(x, features, 3, train=train, dtype=self.dtype, names=names)
                x = nn.relu(x)
        return heatmap_conv(self.num_keypoints, 3, name="conv_out")(x)
