"""A pose network as a file that other programs run, and a JSON that says how to use it."""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.errors import UserError
from rmpe_jax.files import atomic_write, write_json
from rmpe_jax.interop.stablehlo import PLATFORMS, to_stablehlo
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.models.folding import fold_batch_norm
from rmpe_jax.skeletons.skeleton import UNNAMED_PREFIX

FORMATS = ("stablehlo", "onnx")
# What a file computes, and the names of what comes out.
FUNCTIONS = {"heatmaps": ("heatmaps",), "keypoints": ("keypoints", "scores")}
_INPUT = "crops"
_MEANINGS = {
    "heatmaps": "for each joint a map that is high where it is",
    "keypoints": "(x, y) pixels of the crop, pixel centres at integers",
    "scores": "of the keypoints, from 0 to 1",
}


def export_model(
    model: PoseModel,
    out: str | os.PathLike,
    to: str,
    *,
    function: str = "heatmaps",
    channels_first: bool = False,
) -> dict[str, Any]:
    """Writes `out`, and `out` + ".json" with names, sizes, normalisation and joints.

    Args:
      model: a trained network; its batch norms are folded into its convolutions.
      out: the file.
      to: one of `FORMATS`. ONNX models compute in float32, whatever the config says.
      function: "heatmaps" takes normalised crops (b, H, W, 3); "keypoints" takes RGB bytes, and has
        normalisation and decoding inside.
      channels_first: ONNX only: crops and heatmaps are (b, c, h, w).

    Returns:
      What the JSON says.

    Raises:
      UserError: the network cannot be exported so, or the files cannot be written.
    """
    if channels_first and to != "onnx":
        raise UserError("StableHLO files take (b, h, w, c): leave out --channels-first")
    run, codec = pose_function(model, function, "float32" if to == "onnx" else None)
    dtype = np.dtype(np.float32 if function == "heatmaps" else np.uint8)
    about = _about(model, codec, to, function, channels_first, _shapes(run, codec, dtype))
    shape = (*codec.input_size, 3)
    if to == "stablehlo":
        data = to_stablehlo(run, shape, dtype)
    else:
        data = _onnx_bytes(run, shape, dtype, function, channels_first, about)
    with atomic_write(out, "wb") as file:
        file.write(data)
    write_json(f"{out}.json", about)
    return about


def pose_function(
    model: PoseModel, function: str, dtype: str | None = None
) -> tuple[Callable[[jax.Array], Any], HeatmapCodec]:
    """The function of crops that a file computes, and the codec of the network.

    Args:
      model: a trained network.
      function: one of `FUNCTIONS`, see `export_model`.
      dtype: precision of the arithmetic, by default the config's.
    """
    spec = dataclasses.replace(model.spec, dtype=dtype or model.spec.dtype)
    module, codec = model._replace(spec=spec).build()
    network, variables = fold_batch_norm(module, model.variables, codec.input_size)

    def heatmaps(crops: jax.Array) -> jax.Array:
        return codec.heatmaps(network.apply(variables, crops))

    def keypoints(crops: jax.Array) -> tuple[jax.Array, jax.Array]:
        return codec.keypoints(heatmaps(codec.inputs(crops)))

    return {"heatmaps": heatmaps, "keypoints": keypoints}[function], codec


def _shapes(run: Callable, codec: HeatmapCodec, dtype: np.dtype) -> list[tuple[int, ...]]:
    """Of the crops and of what comes out, without the batch."""
    crops = jax.ShapeDtypeStruct((1, *codec.input_size, 3), dtype)
    return [leaf.shape[1:] for leaf in (crops, *jax.tree.leaves(jax.eval_shape(run, crops)))]


def _onnx_bytes(
    run: Callable, shape: tuple, dtype: np.dtype, function: str, channels_first: bool, about: dict
) -> bytes:
    try:
        from rmpe_jax.interop.onnx_export import to_onnx
    except ImportError as error:
        raise UserError(
            f"to ONNX: {error}; install the extra export: pip install 'rmpe_jax[export]'"
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


def _about(
    model: PoseModel,
    codec: HeatmapCodec,
    to: str,
    function: str,
    channels_first: bool,
    shapes: list[tuple[int, ...]],
) -> dict[str, Any]:
    skeleton, bytes_in = model.spec.skeleton, function == "keypoints"
    given, *results = (_axes(shape, channels_first) for shape in shapes)
    about = {
        "format": to,
        "function": function,
        "network": model.spec.network,
        "input": {
            "name": _INPUT,
            **given,
            "dtype": "uint8" if bytes_in else "float32",
            "values": "RGB" if bytes_in else "(RGB / 255 - mean) / std",
        },
        "outputs": [
            {"name": name, **result, "dtype": "float32", "values": _MEANINGS[name]}
            for name, result in zip(FUNCTIONS[function], results, strict=True)
        ],
        "mean": list(codec.mean),
        "std": list(codec.std),
        "crop_padding": model.spec.padding,
        "heatmap_from_crop": np.asarray(codec.heatmap_from_crop).tolist(),
        "decode": codec.decode,
        "skeleton": skeleton.name,
        "joints": list(skeleton.joints),
    }
    if not skeleton.name.startswith(UNNAMED_PREFIX):
        about["flip_indices"] = skeleton.flip_indices.tolist()
    return about | ({"platforms": list(PLATFORMS)} if to == "stablehlo" else {})


def _axes(shape: tuple[int, ...], channels_first: bool) -> dict[str, Any]:
    if channels_first and len(shape) == 3:
        return {"shape": ["batch", shape[2], *shape[:2]], "axes": "bchw"}
    return {"shape": ["batch", *shape], "axes": {3: "bhwc", 2: "bkx", 1: "bk"}[len(shape)]}
