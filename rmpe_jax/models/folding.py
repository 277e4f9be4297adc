"""Batch norms folded into the convolutions before them, for inference.

With fixed statistics a batch norm is y = (x - mean) a + bias with a = scale / sqrt(var + epsilon):
the convolution takes the factor a, and what remains is to add a vector.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float

from rmpe_jax.models.efficientnet import FrozenBatchNorm

Path = tuple[str, ...]  # of a submodule in the variables
_NORMS = (nn.BatchNorm, FrozenBatchNorm)


@dataclasses.dataclass(frozen=True)
class FoldedNetwork:
    """A network some of whose batch norms only add their bias; for variables folded alike.

    Attributes:
      module: the network.
      norms: paths of these batch norms.
    """

    module: nn.Module
    norms: frozenset[Path]

    def apply(self, variables: Any, x: Float[Array, "b h w 3"]) -> Any:
        """What `module.apply` gives in inference."""

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
    """The same function of pictures, its batch norms folded where a convolution is right before.

    Args:
      model: a network of pictures (b, H, W, 3).
      variables: its parameters and statistics.
      input_size: (height, width).

    Returns:
      The network and its variables; folded norms have nothing left but `bias`.
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
    """Batch norms whose input is a convolution's output itself: its path, and their epsilon.

    A convolution of two consumers would be found too; no network here has one (its test compares).
    """
    outputs: dict[int, tuple[Path, Any]] = {}  # the array is kept, so that its id stays its own
    found = {}

    def watch(call, args, kwargs, context):
        result, module = call(*args, **kwargs), context.module
        if context.method_name != "__call__":
            return result
        if isinstance(module, nn.Conv | nn.ConvTranspose):
            outputs[id(result)] = module.path, result
        elif isinstance(module, _NORMS) and id(args[0]) in outputs:
            found[module.path] = outputs[id(args[0])][0], module.epsilon
        return result

    def run(variables, x):
        with nn.intercept_methods(watch):
            return model.apply(variables, x)

    jax.eval_shape(run, variables, jax.ShapeDtypeStruct((1, *input_size, 3), jnp.float32))
    return found
