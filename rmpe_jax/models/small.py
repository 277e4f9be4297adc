"""Small pose networks that train on a CPU within an hour.

A backbone gives a pyramid of features at strides 4, 8, 16 and 32. One top-down path follows:
upsample, add the projected finer level, 3x3 convolution. XLA is fastest at dense convolutions on a
CPU (measured at ten times the arithmetic rate of depthwise ones), so the head and the backbone
without pretrained weights use only dense ones.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.models.inverted_residual import EfficientNetLite0
from rmpe_jax.models.layers import (
    BatchNorm,
    check_size,
    conv,
    conv_bn,
    heatmap_conv,
    upsample_nearest,
)


class TinyBackbone(nn.Module):
    """Two strided convolutions, then basic residual blocks at strides 4, 8, 16 and 32."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool = False
    ) -> list[Float[Array, "b _h _w _c"]]:
        options = {"train": train, "dtype": self.dtype}
        x = nn.relu(conv_bn(x, self.widths[0] // 2, 3, stride=2, names=("stem1", "bn1"), **options))
        x = nn.relu(conv_bn(x, self.widths[0], 3, stride=2, names=("stem2", "bn2"), **options))
        pyramid = []
        for level, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for block in range(depth):
                stride = 2 if level > 0 and block == 0 else 1
                x = self._block(x, f"level{level}_block{block}", width, stride, train)
            pyramid.append(x)
        return pyramid

    def _block(
        self, x: Float[Array, "b h w c"], name: str, width: int, stride: int, train: bool
    ) -> Float[Array, "b h2 w2 {width}"]:
        options = {"train": train, "dtype": self.dtype}
        shortcut = x
        if stride > 1 or x.shape[-1] != width:
            names = (f"{name}_shortcut", f"{name}_shortcut_bn")
            shortcut = conv_bn(x, width, 1, stride=stride, names=names, **options)
        names = (f"{name}_conv1", f"{name}_bn1")
        x = nn.relu(conv_bn(x, width, 3, stride=stride, names=names, **options))
        x = conv_bn(x, width, 3, names=(f"{name}_conv2", f"{name}_bn2"), **options)
        return nn.relu(x + shortcut)


class TopDownHead(nn.Module):
    """Feature pyramid -> heatmaps at stride 4; `widths` are the path's channels, coarse to fine."""

    num_keypoints: int
    widths: tuple[int, int, int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, pyramid: list[Float[Array, "b _h _w _c"]], train: bool = False
    ) -> Float[Array, "b h w {self.num_keypoints}"]:
        x: Array | None = None
        for level, (features, width) in enumerate(zip(pyramid[::-1], self.widths, strict=True)):
            lateral = conv(width, 1, bias=True, dtype=self.dtype, name=f"lateral{level}")(features)
            if x is None:
                x = lateral
            else:
                x = conv(width, 1, bias=True, dtype=self.dtype, name=f"top_down{level}")(x)
                x = lateral + upsample_nearest(x, 2)
            x = nn.relu(BatchNorm(train, self.dtype, name=f"sum_bn{level}")(x))
            names = (f"smooth{level}", f"smooth_bn{level}")
            x = nn.relu(conv_bn(x, width, 3, train=train, dtype=self.dtype, names=names))
        assert x is not None  # there are four levels
        return heatmap_conv(self.num_keypoints, 1, name="conv_out")(x.astype(jnp.float32))


class TinyPose(nn.Module):
    """A dense residual pyramid network, trained from scratch; (b, H, W, 3) -> (b, H/4, W/4, k)."""

    num_keypoints: int
    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head_widths: tuple[int, int, int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool = False
    ) -> Float[Array, "b h//4 w//4 {self.num_keypoints}"]:
        check_size(x, 32, "tinypose")
        pyramid = TinyBackbone(self.widths, self.depths, self.dtype, name="backbone")(x, train)
        return TopDownHead(self.num_keypoints, self.head_widths, self.dtype, name="head")(
            pyramid, train
        )


class LitePose(nn.Module):
    """EfficientNet-Lite0 with a dense top-down head; (b, H, W, 3) -> (b, H/4, W/4, k)."""

    num_keypoints: int
    head_widths: tuple[int, int, int, int] = (192, 160, 128, 96)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool = False
    ) -> Float[Array, "b h//4 w//4 {self.num_keypoints}"]:
        check_size(x, 32, "litepose")
        pyramid = EfficientNetLite0(dtype=self.dtype, name="backbone")(x)
        return TopDownHead(self.num_keypoints, self.head_widths, self.dtype, name="head")(
            pyramid, train
        )


SMALL_MODELS = {
    "tinypose_xs": functools.partial(
        TinyPose, widths=(16, 32, 64, 96), depths=(1, 2, 2, 1), head_widths=(64, 48, 32, 32)
    ),
    "tinypose_s": functools.partial(
        TinyPose, widths=(32, 64, 128, 192), depths=(1, 2, 2, 1), head_widths=(128, 96, 64, 64)
    ),
    "tinypose_m": functools.partial(
        TinyPose, widths=(48, 96, 192, 320), depths=(1, 2, 2, 2), head_widths=(192, 160, 128, 96)
    ),
    "litepose_effnet0": LitePose,
    "litepose_effnet0_s": functools.partial(LitePose, head_widths=(128, 96, 64, 48)),
}
