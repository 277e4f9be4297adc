"""Conversion of MMPose's RTMPose checkpoints.

The tensors tell the size of the network, the number of joints and the input size.
"""

import re
from collections.abc import Mapping

import jax
import numpy as np

from rmpe_jax.codecs.simcc import BINS_PER_PIXEL
from rmpe_jax.errors import UserError
from rmpe_jax.interop.alphapose import COMMON_SKELETONS, Checkpoint, find_skeleton
from rmpe_jax.interop.torch_names import from_torch
from rmpe_jax.models import build_sppe
from rmpe_jax.models.spec import ModelSpec

_STEM, _OUTPUT = "backbone.stem.2.conv.weight", "head.final_layer.weight"
_GATED = "head.gau.uv.weight"
_NETWORKS = {24: "rtmpose_t", 32: "rtmpose_s", 48: "rtmpose_m", 64: "rtmpose_l"}  # by the stem
_NOT_USED = re.compile(r"ema_|data_preprocessor\.")


def is_rtmpose(state: Mapping[str, np.ndarray]) -> bool:
    """Whether tensors are those of an RTMPose, by their names."""
    return all(name in state for name in (_STEM, _OUTPUT, _GATED))


def convert_rtmpose(
    state: Mapping[str, np.ndarray],
    *,
    skeleton: str = "",
    input_size: tuple[int, int] | None = None,
) -> Checkpoint:
    """Converts an RTMPose-t, -s, -m or -l.

    Args:
      state: tensors by their names in MMPose 1.x, for which `is_rtmpose` holds.
      skeleton: name of the skeleton. By default it follows from the number of joints.
      input_size: (height, width) of the crops, if it should be checked; the last layers fix it.

    Raises:
      UserError: it is another network, or does not fit the arguments.
    """
    state = {_our_name(name): tensor for name, tensor in state.items() if not _NOT_USED.match(name)}
    if (width := _rows(state, _STEM)) not in _NETWORKS:
        raise UserError(f"is an RTMPose with {width} channels in its stem, none of t, s, m and l")
    height, width = (
        _rows(state, f"head.cls_{axis}.weight") // BINS_PER_PIXEL for axis in ("y", "x")
    )
    if input_size not in (None, (height, width)):
        raise UserError(
            f"is an RTMPose for crops of {height}x{width}, which its last layers fix: leave the "
            "input size out"
        )
    count = _rows(state, _OUTPUT)
    joints = find_skeleton(count, skeleton, COMMON_SKELETONS)
    if joints.num_keypoints != count:
        raise UserError(
            f"is an RTMPose for {count} joints, which attend to each other, so none can be left "
            "out: name a skeleton with all of them"
        )
    name = _NETWORKS[_rows(state, _STEM)]
    crops = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    expected = jax.eval_shape(build_sppe(name, count).init, jax.random.key(0), crops)
    spec = ModelSpec(
        network=name,
        skeleton=joints,
        input_size=(height, width),
        padding=1.25,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        # Of heatmaps; a config needs their defaults.
        loss="mse",
        sigma=2.0,
        integer_center=False,
        decode="dark",
        alignment="center",
        sstn=False,
        localization="small",
    )
    return Checkpoint(spec, from_torch(expected, state))


def _our_name(name: str) -> str:
    return name.replace(".res_scale.scale", ".res_scale")


def _rows(state: Mapping[str, np.ndarray], name: str) -> int:
    """The length of a tensor's first axis; 0 if there is none."""
    return next(iter(state[name].shape), 0) if name in state else 0
