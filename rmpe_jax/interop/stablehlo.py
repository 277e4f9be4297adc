"""Export of JAX functions to portable StableHLO, by `jax.export`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rmpe_jax.errors import UserError

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(
    function: Callable[[jax.Array], Any], input_shape: tuple[int, ...], dtype: Any = np.float32
) -> bytes:
    """Serializes a function of one batched array, including the arrays it closes over.

    `jax.export.deserialize(data).call(x)` runs it in any process that has JAX, on all `PLATFORMS`
    and for any batch size.

    Args:
      function: maps an array (b, *input_shape) to arrays.
      input_shape: shape of the input without the batch.
      dtype: dtype of the input.

    Returns:
      The serialized function.

    Raises:
      UserError: the package flatbuffers is not installed, which JAX requires for serialization.
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
