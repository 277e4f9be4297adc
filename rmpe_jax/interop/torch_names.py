"""Which tensor of a torch checkpoint each of our variables is, and how its axes are turned.

Modules here are named after published checkpoints: an underscore before a digit stands for their
dot, so that `layer2_0/bn1/scale` is `layer2.0.bn1.weight`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from rmpe_jax.errors import UserError

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def from_torch(
    expected: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    *,
    may_lack: str = "",
    may_have: str = "",
) -> dict[str, Any]:
    """Tensors of a state dict in the tree of a Flax module's variables, float32.

    Args:
      expected: `{"params": …, "batch_stats": …}` of arrays or shapes, which the result has too.
      state: tensors by torch's names.
      may_lack: regular expression of torch's names that need not be there; such leaves are left
        out of the result.
      may_have: regular expression of names that have no place in the tree.

    Raises:
      UserError: names are missing or unknown, shapes differ, or a value is not finite.
    """
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(expected))
    keys = {path: torch_key(path[1:]) for path in flat}
    missing = [key for key in keys.values() if key not in state and not _found(may_lack, key)]
    left = set(state).difference(keys.values())
    unknown = [k for k in state if k in left and not _found(may_have, k) and not _counter(k)]
    if missing or unknown:
        parts = [f"lacks {_few(missing)}"] if missing else []
        parts += [f"has {_few(unknown)}, for which there is no place"] if unknown else []
        raise UserError(" and ".join(parts))
    # Views first: in a small file there can be tensors of any size, without strides.
    views = {path: _turned(key, state[key]) for path, key in keys.items() if key in state}
    wrong = [
        f"{keys[path]} ({'x'.join(map(str, state[keys[path]].shape))})"
        for path, view in views.items()
        if view.shape != flat[path].shape
    ]
    if wrong:
        raise UserError(f"has tensors of another size than this network's: {_few(wrong)}")
    arrays = {path: np.array(view, np.float32, order="C") for path, view in views.items()}
    if broken := [keys[path] for path, array in arrays.items() if not np.isfinite(array).all()]:
        raise UserError(f"has values that are not finite in {_few(broken)}")
    return traverse_util.unflatten_dict(arrays)


def torch_key(path: Iterable[str]) -> str:
    """`("layer2_0", "bn1", "scale")` to `layer2.0.bn1.weight`."""
    *modules, leaf = path
    name = re.sub(r"_(\d+)", r".\1", ".".join(modules))
    return f"{name}.{_LEAVES.get(leaf, leaf)}"


def _turned(key: str, tensor: np.ndarray) -> np.ndarray:
    """A view of a tensor in Flax's order of axes.

    Convolutions OIHW to HWIO, matrices transposed. A transposed convolution's IOHW becomes HWIO,
    flipped along both spatial axes: torch scatters with the kernel, `lax.conv_transpose` gathers.
    """
    if tensor.ndim == 4 and "deconv" in key:
        return tensor.transpose(2, 3, 0, 1)[::-1, ::-1]
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _found(pattern: str, key: str) -> bool:
    return bool(pattern) and re.search(pattern, key) is not None


def _counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
