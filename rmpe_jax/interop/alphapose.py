"""Conversion of AlphaPose checkpoints: detects the network and converts its weights.

The architecture is detected from the names and shapes of the tensors, not from a config file,
because published configs and logs disagree. A file does not store the input size, nor the loss,
which determines how heatmaps are decoded. Both default to AlphaPose's defaults.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.interop.pth import read_pth
from rmpe_jax.interop.torch_names import from_torch
from rmpe_jax.models import SPPE_NAMES, build_sppe
from rmpe_jax.models.resnet import NUM_BLOCKS
from rmpe_jax.models.spec import ModelSpec
from rmpe_jax.skeletons import SKELETONS, get_skeleton
from rmpe_jax.skeletons.skeleton import UNNAMED_PREFIX, Skeleton

# ImageNet's mean in the order blue, green, red. AlphaPose subtracts it from red, green, blue.
_MEAN = (0.406, 0.457, 0.480)
# Skeletons by the number of joints, where it names one.
COMMON_SKELETONS = {17: "coco", 16: "mpii", 26: "halpe26", 133: "coco_wholebody", 136: "halpe136"}
_SKELETONS = {**COMMON_SKELETONS, 33: "coco"}  # early networks: COCO's joints, then MPII's
_MAX_JOINTS = 1000
LOSSES = ("mse", "symmetric_integral")


class Checkpoint(NamedTuple):
    """A converted network.

    Attributes:
      spec: the SPPE, and how AlphaPose crops people and decodes heatmaps.
      variables: `{"params": …, "batch_stats": …}`, NumPy float32 arrays.
    """

    spec: ModelSpec
    variables: dict[str, Any]


class Network(NamedTuple):
    """A network whose weights are converted.

    Attributes:
      name: its name for `build_sppe`.
      skeleton: the joints that it finds.
      num_channels: heatmaps in the checkpoint; the skeleton may have only the first of them.
      variables: `{"params": …, "batch_stats": …}`, NumPy float32 arrays.
    """

    name: str
    skeleton: Skeleton
    num_channels: int
    variables: dict[str, Any]


def load_alphapose(
    path: str | os.PathLike,
    *,
    skeleton: str = "",
    input_size: tuple[int, int] = (256, 192),
    loss: str = "",
) -> Checkpoint:
    """Reads FastPose, FastPose-DUC, SimplePose or HRNet from a `.pth` file of AlphaPose.

    Args:
      path: the file. It is read without torch and without pickle, see `pth.read_pth`.
      skeleton: name of the skeleton. By default it follows from the number of joints. A shorter
        skeleton takes the first joints: for example "coco" from Halpe's joints, or from the 33 of
        early networks.
      input_size: (height, width) of the crops that the network was trained on.
      loss: loss that the network was trained with, one of `LOSSES`. By default the symmetric
        integral for 133 or 136 joints of whole bodies, as in most published networks, else the
        MSE.

    Raises:
      UserError: the file is damaged, holds another network, or does not fit the skeleton.
    """
    state = read_pth(path)
    try:
        network = convert_network(state, skeleton, _SKELETONS)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    loss = loss or _default_loss(network.num_channels)
    return Checkpoint(_make_spec(network, input_size, loss), network.variables)


def convert_network(
    state: Mapping[str, np.ndarray], skeleton: str, skeletons: Mapping[int, str]
) -> Network:
    """Detects a network and converts its weights.

    Args:
      state: tensors by their names in AlphaPose's checkpoints.
      skeleton: name of the skeleton, see `load_alphapose`; empty: the default.
      skeletons: default skeletons by the number of joints; others are unnamed.

    Raises:
      UserError: it is another network, or it does not fit the skeleton.
    """
    name, last_layer = _detect_network(state)
    num_channels = state[f"{last_layer}.bias"].size
    target = find_skeleton(num_channels, skeleton, skeletons)
    state = _keep_first_channels(state, last_layer, target.num_keypoints)
    module = build_sppe(name, target.num_keypoints)
    crops = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    expected = jax.eval_shape(module.init, jax.random.key(0), crops)
    return Network(name, target, num_channels, from_torch(expected, state))


def _detect_network(state: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Returns the network's name for `build_sppe` and the name of its last layer."""
    if deformable := [key for key in state if "conv2_offset" in key]:
        raise UserError(
            f"has deformable convolutions ({deformable[0]}), which are not supported; use a "
            "checkpoint without DCN"
        )
    if "duc1.conv.weight" in state:
        name, last_layer = f"fastpose_res{_depth(state)}", "conv_out"
        name += "" if _has_key(state, r"\.se\.fc\.") else "_plain"
        wide = "duc2.conv.weight" in state and state["duc2.conv.weight"].shape[:1] == (1024,)
        name += "_wide" if wide else ""
    elif "duc1.1.weight" in state:
        kind = "se" if _has_key(state, r"\.se\.fc\.") else "plain"
        kind = "shuffle" if _has_key(state, r"\.conv2\.1\.weight") else kind
        name, last_layer = f"fastpose_duc_res{_depth(state)}_{kind}", "conv_out"
    elif "deconv_layers.0.weight" in state:
        name, last_layer = f"simplepose_res{_depth(state)}", "final_layer"
    elif (first := "stage4.0.branches.0.0.conv1.weight") in state:
        width = next(iter(state[first].shape), 0)
        name, last_layer = f"hrnet_w{width}", "final_layer"
    else:
        first = ", ".join(list(state)[:3])
        raise UserError(
            "is not a supported network (FastPose, FastPose-DUC, SimplePose or HRNet of "
            f"AlphaPose); its tensors are {first}, …"
        )
    if name not in SPPE_NAMES:
        raise UserError(f"is {name}, which is not supported; use one of {', '.join(SPPE_NAMES)}")
    required = [f"{last_layer}.weight", f"{last_layer}.bias"]
    if missing := [key for key in required if key not in state]:
        raise UserError(f"lacks {', '.join(missing)}")
    return name, last_layer


def _has_key(state: Mapping[str, np.ndarray], pattern: str) -> bool:
    return any(re.search(pattern, key) for key in state)


def _depth(state: Mapping[str, np.ndarray]) -> int:
    """Returns the depth of the ResNet, from the numbers of its blocks."""
    blocks = {match[0] for key in state if (match := re.match(r"preact\.layer\d\.\d+\.", key))}
    counts = tuple(sum(f".layer{stage}." in block for block in blocks) for stage in (1, 2, 3, 4))
    for depth in (50, 101, 152):
        if NUM_BLOCKS[depth] == counts and "preact.layer1.0.conv3.weight" in state:
            return depth
    raise UserError(
        f"has a ResNet with {', '.join(map(str, counts))} blocks per stage; only the depths 50, "
        "101 and 152 are supported"
    )


def find_skeleton(num_channels: int, name: str, skeletons: Mapping[int, str]) -> Skeleton:
    """Returns the requested skeleton if it fits the channels; without a name, the default one.

    Args:
      num_channels: joints of the network.
      name: of the requested skeleton; empty: the default.
      skeletons: default skeletons by the number of joints; others are unnamed.

    Raises:
      UserError: the requested skeleton has other joints than the first of the network's.
    """
    if num_channels > _MAX_JOINTS:
        raise UserError(f"has {num_channels} channels, too many for joints; use a pose network")
    default = get_skeleton(skeletons.get(num_channels, f"{UNNAMED_PREFIX}{num_channels}"))
    if not name:
        return default
    requested = get_skeleton(name)
    is_prefix = default.joints[: requested.num_keypoints] == requested.joints
    is_unnamed = default.name not in SKELETONS
    if is_prefix or (is_unnamed and requested.num_keypoints == num_channels):
        return requested
    raise UserError(
        f"has {num_channels} joints, and the joints of {name} are not the first of them; leave the "
        "skeleton out or name another"
    )


def _keep_first_channels(
    state: Mapping[str, np.ndarray], last_layer: str, count: int
) -> dict[str, np.ndarray]:
    names = (f"{last_layer}.weight", f"{last_layer}.bias")
    return {**state, **{name: np.atleast_1d(state[name])[:count] for name in names}}


def _default_loss(num_channels: int) -> str:
    return "symmetric_integral" if num_channels in (133, 136) else "mse"


def _make_spec(network: Network, input_size: tuple[int, int], loss: str) -> ModelSpec:
    """AlphaPose's inputs, targets and decoding, from its presets, `SimpleTransform`, test code."""
    return ModelSpec(
        network=network.name,
        skeleton=network.skeleton,
        input_size=input_size,
        padding=1.25,
        mean=_MEAN,
        std=(1.0, 1.0, 1.0),
        loss=loss,
        sigma=2.0,
        integer_center=True,
        decode="quarter" if loss == "mse" else "integral",
        alignment="first_pixel",
        sstn=False,
        localization="small",
    )
