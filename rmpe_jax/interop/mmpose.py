"""Conversion of MMPose's checkpoints, of versions 0.x and 1.x.

MMPose names the tensors of HRNet and SimpleBaseline like AlphaPose, with other prefixes. A file has
neither the input size nor the codec, which says what heatmaps mean. Both default to those of most
configs. A ViTPose and an RTMPose have only one codec each.
"""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.interop.alphapose import COMMON_SKELETONS, Checkpoint, convert_network
from rmpe_jax.interop.pth import read_pth
from rmpe_jax.interop.rtmpose import convert_rtmpose, is_rtmpose
from rmpe_jax.interop.vitpose import load_vitpose
from rmpe_jax.models.spec import ModelSpec

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HRNET, _RESNET = "backbone.stage4.0.branches.0.0.conv1.weight", "backbone.layer4.0.conv1.weight"
_VITPOSE = "backbone.pos_embed"


class Codec(NamedTuple):
    """A codec of MMPose in the terms of `HeatmapCodec`."""

    alignment: str
    decode: str
    integer_center: bool


CODECS = {
    "msra": Codec("first_pixel", "quarter", integer_center=True),
    "dark": Codec("first_pixel", "dark", integer_center=False),
    "udp": Codec("udp", "dark_udp", integer_center=False),
}


def load_mmpose(
    path: str | os.PathLike,
    *,
    skeleton: str = "",
    input_size: tuple[int, int] | None = None,
    codec: str = "",
) -> Checkpoint:
    """Reads HRNet, SimpleBaseline, ViTPose or RTMPose from a `.pth` file of MMPose 0.x or 1.x.

    Weights that were averaged in training (EMA) are used as such: MMPose stores them under the
    ordinary names, and those before averaging under `ema_…`, which are left out.

    Args:
      path: the file. It is read without torch and without pickle, see `pth.read_pth`.
      skeleton: name of the skeleton. By default it follows from the number of joints. A shorter
        skeleton takes the first joints: for example "coco" from whole bodies.
      input_size: (height, width) of the crops that the network was trained on. By default
        (256, 192); that of the checkpoint for a ViTPose and an RTMPose.
      codec: of the training, one of `CODECS`. By default "msra"; a ViTPose always has "udp", and an
        RTMPose none of them, but SimCC.

    Raises:
      UserError: the file is damaged, holds another network, or does not fit the arguments.
    """
    if codec and codec not in CODECS:
        raise UserError(f"codec {codec!r}: use one of {', '.join(CODECS)}")
    state = read_pth(path)
    if _VITPOSE in state:
        if codec not in ("", "udp"):
            raise UserError(f"{path}: is a ViTPose, whose codec is udp: leave the codec out")
        return load_vitpose(path, skeleton=skeleton, input_size=input_size)
    if is_rtmpose(state) and codec:
        raise UserError(f"{path}: is an RTMPose, whose codec is SimCC: leave the codec out")
    try:
        if is_rtmpose(state):
            return convert_rtmpose(state, skeleton=skeleton, input_size=input_size)
        network = convert_network(_alphapose_names(state), skeleton, COMMON_SKELETONS)
        if not skeleton:
            _refuse_offsets(network.num_channels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    input_size = input_size or (256, 192)
    alignment, decode, integer_center = CODECS[codec or "msra"]
    spec = ModelSpec(
        network=network.name,
        skeleton=network.skeleton,
        input_size=input_size,
        padding=1.25,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        loss="mse",
        # 3 as in MMPose's td-hm_hrnet-w48_8xb32-210e_coco-384x288.py
        sigma=3.0 if input_size == (384, 288) else 2.0,
        integer_center=integer_center,
        decode=decode,
        alignment=alignment,
        sstn=False,
        localization="small",
    )
    return Checkpoint(spec, network.variables)


def _alphapose_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors by their names in AlphaPose's checkpoints."""
    if simcc := [name for name in state if re.match(r"head\.(cls|mlp_head)_x\.", name)]:
        raise UserError(
            f"has no heatmaps but SimCC ({simcc[0]}) and is no RTMPose, which is not supported; "
            "use an RTMPose or a network with heatmaps"
        )
    if _HRNET not in state and _RESNET not in state:
        first = ", ".join(list(state)[:3])
        raise UserError(
            "is not a supported network (HRNet, SimpleBaseline, ViTPose or RTMPose of MMPose); its "
            f"tensors are {first}, …"
        )
    backbone = "" if _HRNET in state else "preact."
    renamed = {}
    for name, tensor in state.items():
        if not name.startswith("ema_"):
            name = re.sub(r"^(keypoint_)?head\.", "", name)
            renamed[re.sub(r"^backbone\.", backbone, name)] = tensor
    return renamed


def _refuse_offsets(num_channels: int) -> None:
    """Raises UserError if channels are probably those of UDP with offsets, three per joint."""
    if num_channels % 3 == 0 and num_channels // 3 in COMMON_SKELETONS:
        raise UserError(
            f"has {num_channels} channels, probably heatmaps and offsets of {num_channels // 3} "
            "joints (UDP's combined targets), which are not supported; name the skeleton if they "
            "are heatmaps"
        )
