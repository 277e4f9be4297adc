"""Weights of MoveNet from its TensorFlow.js files, for `models.movenet`.

MoveNet (Google, Apache-2.0) was trained for the 17 joints of COCO, on COCO train2017 and on a
collection of its own. Its batch norms are folded into the convolutions.
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

_PREFIX = re.compile(r"^StatefulPartitionedCall/(?:center_net_[^/]*/model_1/)?")
# The tensors of a layer, below its name: kernel and bias, with a folded norm or without one.
_FOLDED = ("Conv2D_weights", "Conv2D_bn_offset")
_FOLDED_DEPTHWISE = ("depthwise_weights", "depthwise_bn_offset")
_FOLDED_POINTWISE = ("separable_conv2d_weights", "separable_conv2d_bn_offset")
_CONV = ("Conv2D/ReadVariableOp", "BiasAdd/ReadVariableOp")
_POINTWISE = ("separable_conv2d/ReadVariableOp_1", "BiasAdd/ReadVariableOp")
_FILTER = "separable_conv2d/ReadVariableOp"


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
    if path.suffix == ".bin":
        raise UserError(f"{path}: these are weights alone; name the .json file beside it")
    content = read_json(path, "graph model")
    tensors: dict[str, np.ndarray] = {}
    try:
        for group in content["weightsManifest"]:
            files = (path.parent / pathlib.Path(name).name for name in group["paths"])
            data = b"".join(file.read_bytes() for file in files)
            tensors |= _tensors(group["weights"], data)
    except KeyError as error:
        raise UserError(f"{path}: there is no {error}; use a graph model") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: not a complete graph model ({error}); fetch it again") from None
    except OSError as error:
        raise UserError(f"{error.filename!r}: {error.strerror}; {path} names it") from None
    return tensors


def _tensors(weights: Any, data: bytes) -> dict[str, np.ndarray]:
    """The tensors that lie one after the other in `data`."""
    tensors, offset = {}, 0
    for weight in weights:
        quantization = weight.get("quantization")
        types = _PLAIN if quantization is None else _QUANTIZED
        name = weight["dtype"] if quantization is None else quantization["dtype"]
        if name not in types:
            raise UserError(
                f"weights: {weight['name']!r} is stored as {name!r}; use files with floats"
            )
        count = math.prod(weight["shape"])
        array = np.frombuffer(data, types[name], count, offset)
        if not np.isfinite(array).all():
            raise ValueError(f"{weight['name']!r} has values that are not finite")
        tensors[str(weight["name"])] = array.reshape(weight["shape"])
        offset += array.nbytes
    return tensors


def movenet_variables(tensors: dict[str, np.ndarray]) -> dict[str, dict]:
    """Converts the weights of a MoveNet to the variables of `models.movenet.MoveNet`.

    Folding has left kernels whose sizes differ by a factor of 100,000 between channels. Here each
    channel's kernel is scaled to the size of a He-normal one, so that steps of one size suit them
    all. The scale of the norm makes up for it.

    Args:
      tensors: from `read_graph_model`. The heads other than the heatmaps are ignored.

    Returns:
      `{"params": …, "batch_stats": …}`, for 17 joints. Inputs are RGB in -1..1: a mean and standard
      deviation of 0.5.

    Raises:
      UserError: a tensor is missing, or has another shape than its layer.
    """
    tensors = {_PREFIX.sub("", name): array for name, array in tensors.items()}
    params: dict[str, Any] = {}
    batch_stats: dict[str, Any] = {}

    def find(name: str, axes: int) -> np.ndarray:
        if name not in tensors:
            raise UserError(f"weights: there is no {name}; use the files of a MoveNet")
        array = np.asarray(tensors[name], np.float32)
        if array.ndim != axes or not array.size:
            raise UserError(f"weights: {name} has the shape {array.shape}; use MoveNet's files")
        return array

    def pair(theirs: str, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
        """The kernel and the bias of a layer."""
        return find(f"{theirs}/{names[0]}", 4), find(f"{theirs}/{names[1]}", 1)

    def add(ours: str, kernel: np.ndarray, bias: np.ndarray) -> None:
        """A convolution, or a depthwise one whose kernel has three axes, and its norm."""
        *scope, name = ours.split("/")
        layers, norms = params, batch_stats
        for part in scope:
            layers, norms = layers.setdefault(part, {}), norms.setdefault(part, {})
        kernel, size = _normalized(kernel)
        layers[name] = {"kernel": kernel} if kernel.ndim == 4 else kernel
        scale = size * np.float32(math.sqrt(1 + BATCH_NORM_EPSILON))
        layers[f"{name}_bn"] = {"scale": scale, "bias": bias}
        norms[f"{name}_bn"] = {"mean": np.zeros_like(size), "var": np.ones_like(size)}

    def convolution(ours: str, theirs: str, names: tuple[str, str] = _FOLDED) -> None:
        add(ours, *pair(theirs, names))

    def separable(ours: str, theirs: str, names: tuple[str, str]) -> None:
        kernel, size = _normalized(find(f"{theirs}/{_FILTER}", 4)[..., 0])
        params[f"{ours}_depthwise"] = kernel
        pointwise, bias = pair(theirs, names)
        if pointwise.shape[2] != len(size):
            raise UserError(f"weights: {theirs} has kernels of different widths; fetch them again")
        add(ours, pointwise * size[:, None], bias)

    convolution("backbone/stem", "model/Conv1")
    for block in range(17):
        ours, theirs = f"backbone/block{block}", f"model/block_{block}"
        if block:
            convolution(f"{ours}_expand", f"{theirs}_expand")
        else:
            theirs = "model/expanded_conv"
        kernel, bias = pair(f"{theirs}_depthwise", _FOLDED_DEPTHWISE)
        add(f"{ours}_depthwise", kernel[..., 0], bias)
        convolution(f"{ours}_project", f"{theirs}_project")
    convolution("top", "model/Conv_1")
    for level, suffix in enumerate(("", "_1", "_2", "_3")):
        convolution(f"lateral{level}", f"conv2d{suffix}", _CONV)
    for level, suffix in enumerate(("", "_1", "_2"), start=1):
        separable(f"smooth{level}", f"separable_conv2d{suffix}", _FOLDED_POINTWISE)
    # The layers of the heads are numbered through.
    heads = sorted(name.split("/")[1] for name in tensors if name.startswith("kpt_heatmap_0/"))
    inner = next(
        (name for name in heads if name.startswith("separable_conv2d")), "separable_conv2d"
    )
    outer = next((name for name in heads if name.startswith("conv2d")), "conv2d")
    separable("heatmap", f"kpt_heatmap_0/{inner}", _POINTWISE)
    kernel, bias = pair(f"kpt_heatmap_0/{outer}", _CONV)
    params["conv_out"] = {"kernel": kernel, "bias": bias}
    return {"params": params, "batch_stats": batch_stats}


def _normalized(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(kernel of He-normal size, what it was divided by), by output channel, the last axis.

    A kernel of zeros stays so, divided by 1.
    """
    flat = kernel.reshape(-1, kernel.shape[-1])
    size = np.sqrt((flat.astype(np.float64) ** 2).mean(0) * len(flat) / 2)
    size = np.where(size > 0, size, 1.0).astype(np.float32)
    return kernel / size, size
