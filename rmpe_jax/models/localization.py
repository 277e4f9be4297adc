"""Localization networks: predict where the person is in a crop, as the theta of the STN.

Both networks end in a linear layer whose weights start at zero and whose bias starts as the
identity, so training starts from the unchanged crop. All six numbers of theta are free, as in the
paper (RMPE, §3.1).
"""

import difflib

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.errors import UserError
from rmpe_jax.models.layers import BatchNorm, conv, conv_bn
from rmpe_jax.ops.convolutions import max_pool_3x3

# Torch's default, uniform in ±1 / sqrt(fan_in), as in the paper's network.
_torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def theta_layer(x: Float[Array, "*b c"]) -> Float[Array, "*b 2 3"]:
    """The last layer, in float32; at initialization theta is the identity for every x."""
    layer = nn.Dense(
        6,
        kernel_init=nn.initializers.zeros,
        bias_init=lambda *_: jnp.array([1, 0, 0, 0, 1, 0], jnp.float32),
        name="theta",
    )
    return layer(x.astype(jnp.float32)).reshape(*x.shape[:-1], 2, 3)


class ResNet18Localization(nn.Module):
    """The paper's network: ResNet-18, average pooling, linear layer; 11.2 million parameters.

    Unlike in standard ResNets, every convolution has a bias (initially zero), and shortcuts are
    projected without batch norm.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b 2 3"]:
        x = self._conv(x, 64, 7, 2, "conv1")
        x = nn.relu(BatchNorm(train, self.dtype, name="bn1")(x))
        x = max_pool_3x3(x)
        for stage, features in enumerate((64, 128, 256, 512), 1):
            for block in range(2):
                stride = 2 if stage > 1 and block == 0 else 1
                x = self._block(x, features, stride, train, f"layer{stage}_{block}")
        return theta_layer(x.mean((-3, -2)))

    def _block(
        self, x: Float[Array, "b h w c"], features: int, stride: int, train: bool, name: str
    ) -> Float[Array, "b h2 w2 {features}"]:
        y = self._conv(x, features, 3, stride, f"{name}_conv1")
        y = nn.relu(BatchNorm(train, self.dtype, name=f"{name}_bn1")(y))
        y = self._conv(y, features, 3, 1, f"{name}_conv2")
        y = BatchNorm(train, self.dtype, name=f"{name}_bn2")(y)
        if x.shape[-1] != features:
            x = self._conv(x, features, 1, stride, f"{name}_shortcut")
        return nn.relu(x + y)

    def _conv(
        self, x: Float[Array, "b h w c"], features: int, kernel: int, stride: int, name: str
    ) -> Float[Array, "b h2 w2 {features}"]:
        options = {"stride": stride, "bias": True, "dtype": self.dtype, "kernel_init": _torch_init}
        return conv(features, kernel, name=name, **options)(x)


class SmallLocalization(nn.Module):
    """Five strided convolutions on the crop at half its size: under 1 % of FastPose's arithmetic.

    The last feature map is flattened, not averaged, so the linear layer sees positions. The number
    of parameters therefore depends on the size of the crop.
    """

    widths: tuple[int, ...] = (32, 64, 128, 128, 128)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b 2 3"]:
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        for level, width in enumerate(self.widths):
            names = (f"conv{level}", f"bn{level}")
            options = {"train": train, "dtype": self.dtype, "names": names}
            x = nn.relu(conv_bn(x, width, 3, stride=2, **options))
        return theta_layer(x.reshape(*x.shape[:-3], -1))


_MODELS = {"small": SmallLocalization, "resnet18": ResNet18Localization}
LOCALIZATION_NAMES = tuple(_MODELS)


def build_localization(name: str, dtype: DTypeLike = jnp.float32) -> nn.Module:
    """Builds a localization network: crops (b, H, W, 3) -> theta (b, 2, 3) float32.

    Args:
      name: one of `LOCALIZATION_NAMES`.
      dtype: precision of the arithmetic before the last layer.

    Raises:
      UserError: the name is unknown.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, LOCALIZATION_NAMES, n=1, cutoff=0)[0]
        names = ", ".join(LOCALIZATION_NAMES)
        raise UserError(
            f"localization: there is no {name!r}; did you mean {near!r}? choose one of {names}"
        )
    return _MODELS[name](dtype=dtype)
