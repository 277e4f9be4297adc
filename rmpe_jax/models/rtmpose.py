"""RTMPose: a CSPNeXt backbone, a gated attention unit over joints, and SimCC's vectors.

Jiang et al., RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose, 2023; the backbone is
that of RTMDet (Lyu et al., 2022). The attention is the gated attention unit of Hua et al.,
Transformer Quality in Linear Time, ICML 2022. Submodules have the names of MMPose's checkpoints:
`backbone/stage1_1/blocks_0/conv1` is their `backbone.stage1.1.blocks.0.conv1`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.codecs.simcc import BINS_PER_PIXEL, SimccMaps
from rmpe_jax.models.layers import BatchNorm, check_size, conv, conv_init, heatmap_conv

STRIDE = 32  # of the backbone
_STEM_WIDTH = 64
# (channels, blocks, residual blocks, spatial pyramid pooling), before scaling.
_STAGES = (
    (128, 3, True, False),
    (256, 6, True, False),
    (512, 6, True, False),
    (1024, 3, False, True),
)
_POOLS = (5, 9, 13)  # kernels of the spatial pyramid pooling
_FINAL_KERNEL = 7
_TOKEN_WIDTH = 256
_QUERY_WIDTH = 128
_EXPANSION = 2  # of the tokens inside the attention unit
_MIN_RMS = 1e-5


class ConvModule(nn.Module):
    """Convolution without bias, batch norm, SiLU.

    Attributes:
      features: output channels.
      kernel: its side.
      stride: of the convolution.
      depthwise: one filter per channel; `features` are those of the input.
      dtype: precision of the arithmetic.
    """

    features: int
    kernel: int
    stride: int = 1
    depthwise: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h2 w2 {self.features}"]:
        if self.depthwise:
            layer = nn.Conv(
                self.features,
                (self.kernel, self.kernel),
                padding=((self.kernel // 2, self.kernel // 2),) * 2,
                feature_group_count=self.features,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=conv_init,
                name="conv",
            )
        else:
            layer = conv(
                self.features, self.kernel, stride=self.stride, dtype=self.dtype, name="conv"
            )
        return nn.silu(BatchNorm(train, self.dtype, name="bn")(layer(x)))


class CSPNeXtBlock(nn.Module):
    """3x3 convolution, then a depthwise 5x5 and a pointwise one.

    Attributes:
      residual: add the input.
      dtype: precision of the arithmetic.
    """

    residual: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h w c"]:
        width = x.shape[-1]
        y = ConvModule(width, 3, dtype=self.dtype, name="conv1")(x, train)
        y = _DepthwiseSeparable(self.dtype, name="conv2")(y, train)
        return x + y if self.residual else y


class _DepthwiseSeparable(nn.Module):
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"], train: bool) -> Float[Array, "*b h w c"]:
        width = x.shape[-1]
        x = ConvModule(width, 5, depthwise=True, dtype=self.dtype, name="depthwise_conv")(x, train)
        return ConvModule(width, 1, dtype=self.dtype, name="pointwise_conv")(x, train)


class ChannelAttention(nn.Module):
    """Multiplies each channel by a hard sigmoid of a linear map of all channels' means.

    Attributes:
      dtype: precision of the arithmetic.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        mean = x.mean((-3, -2), keepdims=True)
        gate = conv(x.shape[-1], 1, bias=True, dtype=self.dtype, name="fc")(mean)
        return x * jax.nn.hard_sigmoid(gate)


class CSPLayer(nn.Module):
    """Half of the channels pass blocks, the other half does not; the channels are then weighted.

    Attributes:
      num_blocks: number of `CSPNeXtBlock`.
      residual: of the blocks.
      dtype: precision of the arithmetic.
    """

    num_blocks: int
    residual: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h w c"]:
        width = x.shape[-1]
        short = ConvModule(width // 2, 1, dtype=self.dtype, name="short_conv")(x, train)
        main = ConvModule(width // 2, 1, dtype=self.dtype, name="main_conv")(x, train)
        for index in range(self.num_blocks):
            block = CSPNeXtBlock(self.residual, dtype=self.dtype, name=f"blocks_{index}")
            main = block(main, train)
        x = jnp.concatenate([main, short], -1)
        x = ChannelAttention(self.dtype, name="attention")(x)
        return ConvModule(width, 1, dtype=self.dtype, name="final_conv")(x, train)


class SPPBottleneck(nn.Module):
    """Spatial pyramid pooling: maxima over three windows beside the features themselves.

    Attributes:
      dtype: precision of the arithmetic.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h w c"]:
        width = x.shape[-1]
        x = ConvModule(width // 2, 1, dtype=self.dtype, name="conv1")(x, train)
        pools = [
            nn.max_pool(x, (size, size), padding=((size // 2, size // 2),) * 2) for size in _POOLS
        ]
        x = jnp.concatenate([x, *pools], -1)
        return ConvModule(width, 1, dtype=self.dtype, name="conv2")(x, train)


class CSPNeXt(nn.Module):
    """Images to features at stride 32, with 1024 times `widen` channels.

    Attributes:
      deepen: factor on the number of blocks.
      widen: factor on the number of channels.
      dtype: precision of the arithmetic.
    """

    deepen: float
    widen: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w 3"], train: bool = False
    ) -> Float[Array, "*b h//32 w//32 c"]:
        width = int(_STEM_WIDTH * self.widen)
        for index, (features, stride) in enumerate(((width // 2, 2), (width // 2, 1), (width, 1))):
            stem = ConvModule(features, 3, stride, dtype=self.dtype, name=f"stem_{index}")
            x = stem(x, train)
        for index, (channels, blocks, residual, pools) in enumerate(_STAGES):
            name, features = f"stage{index + 1}", int(channels * self.widen)
            x = ConvModule(features, 3, 2, dtype=self.dtype, name=f"{name}_0")(x, train)
            if pools:
                x = SPPBottleneck(self.dtype, name=f"{name}_1")(x, train)
            blocks = max(round(blocks * self.deepen), 1)
            layer = CSPLayer(blocks, residual, self.dtype, name=f"{name}_{1 + pools}")
            x = layer(x, train)
        return x


class ScaleNorm(nn.Module):
    """g x / max(rms(x), 1e-5), where rms is over the last axis and g is one trained number."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        gain = self.param("g", nn.initializers.ones, (1,))
        square = jnp.mean(x**2, -1, keepdims=True)
        # The root of the maximum, because the root alone has no gradient at 0.
        return x / jnp.sqrt(jnp.maximum(square, _MIN_RMS**2)) * gain


class GatedAttention(nn.Module):
    """The gated attention unit over tokens (b, n, c), RTMPose's RTMCCBlock, with a shortcut.

    u, v (b, n, 2c) and z (b, n, s) are SiLU of a linear map of the norm of x. With q and k affine
    maps of z per channel, the output is res_scale x + W (u * (max(q kᵀ / sqrt(s), 0)² v)).
    There is no position embedding. Submodules and parameters are named as in MMPose, except that
    `gamma` and `beta` are (s, 2): for queries, for keys.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*b n c"]) -> Float[Array, "*b n c"]:
        width, inner = x.shape[-1], _EXPANSION * x.shape[-1]
        uv_init = nn.initializers.xavier_uniform()
        uv = nn.Dense(2 * inner + _QUERY_WIDTH, use_bias=False, kernel_init=uv_init, name="uv")
        mixed = nn.silu(uv(ScaleNorm(name="ln")(x)))
        u, v, base = mixed[..., :inner], mixed[..., inner : 2 * inner], mixed[..., 2 * inner :]
        shape = (_QUERY_WIDTH, 2)
        gamma = self.param("gamma", nn.initializers.uniform(1.0), shape)
        beta = self.param("beta", nn.initializers.uniform(1.0), shape)
        query, key = (base * gamma[:, i] + beta[:, i] for i in (0, 1))
        weights = nn.relu(jnp.einsum("...ns,...ms->...nm", query, key) / _QUERY_WIDTH**0.5) ** 2
        out = _dense(width, "o")(u * jnp.einsum("...nm,...mc->...nc", weights, v))
        return self.param("res_scale", nn.initializers.ones, (width,)) * x + out


class RTMCCHead(nn.Module):
    """Features to SimCC's vectors. All of it is in float32: neighboring bins differ by little.

    A 7x7 convolution makes one map per joint, which is flattened into the joint's token.

    Attributes:
      num_keypoints: k, the number of joints.
    """

    num_keypoints: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> SimccMaps:
        *batch, height, width, _ = x.shape
        x = heatmap_conv(self.num_keypoints, _FINAL_KERNEL, name="final_layer")(x)
        tokens = x.reshape(*batch, height * width, self.num_keypoints).swapaxes(-1, -2)
        tokens = _dense(_TOKEN_WIDTH, "mlp_1")(ScaleNorm(name="mlp_0")(tokens))
        tokens = GatedAttention(name="gau")(tokens)
        bins = STRIDE * BINS_PER_PIXEL
        x = _dense(bins * width, "cls_x")(tokens)
        return SimccMaps(x, _dense(bins * height, "cls_y")(tokens))


class RTMPose(nn.Module):
    """Maps images (b, H, W, 3) to float32 `SimccMaps`: x (b, k, 2 W), y (b, k, 2 H).

    H and W are multiples of 32. Shapes of the last layers depend on them, so a trained network
    works at one input size only. Initialization: He-normal kernels in the backbone; in the head
    N(0, 0.01), N(0, 0.001) for its convolution, and Xavier-uniform for the attention's first layer.

    Attributes:
      num_keypoints: k, the number of joints.
      deepen: factor on the number of blocks.
      widen: factor on the number of channels.
      dtype: precision of the backbone's arithmetic; the head is in float32.
    """

    num_keypoints: int
    deepen: float
    widen: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w 3"], train: bool = False) -> SimccMaps:
        check_size(x, STRIDE, "rtmpose")
        features = CSPNeXt(self.deepen, self.widen, self.dtype, name="backbone")(x, train)
        return RTMCCHead(self.num_keypoints, name="head")(features.astype(jnp.float32))


RTMPOSE_MODELS = {
    "rtmpose_t": functools.partial(RTMPose, deepen=0.167, widen=0.375),
    "rtmpose_s": functools.partial(RTMPose, deepen=0.33, widen=0.5),
    "rtmpose_m": functools.partial(RTMPose, deepen=0.67, widen=0.75),
    "rtmpose_l": functools.partial(RTMPose, deepen=1.0, widen=1.0),
}


def _dense(features: int, name: str) -> nn.Dense:
    init = nn.initializers.normal(0.01)
    return nn.Dense(features, use_bias=False, kernel_init=init, name=name)
