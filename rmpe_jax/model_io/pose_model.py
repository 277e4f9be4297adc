"""A trained pose network with all that using it takes: from a run's checkpoints, or from a file."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import ml_collections

from rmpe_jax.codecs.poses import Codec
from rmpe_jax.config import default_config, validate
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import check_variables, load_model, save_model
from rmpe_jax.pose_nms import PoseNmsParams, params_from_dict, params_to_dict
from rmpe_jax.skeletons import Skeleton, get_skeleton
from rmpe_jax.training.checkpoints import load_variables
from rmpe_jax.training.state import build_network

# What inference needs of a config; the rest is about training, and may name folders.
_KEPT = {
    "model": ("task", "name", "skeleton", "input_size", "dtype", "mean", "std"),
    "sstn": ("enabled", "localization"),
    "codec": ("loss", "sigma", "integer_centre", "decode", "alignment"),
    "data": ("padding",),
}
_BUILTIN = pathlib.Path(__file__).parents[1] / "weights" / "pose.safetensors"


class PoseModel(NamedTuple):
    """A trained pose network.

    Attributes:
      config: as in `training.config`; what concerns training alone has its defaults.
      variables: of the network.
      nms: parameters of pose NMS that were learned on its poses, or None.
    """

    config: ml_collections.ConfigDict
    variables: dict[str, Any]
    nms: PoseNmsParams | None = None

    @property
    def skeleton(self) -> Skeleton:
        """The joints it finds."""
        return get_skeleton(self.config.model.skeleton)

    def build(self) -> tuple[nn.Module, Codec]:
        """The network and its codec, as `training.state.build_network` makes them.

        Raises:
          UserError: config and variables do not belong together.
        """
        model, codec = build_network(self.config)
        if not isinstance(codec, Codec):
            raise UserError(f"{self.config.model.name} is a detector: name a pose network")
        check_variables(model, self.variables, codec.input_size, self.config.model.name)
        return model, codec


def load_pose_model(path: str | os.PathLike) -> PoseModel:
    """The network of a file, of a run, or the one that comes with the package.

    Args:
      path: of `save_pose_model`'s file; or of a run's workdir (its best checkpoint if there is one,
        else the last), or a folder of checkpoints in it; or "builtin".

    Raises:
      UserError: there is no pose network that can be read.
    """
    if path == "builtin":
        path = _BUILTIN
        if not path.is_file():
            raise UserError("no pose network comes with this package: give one (--model=PATH)")
    folder = pathlib.Path(path)
    if not folder.exists():
        raise UserError(f"{path}: no model there; name a model file or a training run's workdir")
    variables, meta = load_model(path) if folder.is_file() else load_variables(_newest(folder))
    variables = {kind: _without_parallel(tree) for kind, tree in variables.items()}
    try:
        config = _config_of(meta["config"])
        validate(config)
        nms = params_from_dict(meta["pose_nms"]) if meta.get("pose_nms") else None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: it has no config of a pose network; name another") from None
    return PoseModel(config, variables, nms)


def save_pose_model(
    path: str | os.PathLike,
    model: PoseModel,
    *,
    half: bool = False,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a network as one file; see `model_file.save_model`.

    Args:
      path: of the file, by custom `NAME.safetensors`.
      model: see above; of its config only what inference needs is written.
      half: store kernels as float16.
      about: for JSON: whatever else should be known of it, such as data, scores and terms.

    Raises:
      UserError: the file cannot be written.
    """
    kept = {part: {key: model.config[part][key] for key in keys} for part, keys in _KEPT.items()}
    meta = {"config": kept, "about": dict(about or {})}
    if model.nms is not None:
        meta["pose_nms"] = params_to_dict(model.nms)
    save_model(path, model.variables, meta, half=half)


def _newest(folder: pathlib.Path) -> pathlib.Path:
    """The folder of checkpoints of a workdir, or the folder itself."""
    for name in ("best", "checkpoints"):
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            return folder / name
    return folder


def _config_of(content: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """A whole config; keys that older runs did not have are as they were then, by default."""
    config = default_config()
    for part, keys in _KEPT.items():
        for key in keys:
            value = content.get(part, {}).get(key, config[part][key])
            config[part][key] = tuple(value) if isinstance(value, list) else value
    return config


def _without_parallel(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: branch for name, branch in tree.items() if name != "parallel_sppe"}
