"""AlphaPose's checkpoints: which network one is of, and its weights as our variables.

The architecture is read off the names and shapes of the tensors, not off a config file, because
published configs and logs disagree. What a file cannot tell has AlphaPose's defaults: the size of
the input, and the loss, which says how heatmaps are read.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.interop.pth import read_pth
from rmpe_jax.interop.torch_names import from_torch
from rmpe_jax.models import SPPE_NAMES, build_sppe
from rmpe_jax.models.resnet import NUM_BLOCKS
from rmpe_jax.skeletons import SKELETONS, get_skeleton
from rmpe_jax.skeletons.skeleton import UNNAMED, Skeleton

# ImageNet's mean in the order of blue, green, red, which AlphaPose subtracts from red, green, blue.
_MEAN = (0.406, 0.457, 0.480)
_SKELETONS = {17: "coco", 16: "mpii", 26: "halpe26", 133: "coco_wholebody", 136: "halpe136"}
_COCO_AND_MPII = 33  # channels of early networks: COCO's joints, then MPII's
_MOST_JOINTS = 1000
LOSSES = ("mse", "symmetric_integral")


class Checkpoint(NamedTuple):
    """A converted network.

    Attributes:
      module: an SPPE, `build_sppe(config.model.name, num_keypoints)`.
      variables: `{"params": …, "batch_stats": …}`, NumPy float32.
      config: the keys of a run's config that the checkpoint decides: model, codec, data.padding.
    """

    module: nn.Module
    variables: dict[str, Any]
    config: ml_collections.ConfigDict


def load_alphapose(
    path: str | os.PathLike,
    *,
    skeleton: str = "",
    input_size: tuple[int, int] = (256, 192),
    loss: str = "",
) -> Checkpoint:
    """Reads FastPose, FastPose-DUC, SimplePose or HRNet-W32 from a `.pth` file of AlphaPose.

    Args:
      path: of the file; neither torch nor pickle is used, see `pth.read_pth`.
      skeleton: of the joints, if their number does not tell it; a shorter one takes the first
        joints, as "coco" does of Halpe's or of the 33 of early networks.
      input_size: (height, width) of the crops that the network was trained on.
      loss: it was trained with, one of `LOSSES`. By default the symmetric integral for the 133 and
        136 joints of whole bodies, as most of the published ones, and the MSE for others.

    Raises:
      UserError: the file is damaged, or no such network, or of other joints than the skeleton.
    """
    state = read_pth(path)
    try:
        name, head = _network(state)
        total = state[f"{head}.bias"].size
        joints = _skeleton(total, skeleton)
        state = _first_joints(state, head, joints.num_keypoints)
        module = build_sppe(name, joints.num_keypoints)
        crops = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
        expected = jax.eval_shape(module.init, jax.random.key(0), crops)
        variables = from_torch(expected, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    config = _config(name, joints.name, input_size, loss or _default_loss(total))
    return Checkpoint(module, variables, config)


def _network(state: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """The name of the network, as for `build_sppe`, and of its last layer."""
    if deformable := [key for key in state if "conv2_offset" in key]:
        raise UserError(
            f"has deformable convolutions ({deformable[0]}), which no network here has; use a "
            "checkpoint without DCN"
        )
    if "duc1.conv.weight" in state:
        name, head = f"fastpose_res{_depth(state)}", "conv_out"
        name += "" if _has(state, r"\.se\.fc\.") else "_plain"
        wide = "duc2.conv.weight" in state and state["duc2.conv.weight"].shape[:1] == (1024,)
        name += "_wide" if wide else ""
    elif "duc1.1.weight" in state:
        kind = "se" if _has(state, r"\.se\.fc\.") else "plain"
        kind = "shuffle" if _has(state, r"\.conv2\.1\.weight") else kind
        name, head = f"fastpose_duc_res{_depth(state)}_{kind}", "conv_out"
    elif "deconv_layers.0.weight" in state:
        name, head = f"simplepose_res{_depth(state)}", "final_layer"
    elif "stage4.0.branches.0.0.conv1.weight" in state:
        name, head = "hrnet_w32", "final_layer"
    else:
        first = ", ".join(list(state)[:3])
        raise UserError(
            "is none of FastPose, FastPose-DUC, SimplePose and HRNet, the networks of AlphaPose "
            f"that are built here: its tensors are {first}, …"
        )
    if name not in SPPE_NAMES:
        raise UserError(f"is {name}, which is not built here")
    if missing := [
        f"{head}.{leaf}" for leaf in ("weight", "bias") if f"{head}.{leaf}" not in state
    ]:
        raise UserError(f"lacks {', '.join(missing)}")
    return name, head


def _has(state: Mapping[str, np.ndarray], pattern: str) -> bool:
    return any(re.search(pattern, key) for key in state)


def _depth(state: Mapping[str, np.ndarray]) -> int:
    """Of the ResNet, by the number of its blocks."""
    blocks = {match[0] for key in state if (match := re.match(r"preact\.layer\d\.\d+\.", key))}
    counts = tuple(sum(f".layer{stage}." in block for block in blocks) for stage in (1, 2, 3, 4))
    for depth in (50, 101, 152):
        if NUM_BLOCKS[depth] == counts and "preact.layer1.0.conv3.weight" in state:
            return depth
    raise UserError(
        f"has a ResNet of {', '.join(map(str, counts))} blocks a stage, which is none of the "
        "depths 50, 101 and 152"
    )


def _skeleton(total: int, name: str) -> Skeleton:
    """What the `total` channels are, as far as it was asked for."""
    if total > _MOST_JOINTS:
        raise UserError(f"has {total} channels, which cannot be joints")
    if total == _COCO_AND_MPII:
        whole = get_skeleton("coco")
    else:
        whole = get_skeleton(_SKELETONS.get(total, f"{UNNAMED}{total}"))
    if not name:
        return whole
    wanted = get_skeleton(name)
    first = whole.joints[: wanted.num_keypoints] == wanted.joints
    nameless = whole.name not in SKELETONS
    if first or (nameless and wanted.num_keypoints == total):
        return wanted
    raise UserError(
        f"has {total} joints, of which those of {name} are not the first; go without the skeleton, "
        "or name another"
    )


def _first_joints(state: Mapping[str, np.ndarray], head: str, count: int) -> dict[str, np.ndarray]:
    names = (f"{head}.weight", f"{head}.bias")
    return {**state, **{name: np.atleast_1d(state[name])[:count] for name in names}}


def _default_loss(total: int) -> str:
    return "symmetric_integral" if total in (133, 136) else "mse"


def _config(
    name: str, skeleton: str, input_size: tuple[int, int], loss: str
) -> ml_collections.ConfigDict:
    """AlphaPose's inputs, targets and decoding: its presets, `SimpleTransform` and test code."""
    return ml_collections.ConfigDict(
        {
            "model": {
                "name": name,
                "skeleton": skeleton,
                "input_size": tuple(input_size),
                "dtype": "float32",
                "mean": _MEAN,
                "std": (1.0, 1.0, 1.0),
            },
            "codec": {
                "loss": loss,
                "sigma": 2.0,
                "integer_centre": True,
                "decode": "quarter" if loss == "mse" else "integral",
                "alignment": "first_pixel",
            },
            "data": {"padding": 1.25},
        }
    )
