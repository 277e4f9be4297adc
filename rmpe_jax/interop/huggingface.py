"""Reads the weights of a Hugging Face folder: safetensors, whole or in shards, or torch's."""

import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.interop.pth import read_pth

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TORCH = "pytorch_model.bin"


def read_weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of `model.safetensors`, or of the shards that its index lists.

    Without either, those of `pytorch_model.bin`, which is read as `read_pth` does.

    Raises:
      UserError: a file is missing or damaged.
    """
    index = folder / _INDEX
    if not (folder / _WHOLE).exists() and not index.exists() and (folder / _TORCH).exists():
        return read_pth(folder / _TORCH)
    if not (folder / _WHOLE).exists() and index.exists():
        content = read_json(index, "index of shards")
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict) or not all(map(_is_plain, shards.values())):
            raise UserError(f"{index} is not an index of shards: fetch it again")
        names = list(dict.fromkeys(shards.values()))
    else:
        names = [_WHOLE]
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        tensors |= _read(folder / name)
    return tensors


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and pathlib.PurePath(name).name == name


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: fetch it, or name another folder") from None
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again") from None
