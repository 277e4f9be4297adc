"""Reading a trained network from a model file, a run's workdir or a folder of checkpoints."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from rmpe_jax.config import spec_from_dict
from rmpe_jax.config.spec import Spec
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import load_model

WEIGHTS = pathlib.Path(__file__).parents[1] / "weights"  # of the networks that ship

Which = Literal["best", "last"]


def read_network(
    path: str | os.PathLike, what: str, checkpoint: Which | None = None
) -> tuple[Spec, dict[str, Any], dict[str, Any]]:
    """Spec, variables without those of a parallel SPPE, and all meta data, with a "version".

    Args:
      path: of a model file; or of a run's workdir, or a folder of checkpoints in it; or "builtin",
        the network that ships with the package.
      what: the kind of network that is wanted, for messages, such as "pose network".
      checkpoint: of a workdir; by default the best if there is one, else the last.

    Raises:
      UserError: there is no network that can be read.
    """
    if path == "builtin":
        path = WEIGHTS / ("detector.safetensors" if what == "detector" else "pose.safetensors")
        if not path.is_file():
            raise UserError(f"no {what} comes with this package: give the path of one")
    folder = pathlib.Path(path)
    if not folder.exists():
        raise UserError(f"{path}: no model there; name a model file or a training run's workdir")
    if folder.is_file():
        variables, meta = load_model(path)
        meta["version"] = folder.name
    else:
        # Not imported for model files: Orbax takes seconds to import.
        from rmpe_jax.model_io.checkpoints import load_variables

        variables, meta = load_variables(_checkpoints(folder, checkpoint))
        meta["version"] = f"step {meta['step']}"
    variables = {kind: _without_parallel(tree) for kind, tree in variables.items()}
    try:
        return spec_from_dict(meta["config"]), variables, meta
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: it has no config of a {what}; name another") from None


def _checkpoints(folder: pathlib.Path, checkpoint: Which | None) -> pathlib.Path:
    """The folder of checkpoints of a workdir, or the folder itself."""
    if checkpoint:
        return folder / {"best": "best", "last": "checkpoints"}[checkpoint]
    for name in ("best", "checkpoints"):
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            return folder / name
    return folder


def _without_parallel(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: branch for name, branch in tree.items() if name != "parallel_sppe"}
