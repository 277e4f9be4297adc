"""Reading a trained network from a model file, a run's workdir or a folder of checkpoints."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from rmpe_jax.config import spec_from_dict
from rmpe_jax.config.spec import Spec
from rmpe_jax.errors import UserError
from rmpe_jax.interop.hub import fetch_model, is_hub_name
from rmpe_jax.interop.vitpose import is_vitpose_folder, load_vitpose
from rmpe_jax.model_io.model_file import load_model
from rmpe_jax.object_store import is_address, open_path

WEIGHTS = pathlib.Path(__file__).parents[1] / "weights"  # of the networks that ship
_POSE = {"builtin": "pose.safetensors", "builtin-small": "pose_small.safetensors"}

Which = Literal["best", "last"]


def read_network(
    path: str | os.PathLike,
    what: str,
    checkpoint: Which | None = None,
    *,
    keep_parallel: bool = False,
) -> tuple[Spec, dict[str, Any], dict[str, Any]]:
    """Spec, variables, and all meta data, with a "version".

    Args:
      path: of a model file; of a run's workdir, or a folder of checkpoints in it, also as an
        address such as gs://BUCKET/RUN; of a folder of Hugging Face with a ViTPose; or "builtin",
        the network of that kind in the package, or "builtin-small", the smaller pose network there;
        or the name of a repository, "hf:USER/REPOSITORY", see `interop.hub`.
      what: the kind of network that is wanted, for messages, such as "pose network".
      checkpoint: of a workdir; by default the best if there is one, else the last.
      keep_parallel: keep the variables of a parallel SPPE, which only training uses.

    Raises:
      UserError: there is no network that can be read.
    """
    name = os.fspath(path)
    if name == "builtin" and what == "detector":
        path = WEIGHTS / "detector.safetensors"
    elif name in _POSE:
        path = WEIGHTS / _POSE[name]
    if is_hub_name(name):
        path = fetch_model(name)
    folder = pathlib.Path(path)
    if not is_address(path) and not folder.exists():
        raise UserError(f"{path}: no model there; name a model file or a training run's workdir")
    if is_vitpose_folder(folder):
        spec, variables = load_vitpose(folder)
        return spec, variables, {"version": name if is_hub_name(name) else folder.name}
    if is_hub_name(name) and folder.is_dir():
        raise UserError(f"{name}: it holds neither a ViTPose nor a model file of this project")
    if folder.is_file():
        variables, meta = load_model(path)
        meta["version"] = folder.name
    else:
        # Not imported for model files: Orbax takes seconds to import.
        from rmpe_jax.model_io.checkpoints import checkpoints_in, load_variables

        if is_address(path) and name.endswith(".safetensors"):
            raise UserError(f"{path}: model files are read from folders: copy it to this machine")
        variables, meta = load_variables(checkpoints_in(open_path(path), checkpoint))
        meta["version"] = f"step {meta['step']}"
    try:
        if not keep_parallel:
            variables = {kind: _without_parallel(tree) for kind, tree in variables.items()}
        return spec_from_dict(meta["config"]), variables, meta
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: it has no config of a {what}; name another") from None


def _without_parallel(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        raise UserError("it has an array that belongs to no module of a network; fetch it again")
    return {name: branch for name, branch in tree.items() if name != "parallel_sppe"}
