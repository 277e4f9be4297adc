"""The backbone of MoveNet Lightning, a MobileNetV2, from its TensorFlow.js files.

MoveNet (Google, Apache-2.0) finds the 17 joints of one person and was trained on COCO train2017 and
on a collection of its own. Its batch norms are folded into the convolutions.
"""

import math
import pathlib
import re
from typing import Any

import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.models.inverted_residual import BATCH_NORM_EPSILON

_QUANTIZED = {"float16": np.dtype("<f2")}
_PLAIN = {"float32": np.dtype("<f4"), "int32": np.dtype("<i4")}
_BLOCK = re.compile(r"model/(?:(expanded_conv)|block_(\d+))_(expand|depthwise|project)/")
_BIAS = "_bn_offset"


def read_graph_model(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a TensorFlow.js graph model.

    Args:
      path: of the JSON file. The files of weights that it names lie beside it.

    Returns:
      Arrays by their names; those stored as float16 stay so.

    Raises:
      UserError: a file is missing or damaged, or weights are quantized to integers.
    """
    path = pathlib.Path(path)
    content = read_json(path, "graph model")
    tensors: dict[str, np.ndarray] = {}
    try:
        for group in content["weightsManifest"]:
            files = (path.parent / pathlib.Path(name).name for name in group["paths"])
            data = b"".join(file.read_bytes() for file in files)
            tensors |= _tensors(group["weights"], data)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path}: not a complete graph model of TensorFlow.js ({error}); fetch it again"
        ) from None
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; {path} names it") from None
    return tensors


def _tensors(weights: Any, data: bytes) -> dict[str, np.ndarray]:
    """The tensors that lie one after the other in `data`."""
    tensors, offset = {}, 0
    for weight in weights:
        quantization = weight.get("quantization")
        types = _PLAIN if quantization is None else _QUANTIZED
        name = weight["dtype"] if quantization is None else quantization["dtype"]
        if name not in types:
            raise ValueError(f"{weight['name']} is stored as {name}")
        count = math.prod(weight["shape"])
        array = np.frombuffer(data, types[name], count, offset)
        if not np.isfinite(array).all():
            raise ValueError(f"{weight['name']} has values that are not finite")
        tensors[str(weight["name"])] = array.reshape(weight["shape"])
        offset += array.nbytes
    return tensors


def movenet_variables(tensors: dict[str, np.ndarray]) -> dict[str, dict]:
    """Converts MoveNet's backbone to the variables of `models.inverted_residual.MobileNetV2`.

    Folding has left kernels whose sizes differ by a factor of 100,000 between channels. Each
    channel's kernel is divided by its root mean square, times the one of a He-normal kernel, and
    the norm's scale is multiplied by it. So steps of one size suit them all.

    MoveNet pads strided convolutions on one side, this project on both: its features here are those
    of an image shifted by up to 31 pixels, except at the border.

    Args:
      tensors: from `read_graph_model`. The layers behind the backbone are ignored.

    Returns:
      `{"params": …, "batch_stats": …}`. Inputs are RGB in -1..1: a mean and standard deviation of
      0.5.

    Raises:
      UserError: there is no backbone of a MoveNet.
    """
    variables: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for key, kernel in tensors.items():
        name = _module(key)
        if name is None:
            continue
        bias = key.removesuffix("_weights") + _BIAS
        if bias not in tensors or kernel.ndim != 4:
            raise UserError(f"weights: {key} has no bias or is not a kernel; use MoveNet's files")
        kernel = np.asarray(kernel, np.float32)
        if name.endswith("depthwise"):  # (s, s, c, 1)
            kernel = kernel[..., 0]
        kernel, size = _normalized(kernel)
        params = variables["params"]
        params[name] = kernel if name.endswith("depthwise") else {"kernel": kernel}
        shape = size.shape
        params[f"{name}_bn"] = {
            "scale": size * np.float32(math.sqrt(1 + BATCH_NORM_EPSILON)),
            "bias": np.asarray(tensors[bias], np.float32),
        }
        variables["batch_stats"][f"{name}_bn"] = {
            "mean": np.zeros(shape, np.float32),
            "var": np.ones(shape, np.float32),
        }
    if not variables["params"]:
        raise UserError("weights: no backbone of a MoveNet; use the files of MoveNet Lightning")
    return variables


def _module(key: str) -> str | None:
    """Our name of the convolution whose kernel is `key`; None: another tensor."""
    if not key.endswith("_weights"):
        return None
    if key.endswith("model/Conv1/Conv2D_weights"):
        return "stem"
    match = _BLOCK.search(key)
    if match is None:
        return None
    first, block, part = match.groups()
    return f"block{0 if first else block}_{part}"


def _normalized(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(kernel of He-normal size, what it was divided by), by output channel, the last axis.

    A kernel of zeros stays so, divided by 1.
    """
    flat = kernel.reshape(-1, kernel.shape[-1])
    size = np.sqrt((flat.astype(np.float64) ** 2).mean(0) * len(flat) / 2)
    size = np.where(size > 0, size, 1.0).astype(np.float32)
    return kernel / size, size
