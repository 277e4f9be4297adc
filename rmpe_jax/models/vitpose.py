"""ViTPose: a plain vision transformer with a small head, and ViTPose+ with experts per dataset.

Xu et al., "ViTPose: Simple Vision Transformer Baselines for Human Pose Estimation", NeurIPS 2022;
"ViTPose++: Vision Transformer for Generic Body Pose Estimation", TPAMI 2023. Submodules have the
names of the published checkpoints: `blocks_0/attn/qkv` is their `blocks.0.attn.qkv`.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from rmpe_jax.errors import UserError
from rmpe_jax.models.layers import BatchNorm, Deconv4x4, check_size, heatmap_conv

PATCH = 16  # pixels, both sides
_PATCH_PADDING = 2  # pixels on each side of the image
_MLP_RATIO = 4
_UPSAMPLING = 4
EXPERTS = ("coco", "ai_challenger", "mpii", "ap10k", "apt36k", "coco_wholebody")  # of ViTPose+
ATTENTIONS = ("xla", "cudnn")

_init = nn.initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class TransformerOptions:
    """What can be chosen for a transformer, beside its name.

    Attributes:
      norm_epsilon: of the layer norms: 1e-6 in the paper's code, 1e-12 in Hugging Face's.
      expert: of ViTPose+, an index into `EXPERTS`, for calls that do not give one.
      drop_path: probability, in training, that the last block is skipped for an image; it grows
        linearly over the blocks, from 0.
      remat: compute activations again in the backward pass instead of storing them.
      attention: what computes it: "xla", with a matrix of weights in memory, or "cudnn", fused, on
        CUDA GPUs in half precision. It depends on the machine: trained networks do not store it.
    """

    norm_epsilon: float = 1e-6
    expert: int = 0
    drop_path: float = 0.0
    remat: bool = False
    attention: Literal["xla", "cudnn"] = "xla"


class Attention(nn.Module):
    """Multi-head self-attention over tokens (b, n, c).

    Attributes:
      num_heads: divides c.
      dtype: precision of the arithmetic; the softmax is in float32.
      implementation: see `TransformerOptions.attention`.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32
    implementation: Literal["xla", "cudnn"] = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        b, n, c = x.shape
        qkv = _dense(3 * c, self.dtype, "qkv")(x).reshape(b, n, 3, self.num_heads, -1)
        q, k, v = (qkv[:, :, i] for i in range(3))
        x = jax.nn.dot_product_attention(q, k, v, implementation=self.implementation)
        return _dense(c, self.dtype, "proj")(x.reshape(b, n, c))


class Mlp(nn.Module):
    """Two layers with a GELU between them, on each token.

    With experts, the second layer gives the first channels of the output, and the expert of the
    image's dataset gives the others.

    Attributes:
      expert_width: channels of the output that experts give; 0: no experts.
      dtype: precision of the arithmetic.
    """

    expert_width: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], expert: Int[Array, " b"]) -> Float[Array, "b n c"]:
        c = x.shape[-1]
        x = _dense(_MLP_RATIO * c, self.dtype, "fc1")(x)
        x = nn.gelu(x, approximate=False)
        shared = _dense(c - self.expert_width, self.dtype, "fc2")(x)
        if not self.expert_width:
            return shared
        outputs = [
            _dense(self.expert_width, self.dtype, f"experts_{i}")(x) for i in range(len(EXPERTS))
        ]
        chosen = jax.nn.one_hot(expert, len(EXPERTS), dtype=x.dtype)
        return jnp.concatenate([shared, jnp.einsum("ebnc,be->bnc", jnp.stack(outputs), chosen)], -1)


class Block(nn.Module):
    """A transformer block: attention and MLP, each normalized before and added to its input.

    Attributes:
      num_heads: of the attention.
      expert_width: of the MLP.
      norm_epsilon: of the layer norms.
      drop_path: probability that attention or MLP is skipped for an image in training.
      dtype: precision of the arithmetic; statistics of layer norms are in float32.
      attention: see `TransformerOptions`.
    """

    num_heads: int
    expert_width: int = 0
    norm_epsilon: float = 1e-6
    drop_path: float = 0.0
    dtype: DTypeLike = jnp.float32
    attention: Literal["xla", "cudnn"] = "xla"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], expert: Int[Array, " b"], train: bool = False
    ) -> Float[Array, "b n c"]:
        # Batches of images lose whole branches: the mask is (b, 1, 1).
        drop = nn.Dropout(
            self.drop_path,
            broadcast_dims=(1, 2),
            deterministic=not train,
            rng_collection="drop_path",
        )
        y = _layer_norm(self.norm_epsilon, self.dtype, "norm1")(x)
        x = x + drop(Attention(self.num_heads, self.dtype, self.attention, name="attn")(y))
        y = _layer_norm(self.norm_epsilon, self.dtype, "norm2")(x)
        return x + drop(Mlp(self.expert_width, self.dtype, name="mlp")(y, expert))


class VisionTransformer(nn.Module):
    """Images (b, H, W, 3) to features (b, H/16, W/16, width); H and W are multiples of 16.

    The position embeddings belong to one input size; `resample_positions` converts them.

    Attributes:
      width: of the tokens.
      depth: number of blocks.
      num_heads: of the attention.
      expert_width: of the MLPs.
      options: see `TransformerOptions`.
      dtype: precision of the arithmetic.
    """

    width: int
    depth: int
    num_heads: int
    expert_width: int = 0
    options: TransformerOptions = TransformerOptions()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], expert: Int[Array, " b"], train: bool = False
    ) -> Float[Array, "b h//16 w//16 {self.width}"]:
        check_size(x, PATCH, "vitpose")
        x = nn.Conv(
            self.width,
            (PATCH, PATCH),
            strides=(PATCH, PATCH),
            padding=_PATCH_PADDING,
            dtype=self.dtype,
            kernel_init=_init,
            conv_general_dilated=_embed_patches,
            name="patch_embed",
        )(x)
        b, height, width, c = x.shape
        # The first embedding is that of the class token, which does not exist here.
        positions = self.param("pos_embed", _init, (1, height * width + 1, c))
        x = x.reshape(b, height * width, c) + (positions[:, 1:] + positions[:, :1]).astype(x.dtype)
        block = nn.remat(Block, static_argnums=(3,)) if self.options.remat else Block
        for i in range(self.depth):
            x = block(
                self.num_heads,
                self.expert_width,
                self.options.norm_epsilon,
                self.options.drop_path * i / max(self.depth - 1, 1),
                self.dtype,
                self.options.attention,
                name=f"blocks_{i}",
            )(x, expert, train)
        x = _layer_norm(self.options.norm_epsilon, self.dtype, "last_norm")(x)
        return x.reshape(b, height, width, c)


class ClassicHead(nn.Module):
    """Features to heatmaps of four times their size: two deconvolutions and a 1x1 convolution.

    Attributes:
      num_keypoints: k, the number of heatmaps.
      dtype: precision of the arithmetic; the last layer is in float32.
    """

    num_keypoints: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b 4*h 4*w {self.num_keypoints}"]:
        for index in (0, 3):
            x = Deconv4x4(256, dtype=self.dtype, name=f"deconv_layers_{index}")(x)
            x = BatchNorm(train, self.dtype, name=f"deconv_layers_{index + 1}")(x)
            x = nn.relu(x)
        return heatmap_conv(self.num_keypoints, 1, name="final_layer")(x)


class SimpleHead(nn.Module):
    """Features to heatmaps of four times their size: bilinear upsampling and a 3x3 convolution.

    Attributes:
      num_keypoints: k, the number of heatmaps.
    """

    num_keypoints: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b 4*h 4*w {self.num_keypoints}"]:
        b, h, w, c = x.shape
        # Half-pixel centers, as in torch with align_corners=False.
        x = jax.image.resize(nn.relu(x), (b, _UPSAMPLING * h, _UPSAMPLING * w, c), "bilinear")
        return heatmap_conv(self.num_keypoints, 3, name="final_layer")(x)


class ViTPose(nn.Module):
    """Maps images (b, H, W, 3) to float32 heatmaps (b, H/4, W/4, k); H and W are multiples of 16.

    Initialization: truncated normal of 0.02, the last layer N(0, 0.001).

    Attributes:
      num_keypoints: k, the number of heatmaps.
      width: of the tokens.
      depth: number of blocks.
      num_heads: of the attention.
      expert_width: channels of ViTPose+'s experts; 0: no experts.
      simple_head: bilinear upsampling and one convolution instead of two deconvolutions.
      options: see `TransformerOptions`.
      dtype: precision of the arithmetic.
    """

    num_keypoints: int
    width: int
    depth: int
    num_heads: int
    expert_width: int = 0
    simple_head: bool = False
    options: TransformerOptions = TransformerOptions()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*b h w 3"],
        train: bool = False,
        expert: Int[Array, " b"] | None = None,
    ) -> Float[Array, "*b h//4 w//4 {self.num_keypoints}"]:
        """Heatmaps of images.

        Args:
          x: normalized images.
          train: whether batch norms use the batch's statistics, and paths are dropped. Dropping
            needs the random key "drop_path".
          expert: of ViTPose+, an index into `EXPERTS` for each image; by default
            `options.expert`.
        """
        batch = x.shape[:-3]
        x = x.reshape(math.prod(batch), *x.shape[-3:])
        if expert is None:  # x.shape[0] may be symbolic, len(x) may not
            expert = jnp.full(x.shape[:1], self.options.expert)
        backbone = VisionTransformer(
            self.width,
            self.depth,
            self.num_heads,
            self.expert_width,
            self.options,
            self.dtype,
            name="backbone",
        )
        features = backbone(x, expert, train)
        if self.simple_head:
            head = SimpleHead(self.num_keypoints, name="keypoint_head")
        else:
            head = ClassicHead(self.num_keypoints, self.dtype, name="keypoint_head")
        maps = head(features, train)
        return maps.reshape(*batch, *maps.shape[1:])


_SIZES = {  # (width, depth, heads, width of ViTPose+'s experts)
    "s": (384, 12, 12, 96),
    "b": (768, 12, 12, 192),
    "l": (1024, 24, 16, 256),
    "h": (1280, 32, 16, 320),
}
VITPOSE_MODELS = {
    f"vitpose{plus}_{size}{simple}": functools.partial(
        ViTPose,
        width=width,
        depth=depth,
        num_heads=num_heads,
        expert_width=expert_width if plus else 0,
        simple_head=bool(simple),
    )
    for size, (width, depth, num_heads, expert_width) in _SIZES.items()
    for plus in ("", "_plus")
    for simple in ("", "_simple")
}


def require_attention(options: TransformerOptions, dtype: DTypeLike) -> None:
    """Checks that the attention of `options` works in this precision, on the first device.

    Raises:
      UserError: it does not.
    """
    if options.attention != "cudnn":
        return
    line = "config.transformer.attention='cudnn' {}; set it to 'xla'"
    if jnp.dtype(dtype) not in (jnp.float16, jnp.bfloat16):
        needed = f"needs config.model.dtype='bfloat16', not {jnp.dtype(dtype).name!r}"
        raise UserError(line.format(needed))
    device = str(jax.devices()[0])  # such as "cuda:0"
    if not device.startswith("cuda"):
        raise UserError(line.format(f"needs a CUDA GPU, and the first device is {device}"))


def resample_positions(
    positions: Float[Array, "1 n c"], grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[Array, "1 m c"]:
    """Position embeddings for another input size, by bicubic interpolation.

    Args:
      positions: that of the class token, then those of the patches, row by row; n is
        height * width + 1 of `grid`.
      grid: (height, width) in patches that they are for.
      new_grid: (height, width) in patches that they are wanted for.
    """
    if grid == new_grid:
        return positions
    patches = positions[:, 1:].reshape(1, *grid, -1)
    patches = jax.image.resize(patches, (1, *new_grid, patches.shape[-1]), "bicubic")
    patches = patches.reshape(1, new_grid[0] * new_grid[1], -1)
    return jnp.concatenate([positions[:, :1], patches], 1)


def _dense(features: int, dtype: DTypeLike, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, kernel_init=_init, name=name)


def _layer_norm(epsilon: float, dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """A layer norm whose statistics are float32, whatever the precision of its input."""
    return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=False, name=name)


def _embed_patches(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "p p c features"],
    strides: tuple[int, int],
    padding: Any,
    **_: Any,
) -> Float[Array, "b h//p w//p features"]:
    """`lax.conv_general_dilated` for strides as large as the kernel: one matrix product.

    The gradient of such a kernel as a convolution has a window as large as the image. cuDNN seems
    to fail at it (docs/performance.md).
    """
    p = kernel.shape[0]
    b, height, width, c = x.shape
    rows, columns = height // p, width // p
    # Of the padding at the end, the last patches reach only what the start moves them by.
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))[:, : rows * p, : columns * p]
    patches = x.reshape(b, rows, p, columns, p, c).transpose(0, 1, 3, 2, 4, 5)
    return jnp.einsum("bhwijc,ijcd->bhwd", patches, kernel)
