"""MoveNet's network, as a top-down pose network and as a detector.

MoveNet (Votel & Li, Google, 2021; there is a model card for each size) finds people bottom-up:
MobileNetV2, a feature pyramid of separable convolutions, and heads for centers, heatmaps, offsets
and joints. Here the network ends with the heatmaps of one person's joints, or with the maps of a
detector. `rmpe_jax.interop.movenet` reads the published weights.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.inverted_residual import depthwise, frozen_batch_norm, mobilenet_v2
from rmpe_jax.models.layers import check_size, conv, heatmap_conv

_TOP = 1280  # channels of the last convolution of MobileNetV2
_PYRAMID = (64, 32, 24)  # channels at strides 16, 8 and 4
_HEATMAP = 96


class MoveNet(nn.Module):
    """(b, H, W, 3) -> (b, H/4, W/4, k).

    Batch norms have constant statistics, so start from trained weights.

    Attributes:
      num_keypoints: k.
      width: factor on the channels of MobileNetV2; 1 in MoveNet Lightning, 1.5 in MultiPose, 1.75
        in Thunder.
      dtype: of the arithmetic.
    """

    num_keypoints: int
    width: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool = False
    ) -> Float[Array, "b h//4 w//4 {self.num_keypoints}"]:
        check_size(x, 32, "movenet")
        backbone = mobilenet_v2(self.width, self.dtype, name="backbone")
        *finer, x = backbone(x)
        x = nn.relu6(self._conv(x, _TOP, "top"))
        x = self._conv(x, _PYRAMID[0], "lateral0")
        widths = zip(_PYRAMID, (*_PYRAMID[1:], _PYRAMID[-1]), finer[::-1], strict=True)
        for level, (width, next_width, features) in enumerate(widths, start=1):
            x = _upsample(x) + self._conv(features, width, f"lateral{level}")
            x = nn.relu(self._separable(x, next_width, f"smooth{level}"))
        x = nn.relu(self._separable(x, _HEATMAP, "heatmap"))
        return heatmap_conv(self.num_keypoints, 1, name="conv_out")(x.astype(jnp.float32))

    def _conv(
        self, x: Float[Array, "b h w c"], features: int, name: str
    ) -> Float[Array, "b h w {features}"]:
        """A 1x1 convolution and its norm."""
        x = conv(features, 1, dtype=self.dtype, name=name)(x)
        return frozen_batch_norm(self.dtype, name=f"{name}_bn")(x)

    def _separable(
        self, x: Float[Array, "b h w c"], features: int, name: str
    ) -> Float[Array, "b h w {features}"]:
        """A depthwise 3x3 convolution, then `_conv`."""
        init = nn.initializers.normal(1 / 3)
        kernel = self.param(f"{name}_depthwise", init, (3, 3, x.shape[-1]))
        return self._conv(depthwise(x, kernel.astype(self.dtype), 1), features, name)


def _upsample(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Bilinear, between the centers of pixels."""
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, 2 * height, 2 * width, channels), "linear")


MOVENET_MODELS = {
    "movenet_lightning": MoveNet,
    "movenet_multipose": functools.partial(MoveNet, width=1.5),
    "movenet_thunder": functools.partial(MoveNet, width=1.75),
}
