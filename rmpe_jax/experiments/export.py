"""Exports a pose network to a file that other software runs, and a JSON file that describes it."""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.errors import UserError
from rmpe_jax.files import atomic_write, write_json
from rmpe_jax.interop.stablehlo import PLATFORMS, to_stablehlo
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.skeletons.skeleton import UNNAMED_PREFIX

FORMATS = ("stablehlo", "onnx")
# What a file can compute, and the names of its outputs.
FUNCTIONS = {"heatmaps": ("heatmaps",), "keypoints": ("keypoints", "scores")}
_INPUT = "crops"
_MEANINGS = {
    "heatmaps": "one map per joint, with its maximum at the joint",
    "keypoints": "(x, y) crop pixels, pixel centers at integers",
    "scores": "of the keypoints, from 0 to 1",
}


def export_model(
    model: PoseModel,
    out: str | os.PathLike,
    format: str,
    *,
    function: str = "heatmaps",
    channels_first: bool = False,
) -> dict[str, Any]:
    """Writes `out`, and `out` + ".json" with names, sizes, normalization and joints.

    Args:
      model: a trained network. Its batch norms are folded into its convolutions.
      out: the file to write.
      format: one of `FORMATS`. ONNX models compute in float32, whatever `config.model.dtype` is.
      function: "heatmaps" takes normalized crops (b, h, w, 3); "keypoints" takes crops of RGB bytes
        and includes normalization and decoding.
      channels_first: ONNX only: crops and heatmaps are (b, c, h, w).

    Returns:
      The content of the JSON file.

    Raises:
      UserError: the network cannot be exported like this, or the files cannot be written.
    """
    if channels_first and format != "onnx":
        raise UserError("StableHLO files take (b, h, w, c): leave out --channels-first")
    run, codec = pose_function(model, function, "float32" if format == "onnx" else None)
    dtype = np.dtype(np.float32 if function == "heatmaps" else np.uint8)
    about = _describe(model, codec, format, function, channels_first, _shapes(run, codec, dtype))
    shape = (*codec.input_size, 3)
    if format == "stablehlo":
        data = to_stablehlo(run, shape, dtype)
    else:
        data = _onnx_bytes(run, shape, dtype, function, channels_first, about)
    with atomic_write(out, "wb") as file:
        file.write(data)
    write_json(f"{out}.json", about)
    return about


def pose_function(
    model: PoseModel, function: str, dtype: str | None = None
) -> tuple[Callable[[jax.Array], Any], PoseCodec]:
    """The function that a file computes, and the codec of the network.

    Args:
      model: a trained network.
      function: one of `FUNCTIONS`, see `export_model`.
      dtype: precision of the arithmetic; by default that of the model.

    Returns:
      A function of a batch of crops, and the codec.

    Raises:
      UserError: "heatmaps" of a network without them.
    """
    if function == "heatmaps" and not model.spec.has_heatmaps:
        raise UserError(f"{model.spec.network} has no heatmaps: use --function=keypoints")
    spec = dataclasses.replace(model.spec, dtype=dtype or model.spec.dtype)
    if function == "heatmaps":
        spec = dataclasses.replace(spec, sstn_decode="crop")  # heatmaps are those of the crop
    network, variables, codec = model._replace(spec=spec).fold()

    def maps(crops: jax.Array) -> Any:
        return codec.maps(network.apply(variables, crops))

    def keypoints(crops: jax.Array) -> tuple[jax.Array, jax.Array]:
        return codec.keypoints(maps(codec.inputs(crops)))

    return {"heatmaps": maps, "keypoints": keypoints}[function], codec


def _shapes(run: Callable, codec: PoseCodec, dtype: np.dtype) -> list[tuple[int, ...]]:
    """Shapes of the crops and of the outputs, without the batch axis."""
    crops = jax.ShapeDtypeStruct((1, *codec.input_size, 3), dtype)
    return [leaf.shape[1:] for leaf in (crops, *jax.tree.leaves(jax.eval_shape(run, crops)))]


def _onnx_bytes(
    run: Callable, shape: tuple, dtype: np.dtype, function: str, channels_first: bool, about: dict
) -> bytes:
    try:
        from rmpe_jax.interop.onnx_export import to_onnx
    except ImportError as error:
        raise UserError(
            f"ONNX export: {error}; install the extra: pip install 'rmpe_jax[export]'"
        ) from error
    model = to_onnx(
        run,
        shape,
        dtype,
        input_name=_INPUT,
        output_names=FUNCTIONS[function],
        channels_first=channels_first,
        metadata={"rmpe_jax": json.dumps(about)},
    )
    return model.SerializeToString()


def _describe(
    model: PoseModel,
    codec: PoseCodec,
    format: str,
    function: str,
    channels_first: bool,
    shapes: list[tuple[int, ...]],
) -> dict[str, Any]:
    skeleton, takes_bytes = model.spec.skeleton, function == "keypoints"
    crops, *outputs = (_axes(shape, channels_first) for shape in shapes)
    about = {
        "format": format,
        "function": function,
        "network": model.spec.network,
        "input": {
            "name": _INPUT,
            **crops,
            "dtype": "uint8" if takes_bytes else "float32",
            "values": "RGB" if takes_bytes else "(RGB / 255 - mean) / std",
        },
        "outputs": [
            {"name": name, **output, "dtype": "float32", "values": _MEANINGS[name]}
            for name, output in zip(FUNCTIONS[function], outputs, strict=True)
        ],
        "mean": list(codec.mean),
        "std": list(codec.std),
        "crop_padding": model.spec.padding,
        "crop_udp": model.spec.crop.udp,
        **_decoding(codec),
        "skeleton": skeleton.name,
        "joints": list(skeleton.joints),
    }
    if not skeleton.name.startswith(UNNAMED_PREFIX):
        about["flip_indices"] = skeleton.flip_indices.tolist()
    return about | ({"platforms": list(PLATFORMS)} if format == "stablehlo" else {})


def _decoding(codec: PoseCodec) -> dict[str, Any]:
    if not isinstance(codec, HeatmapCodec):
        return {"decode": "simcc"}
    affine = np.asarray(codec.heatmap_from_crop).tolist()
    return {"heatmap_from_crop": affine, "decode": codec.decode}


def _axes(shape: tuple[int, ...], channels_first: bool) -> dict[str, Any]:
    if channels_first and len(shape) == 3:
        return {"shape": ["batch", shape[2], *shape[:2]], "axes": "bchw"}
    return {"shape": ["batch", *shape], "axes": {3: "bhwc", 2: "bkx", 1: "bk"}[len(shape)]}
