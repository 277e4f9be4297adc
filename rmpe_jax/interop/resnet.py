"""Initial weights of backbones from torchvision's ResNets, or files with the same names.

Squeeze-and-excitation and the convolutions after a pixel unshuffle do not exist in torchvision's
networks and keep their random initialization.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rmpe_jax.interop.torch_names import from_torch

_CLASSIFIER = r"^fc\."
_EPSILON = 1e-5  # of torchvision's batch norms


def resnet_variables(
    expected: Mapping[str, Any], state: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Converts ImageNet weights to the variables of `models.resnet.ResNet`.

    Args:
      expected: variables of a `ResNet`, or their shapes.
      state: tensors by torchvision's names (`layer1.0.conv1.weight`), from `read_pth`.

    Returns:
      `{"params": …, "batch_stats": …}`, without the variables of squeeze-and-excitation and pixel
      unshuffling that the file does not have.

    Raises:
      UserError: the file has another depth or is of another network.
    """
    # A block with pixel unshuffle replaces the strided 3x3 convolution by one of another shape.
    unshuffle_convs = {"conv1_1", "conv2_1"}
    has_unshuffle = any(unshuffle_convs & set(block) for block in expected["params"].values())
    replaced = r"|^layer[234]\.0\.conv[12]\.weight$" if has_unshuffle else ""
    not_in_torchvision = r"\.se\.fc\.|\.conv[12]\.1\."
    return from_torch(expected, state, optional=not_in_torchvision, ignored=_CLASSIFIER + replaced)


def localization_variables(
    expected: Mapping[str, Any], state: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Converts a ResNet-18 to the variables of `models.localization.ResNet18Localization`.

    The localization network has biases in its convolutions, which become 0, and no batch norms in
    its shortcuts, so torchvision's are folded into the weights. The features stay the same.

    Args:
      expected: variables of the localization network, or their shapes.
      state: tensors by torchvision's names.

    Returns:
      `{"params": …, "batch_stats": …}`, without the layer `theta`.

    Raises:
      UserError: the file is of another network.
    """
    renamed = {}
    for name, tensor in state.items():
        if "downsample" not in name and not name.startswith("fc."):
            renamed[_localization_name(name)] = tensor
    for stage in (2, 3, 4):
        renamed |= _fold_shortcut_norm(state, f"layer{stage}.0")
    for name in [name for name in renamed if "conv" in name and name.endswith(".weight")]:
        zeros = np.broadcast_to(np.float32(0), renamed[name].shape[:1])
        renamed.setdefault(name.removesuffix("weight") + "bias", zeros)
    return from_torch(expected, renamed, optional=r"^theta\.")


def _localization_name(name: str) -> str:
    """Renames `layer1.0.conv1.weight` to `layer1.0_conv1.weight`, for `layer1_0_conv1`."""
    parts = name.split(".")
    return name if len(parts) < 4 else f"{'.'.join(parts[:2])}_{'.'.join(parts[2:])}"


def _fold_shortcut_norm(state: Mapping[str, np.ndarray], block: str) -> dict[str, np.ndarray]:
    """Returns the shortcut's convolution with its batch norm folded in; {} without a shortcut."""
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
