"""Localisation networks: where in a crop the person is, as the spatial transformer's theta.

Both end in a linear layer of zero weights and the identity as bias, so that training starts from
the crop as it is. All six numbers of theta are free, as in the paper.
"""

import difflib

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rmpe_jax.errors import UserError
from rmpe_jax.models.layers import batch_norm, conv, conv_bn, max_pool_3x3

# Torch's default, uniform in ±1 / sqrt(fan in), with which the paper's network starts.
_torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def theta_layer(x: Float[Array, "*b c"]) -> Float[Array, "*b 2 3"]:
    """The last layer, float32: theta is the identity, and x has no say yet."""
    layer = nn.Dense(
        6,
        kernel_init=nn.initializers.zeros,
        bias_init=lambda *_: jnp.array([1, 0, 0, 0, 1, 0], jnp.float32),
        name="theta",
    )
    return layer(x.astype(jnp.float32)).reshape(*x.shape[:-1], 2, 3)


class ResNet18Localization(nn.Module):
    """The paper's network: ResNet-18, average pool, linear layer; 11.2 million parameters.

    Unlike in today's ResNets every convolution has a bias (zero at first), and shortcuts are
    projected without batch norm.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b 2 3"]:
        x = self._conv(x, 64, 7, 2, "conv1")
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="bn1")(x))
        x = max_pool_3x3(x)
        for stage, features in enumerate((64, 128, 256, 512), 1):
            for block in range(2):
                stride = 2 if stage > 1 and block == 0 else 1
                x = self._block(x, features, stride, train, f"layer{stage}_{block}")
        return theta_layer(x.mean((-3, -2)))

    def _block(self, x: Array, features: int, stride: int, train: bool, name: str) -> Array:
        y = self._conv(x, features, 3, stride, f"{name}_conv1")
        y = nn.relu(batch_norm(train=train, dtype=self.dtype, name=f"{name}_bn1")(y))
        y = self._conv(y, features, 3, 1, f"{name}_conv2")
        y = batch_norm(train=train, dtype=self.dtype, name=f"{name}_bn2")(y)
        if x.shape[-1] != features:
            x = self._conv(x, features, 1, stride, f"{name}_shortcut")
        return nn.relu(x + y)

    def _conv(self, x: Array, features: int, kernel: int, stride: int, name: str) -> Array:
        options = {"stride": stride, "bias": True, "dtype": self.dtype, "kernel_init": _torch_init}
        return conv(features, kernel, name=name, **options)(x)


class SmallLocalization(nn.Module):
    """Five strided convolutions on the crop at half its size: under 1 % of FastPose's arithmetic.

    The last map is flattened, not averaged, so that the linear layer sees where things are. Its
    size, and so the parameters', follows the crop's.
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
    """Builds a localisation network: crops (b, H, W, 3) -> theta (b, 2, 3) float32.

    Args:
      name: one of `LOCALIZATION_NAMES`.
      dtype: precision of the arithmetic before the last layer.

    Raises:
      UserError: unknown name.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, LOCALIZATION_NAMES, n=1, cutoff=0)[0]
        names = ", ".join(LOCALIZATION_NAMES)
        raise UserError(
            f"localization: there is no {name!r}; did you mean {near!r}? choose one of {names}"
        )
    return _MODELS[name](dtype=dtype)
