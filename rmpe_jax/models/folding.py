"""Folding of batch norms into the preceding convolutions, for inference.

With fixed statistics a batch norm is y = (x - mean) a + bias with a = scale / sqrt(var + epsilon).
The factor a moves into the convolution's kernel, and the norm only adds a vector.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float

from rmpe_jax.models.efficientnet import FrozenBatchNorm
from rmpe_jax.models.layers import Deconv4x4

Path = tuple[str, ...]  # the path of a submodule or a parameter in the variables
_NORMS = (nn.BatchNorm, FrozenBatchNorm)


@dataclasses.dataclass(frozen=True)
class FoldedNetwork:
    """A network in which some batch norms only add their bias. Use it with the folded variables.

    Attributes:
      module: the network.
      norms: paths of the folded batch norms.
    """

    module: nn.Module
    norms: frozenset[Path]

    def apply(self, variables: Any, x: Float[Array, "b h w 3"]) -> Any:
        """Returns the output of `module.apply` in inference mode."""

        def add_bias(call, args, kwargs, context):
            module = context.module
            if context.method_name != "__call__" or module.path not in self.norms:
                return call(*args, **kwargs)
            x = args[0]
            return (x + module.variables["params"]["bias"]).astype(x.dtype)

        with nn.intercept_methods(add_bias):
            return self.module.apply(variables, x)


def fold_batch_norm(
    model: nn.Module, variables: Any, input_size: tuple[int, int]
) -> tuple[FoldedNetwork, dict[str, Any]]:
    """Folds every batch norm that directly follows a convolution; the outputs stay the same.

    Args:
      model: a network that takes images (b, H, W, 3).
      variables: its parameters and statistics; not modified.
      input_size: (height, width) of the images.

    Returns:
      The folded network and its variables, in which folded norms keep only `bias`.
    """
    params: dict[Path, Any] = traverse_util.flatten_dict(variables["params"])
    stats: dict[Path, Any] = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    norms = _norms_after_convolutions(model, variables, input_size)
    for norm, (convolution, epsilon) in norms.items():
        mean, var = stats.pop((*norm, "mean")), stats.pop((*norm, "var"))
        factor = params.pop((*norm, "scale")) / jnp.sqrt(var + epsilon)
        bias = params[(*norm, "bias")] - mean * factor
        params[(*convolution, "kernel")] = params[(*convolution, "kernel")] * factor
        if (*convolution, "bias") in params:
            bias += params[(*convolution, "bias")] * factor
            params[(*convolution, "bias")] = jnp.zeros_like(bias)
        params[(*norm, "bias")] = bias
    folded = {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(stats),
    }
    return FoldedNetwork(model, frozenset(norms)), folded


def _norms_after_convolutions(
    model: nn.Module, variables: Any, input_size: tuple[int, int]
) -> dict[Path, tuple[Path, float]]:
    """Maps each batch norm that directly follows a convolution to (convolution's path, epsilon).

    A convolution whose output has a second consumer would be folded too, which would be wrong. No
    network here has one: tests compare the outputs of all networks.
    """
    outputs: dict[int, tuple[Path, Any]] = {}  # keeps the arrays alive, so ids are not reused
    found = {}

    def record_call(call, args, kwargs, context):
        result, module = call(*args, **kwargs), context.module
        if context.method_name != "__call__":
            return result
        if isinstance(module, nn.Conv | Deconv4x4):
            outputs[id(result)] = module.path, result
        elif isinstance(module, _NORMS) and id(args[0]) in outputs:
            found[module.path] = outputs[id(args[0])][0], module.epsilon
        return result

    def run(variables, x):
        with nn.intercept_methods(record_call):
            return model.apply(variables, x)

    jax.eval_shape(run, variables, jax.ShapeDtypeStruct((1, *input_size, 3), jnp.float32))
    return found
