"""A trained network as one file to share: safetensors, with its config as JSON in the header.

Reading a file executes nothing in it. `meta["config"]` defines the model (`config.spec_to_dict`).
`meta["pose_nms"]`, if present, holds parameters of pose NMS (`pose_nms.params_to_dict`).
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from rmpe_jax.errors import UserError
from rmpe_jax.files import atomic_write, failed_download

_KEY = "rmpe_jax"  # of the JSON in the header
_SEPARATOR = "/"  # of the path of an array; flax's names have none


def save_model(
    path: str | os.PathLike,
    variables: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    half: bool = False,
) -> None:
    """Writes variables and meta data as one file, atomically.

    Args:
      path: of the file, usually `NAME.safetensors`.
      variables: of a Flax module, such as `{"params": …, "batch_stats": …}`; float arrays.
      meta: JSON content; see above.
      half: store arrays of two or more dimensions, which are nearly all bytes, as float16. Vectors
        stay float32; among them are the statistics of batch norms, which have a wider range.

    Raises:
      UserError: the file cannot be written, or an array does not fit into float16.
    """
    arrays = {
        name: _stored(name, np.asarray(array, np.float32), half)
        for name, array in traverse_util.flatten_dict(dict(variables), sep=_SEPARATOR).items()
    }
    content = safetensors.numpy.save(arrays, {_KEY: json.dumps(meta)})
    with atomic_write(path, "wb") as file:
        file.write(content)


def load_model(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables, float32 NumPy arrays in nested dicts, and the meta data of a file.

    Raises:
      UserError: the file is missing, damaged, or not a model file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            meta = dict(json.loads((file.metadata() or {})[_KEY]))
            names = list(file.keys())
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in names}
        return traverse_util.unflatten_dict(arrays, sep=_SEPARATOR), meta
    except OSError as error:
        why = "not there" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"{path} cannot be read ({why}): name a model file") from None
    except (safetensors.SafetensorError, LookupError, RecursionError, TypeError, ValueError):
        with open(path, "rb") as file:
            what = failed_download(file.read(200))
        if what:
            raise UserError(f"{path} is {what}") from None
        raise UserError(
            f"{path} is not a model file of rmpe_jax, or is damaged: fetch it again, or name a "
            "training run's workdir"
        ) from None


def _stored(name: str, array: np.ndarray, half: bool) -> np.ndarray:
    if not half or array.ndim < 2:
        return np.array(array, order="C")
    with np.errstate(over="ignore"):
        stored = np.array(array, np.float16, order="C")
    if not np.isfinite(stored).all():
        raise UserError(f"{name} has values that float16 cannot hold: save it in full precision")
    return stored
