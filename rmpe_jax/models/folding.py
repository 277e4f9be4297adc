"""Networks for inference: checked against their variables, with batch norms folded.

With fixed statistics a batch norm is y = (x - mean) a + bias with a = scale / sqrt(var + epsilon).
The factor a moves into the kernel of the convolution before it, and the norm only adds a vector.

Tracing a network takes most of a second. One trace gives everything that is known without computing
it: whether the variables fit, the shapes of the outputs, and the norms that can be folded.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float

from rmpe_jax.errors import UserError
from rmpe_jax.models.layers import BatchNorm, Deconv4x4

Path = tuple[str, ...]  # the path of a submodule or of a variable
_OF_NORMS = {"params": ("scale", "bias"), "batch_stats": ("mean", "var")}


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """A network for inference. Use it with the variables of `fold_batch_norm`.

    Attributes:
      function: gives the output for variables and images (b, H, W, 3); compiled by `jax.jit`.
      output: for the images that it was folded for; only shapes.
      norms: paths of the folded batch norms.
    """

    function: Callable[[Any, Float[Array, "b h w 3"]], Any]
    output: Any
    norms: frozenset[Path]

    def apply(self, variables: Any, x: Float[Array, "b h w 3"]) -> Any:
        """Returns the output of the module in inference mode."""
        return self.function(variables, x)


def fold_batch_norm(
    module: nn.Module,
    variables: Mapping[str, Any],
    input_size: tuple[int, int],
    batch_size: int = 1,
    name: str = "this network",
) -> tuple[FoldedNetwork, dict[str, Any]]:
    """Folds every batch norm that directly follows a convolution; the outputs stay the same.

    Args:
      module: a network that takes images (b, H, W, 3).
      variables: its parameters and statistics; not modified.
      input_size: (height, width) of the images.
      batch_size: of the images. The network is not traced again for images of this size.
      name: of the network, for messages.

    Returns:
      The folded network and its variables, NumPy arrays where they changed. Of folded norms only
      `bias` has an effect.

    Raises:
      UserError: a variable is missing, unknown, or of another shape, or the network does not work
        at this input size.
    """
    traced = _trace(module, variables, input_size, batch_size, name)
    # With empty nodes, so that the tree keeps its structure, and `jax.jit` its trace.
    flat: dict[Path, Any] = traverse_util.flatten_dict(dict(variables), keep_empty_nodes=True)
    # By NumPy: JAX would compile each operation for each shape.
    for norm, (convolution, epsilon) in traced.norms.items():
        mean, var = (np.asarray(flat["batch_stats", *norm, part]) for part in ("mean", "var"))
        scale, bias = (np.asarray(flat["params", *norm, part]) for part in ("scale", "bias"))
        factor = scale / np.sqrt(var + epsilon)
        shift = bias - mean * factor
        kernel_path, bias_path = (("params", *convolution, part) for part in ("kernel", "bias"))
        flat[kernel_path] = np.asarray(flat[kernel_path]) * factor
        if bias_path in flat:
            shift += np.asarray(flat[bias_path]) * factor
            flat[bias_path] = np.zeros_like(shift)
        flat["params", *norm, "bias"] = shift
    network = FoldedNetwork(traced.function, traced.output, frozenset(traced.norms))
    return network, traverse_util.unflatten_dict(flat)


def check_variables(
    module: nn.Module, variables: Mapping[str, Any], input_size: tuple[int, int], name: str
) -> Any:
    """Checks that variables fit a network, without computing anything.

    Args:
      module: the network, of images (b, H, W, 3).
      variables: of a file or a run.
      input_size: (height, width) of the images.
      name: of the network, for messages.

    Returns:
      The network's output for one image; only shapes.

    Raises:
      UserError: as of `fold_batch_norm`.
    """
    return _trace(module, variables, input_size, 1, name).output


class _Traced(NamedTuple):
    function: Callable[[Any, Float[Array, "b h w 3"]], Any]  # folded; `jax.jit` keeps the trace
    output: Any
    norms: dict[Path, tuple[Path, float]]  # the convolution's path and the norm's epsilon


class _MismatchError(Exception):
    """The variables are not those of the module."""


def _trace(
    module: nn.Module,
    variables: Mapping[str, Any],
    input_size: tuple[int, int],
    batch_size: int,
    name: str,
) -> _Traced:
    norms: dict[Path, tuple[Path, float]] = {}
    known: set[Path] = set()
    function = jax.jit(functools.partial(_apply, module, norms, known))
    images = jax.ShapeDtypeStruct((batch_size, *input_size, 3), jnp.float32)
    try:
        output = jax.eval_shape(function, dict(variables), images)
        if known != traverse_util.flatten_dict(dict(variables)).keys():
            raise _MismatchError
    except (flax.errors.FlaxError, _MismatchError):
        raise UserError(
            f"the variables are not those of {name}: the model's config and weights do not belong "
            "together, fetch it again"
        ) from None
    return _Traced(function, output, norms)


def _apply(
    module: nn.Module,
    norms: dict[Path, tuple[Path, float]],
    known: set[Path],
    variables: Any,
    x: Float[Array, "b h w 3"],
) -> Any:
    """Output of the folded network.

    Flax checks that the parameters are there and have the right shapes, but not the statistics.

    Args:
      module: the network.
      norms: gets the folded norms, see `_Traced`. A convolution whose output has a second consumer
        would be folded too, which would be wrong. No network here has one: tests compare the
        outputs of all networks.
      known: gets the paths of all variables of the network.
      variables: of the network.
      x: images.
    """
    convolutions: dict[int, tuple[Path, Any]] = {}  # keeps the outputs alive: ids are not reused

    def intercept(call, args, kwargs, context):
        called = context.module
        if isinstance(called, BatchNorm):
            x = args[0]
            _check_norm(called, x.shape[-1])
            known.update((kind, *called.path, p) for kind in _OF_NORMS for p in _OF_NORMS[kind])
            if id(x) in convolutions:
                norms[called.path] = convolutions[id(x)][0], called.epsilon
                return (x + called.variables["params"]["bias"]).astype(x.dtype)
        result = call(*args, **kwargs)
        if isinstance(called, nn.Conv | Deconv4x4):
            convolutions[id(result)] = called.path, result
        for part, kinds in called.scope.reservations.items():
            known.update((kind, *called.path, part) for kind in kinds if kind)
        return result

    with nn.intercept_methods(intercept):
        return module.apply(variables, x)


def _check_norm(norm: nn.Module, channels: int) -> None:
    expected = {kind: dict.fromkeys(parts, (channels,)) for kind, parts in _OF_NORMS.items()}
    if jax.tree.map(jnp.shape, dict(norm.variables)) != expected:
        raise _MismatchError
