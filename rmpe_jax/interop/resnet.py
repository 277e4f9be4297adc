"""torchvision's ResNets (or files with their names), as initial weights of backbones.

What a pose network's ResNet has beside torchvision's, squeeze-and-excitation and the convolutions
that follow a pixel unshuffle, keeps its random start.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rmpe_jax.interop.torch_names import from_torch

_CLASSIFIER = r"^fc\."
_EPSILON = 1e-5  # of every batch norm


def resnet_variables(
    expected: Mapping[str, Any], state: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """ImageNet weights for `models.resnet.ResNet`, `{"params": …, "batch_stats": …}`.

    Args:
      expected: variables of a `ResNet`, or their shapes; the result lacks what the file does not
        have of its squeeze-and-excitation and pixel unshuffling.
      state: tensors by torchvision's names (`layer1.0.conv1.weight`), as `read_pth` gives them.

    Raises:
      UserError: the file is of another depth, or of another network.
    """
    # In place of a strided 3x3 convolution a shuffling block has one of another shape.
    unshuffling = {"conv1_1", "conv2_1"}
    shuffle = any(unshuffling & set(block) for block in expected["params"].values())
    replaced = r"|^layer[234]\.0\.conv[12]\.weight$" if shuffle else ""
    lacking = r"\.se\.fc\.|\.conv[12]\.1\."
    return from_torch(expected, state, may_lack=lacking, may_have=_CLASSIFIER + replaced)


def localization_variables(
    expected: Mapping[str, Any], state: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """ResNet-18 for `models.localization.ResNet18Localization`, without its layer for theta.

    Its convolutions have biases, which become 0, and its shortcuts no batch norm, so that
    torchvision's are folded into their weights: at the start both compute the same.

    Args:
      expected: variables of the network, or their shapes.
      state: tensors by torchvision's names.

    Raises:
      UserError: the file is of another network.
    """
    renamed = {}
    for name, tensor in state.items():
        if "downsample" not in name and not name.startswith("fc."):
            renamed[_localization_name(name)] = tensor
    for stage in (2, 3, 4):
        renamed |= _folded_shortcut(state, f"layer{stage}.0")
    for name in [name for name in renamed if "conv" in name and name.endswith(".weight")]:
        zeros = np.broadcast_to(np.float32(0), renamed[name].shape[:1])
        renamed.setdefault(name.removesuffix("weight") + "bias", zeros)
    return from_torch(expected, renamed, may_lack=r"^theta\.")


def _localization_name(name: str) -> str:
    """`layer1.0.conv1.weight` to `layer1.0_conv1.weight`, which stands for `layer1_0_conv1`."""
    parts = name.split(".")
    return name if len(parts) < 4 else f"{'.'.join(parts[:2])}_{'.'.join(parts[2:])}"


def _folded_shortcut(state: Mapping[str, np.ndarray], block: str) -> dict[str, np.ndarray]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    names = [f"{block}.downsample.1.{leaf}" for leaf in leaves]
    kernel = state.get(f"{block}.downsample.0.weight")
    if kernel is None or any(name not in state for name in names):
        return {}
    scale, shift, mean, var = (np.asarray(state[name], np.float32) for name in names)
    factor = scale / np.sqrt(var + _EPSILON)
    return {
        f"{block}_shortcut.weight": kernel * factor[:, None, None, None],
        f"{block}_shortcut.bias": shift - mean * factor,
    }
