"""JAX functions as portable StableHLO, by `jax.export`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rmpe_jax.errors import UserError

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(
    function: Callable[[jax.Array], Any], input_shape: tuple[int, ...], dtype: Any = np.float32
) -> bytes:
    """Serialises a function of one batched array, with the arrays it closes over, for `PLATFORMS`.

    `jax.export.deserialize(data).call(x)` runs it in any process that has JAX, whatever the size of
    the batch.

    Args:
      function: (b, *input_shape) to arrays.
      input_shape: without the batch, which stays open.
      dtype: of the input.

    Raises:
      UserError: the package flatbuffers, with which JAX serialises, is not installed.
    """
    (batch,) = jax.export.symbolic_shape("b")
    spec = jax.ShapeDtypeStruct((batch, *input_shape), dtype)
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(spec)
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise UserError(
            f"to StableHLO: {error}; install the extra export: pip install 'rmpe_jax[export]'"
        ) from error
