"""Names and axis orders of variables in torch checkpoints and in Flax.

Flax modules are named after published checkpoints. An underscore before a digit stands for a dot:
`layer2_0/bn1/scale` is `layer2.0.bn1.weight`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from rmpe_jax.errors import UserError

_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def from_torch(
    expected: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    *,
    optional: str = "",
    ignored: str = "",
) -> dict[str, Any]:
    """Converts the tensors of a torch state dict to the variables of a Flax module.

    Args:
      expected: `{"params": …, "batch_stats": …}` of arrays or shapes.
      state: tensors by their torch names.
      optional: regular expression for torch names that may be missing. Their variables are left out
        of the result.
      ignored: regular expression for torch names that have no variable in `expected`.

    Returns:
      The variables in the structure of `expected`, as float32 arrays.

    Raises:
      UserError: names are missing or unknown, shapes differ, or values are not finite.
    """
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(expected))
    keys = {path: torch_key(path[1:]) for path in flat}
    missing = [key for key in keys.values() if key not in state and not _matches(optional, key)]
    unused = set(state).difference(keys.values())
    unknown = [
        key
        for key in state
        if key in unused and not _matches(ignored, key) and not _is_batch_counter(key)
    ]
    if missing or unknown:
        parts = [f"lacks {_shorten(missing)}"] if missing else []
        parts += [f"has {_shorten(unknown)}, unknown to this network"] if unknown else []
        raise UserError(" and ".join(parts))
    # Compare shapes before copying: tensors with stride 0 can be huge even in a small file.
    views = {path: _in_flax_layout(key, state[key]) for path, key in keys.items() if key in state}
    wrong = [
        f"{keys[path]} ({'x'.join(map(str, state[keys[path]].shape))})"
        for path, view in views.items()
        if view.shape != flat[path].shape
    ]
    if wrong:
        raise UserError(f"has tensors whose size differs from this network's: {_shorten(wrong)}")
    arrays = {path: np.array(view, np.float32, order="C") for path, view in views.items()}
    if not_finite := [keys[path] for path, array in arrays.items() if not np.isfinite(array).all()]:
        raise UserError(f"has values that are not finite in {_shorten(not_finite)}")
    return traverse_util.unflatten_dict(arrays)


def torch_key(path: Iterable[str]) -> str:
    """Converts the path of a variable, `("layer2_0", "bn1", "scale")`, to `layer2.0.bn1.weight`."""
    *modules, leaf = path
    name = re.sub(r"_(\d+)", r".\1", ".".join(modules))
    return f"{name}.{_LEAF_NAMES.get(leaf, leaf)}".removeprefix(".")


def _in_flax_layout(key: str, tensor: np.ndarray) -> np.ndarray:
    """Returns a view of a tensor in Flax's order of axes.

    Convolutions change from OIHW to HWIO, and matrices are transposed. Transposed convolutions
    change from IOHW to HWIO and are flipped along both spatial axes, because torch scatters with
    the kernel and `lax.conv_transpose` gathers.
    """
    if tensor.ndim == 4 and "deconv" in key:
        return tensor.transpose(2, 3, 0, 1)[::-1, ::-1]
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    return tensor.T if tensor.ndim == 2 else tensor


def _matches(pattern: str, key: str) -> bool:
    return bool(pattern) and re.search(pattern, key) is not None


def _is_batch_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
