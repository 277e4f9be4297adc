"""SimplePose: a ResNet and three deconvolutions (Xiao et al., Simple Baselines, ECCV 2018)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.layers import BatchNorm, Deconv4x4, check_size, heatmap_conv
from rmpe_jax.models.resnet import ResNet


class SimplePose(nn.Module):
    """Maps images (b, H, W, 3) to float32 heatmaps (b, H/4, W/4, k); H and W are multiples of 32.

    Initialization: kernels He-normal, the last one N(0, 0.001).

    Attributes:
      num_keypoints: k, the number of heatmaps.
      depth: depth of the ResNet: 18, 34, 50, 101 or 152.
      dtype: precision of the arithmetic.
    """

    num_keypoints: int
    depth: int = 50
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w 3"], train: bool = False
    ) -> Float[Array, "*b h//4 w//4 {self.num_keypoints}"]:
        check_size(x, 32, "simplepose")
        x = ResNet(self.depth, dtype=self.dtype, name="preact")(x, train)
        for index in (0, 3, 6):
            x = Deconv4x4(256, dtype=self.dtype, name=f"deconv_layers_{index}")(x)
            x = BatchNorm(train, self.dtype, name=f"deconv_layers_{index + 1}")(x)
            x = nn.relu(x)
        return heatmap_conv(self.num_keypoints, 1, name="final_layer")(x)
