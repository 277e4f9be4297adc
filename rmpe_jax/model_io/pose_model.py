"""A trained pose network with all that using it takes."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.config import spec_to_dict
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import save_model
from rmpe_jax.model_io.read import Which, read_network
from rmpe_jax.models.folding import FoldedNetwork, check_variables, fold_batch_norm
from rmpe_jax.models.spec import ModelSpec, require_pose
from rmpe_jax.pose_nms import PoseNmsParams, params_from_dict, params_to_dict


class PoseModel(NamedTuple):
    """A trained pose network.

    Attributes:
      spec: which network it is.
      variables: its parameters and statistics.
      nms: parameters of pose NMS that were learned on its poses, or None.
      version: of the variables, for titles: a file's name, or the step of a run.
    """

    spec: ModelSpec
    variables: dict[str, Any]
    nms: PoseNmsParams | None = None
    version: str = ""

    def build(self) -> tuple[nn.Module, PoseCodec]:
        """The network and its codec.

        Raises:
          UserError: spec and variables do not belong together.
        """
        module = self.spec.module()
        output = check_variables(module, self.variables, self.spec.input_size, self._name)
        return module, self.spec.codec(output)

    def fold(self, batch_size: int = 1) -> tuple[FoldedNetwork, dict[str, Any], PoseCodec]:
        """The network for inference, its variables, and its codec.

        Args:
          batch_size: of the crops; see `fold_batch_norm`.

        Raises:
          UserError: spec and variables do not belong together.
        """
        network, variables = fold_batch_norm(
            self.spec.module(), self.variables, self.spec.input_size, batch_size, self._name
        )
        return network, variables, self.spec.codec(network.output)

    @property
    def _name(self) -> str:
        return f"{self.spec.network} ({self.version})" if self.version else self.spec.network


def load_pose_model(path: str | os.PathLike, checkpoint: Which | None = None) -> PoseModel:
    """The pose network of a file or a run, or one that ships with the package.

    Args:
      path: a model file, as `save_pose_model` writes it; or a run's workdir, or a folder of
        checkpoints in it; or "builtin" or "builtin-small".
      checkpoint: of a workdir; by default the best if there is one, else the last.

    Raises:
      UserError: there is no pose network that can be read.
    """
    spec, variables, meta = read_network(path, "pose network", checkpoint)
    try:
        spec = require_pose(spec)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return PoseModel(spec, variables, pose_nms_of(path, meta), meta["version"])


def pose_nms_of(path: str | os.PathLike, meta: Mapping[str, Any]) -> PoseNmsParams | None:
    """The parameters of pose NMS that the meta data of a file holds, if any.

    Raises:
      UserError: they are damaged.
    """
    try:
        return params_from_dict(meta["pose_nms"]) if meta.get("pose_nms") else None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def save_pose_model(
    path: str | os.PathLike,
    model: PoseModel,
    *,
    half: bool = False,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a network as one file; see `model_file.save_model`.

    Args:
      path: of the file, usually `NAME.safetensors`.
      model: the network; nothing about its training is written.
      half: store kernels as float16.
      about: for JSON: further information, such as data, scores and terms.

    Raises:
      UserError: the file cannot be written.
    """
    meta = {"config": spec_to_dict(model.spec), "about": dict(about or {})}
    if model.nms is not None:
        meta["pose_nms"] = params_to_dict(model.nms)
    save_model(path, model.variables, meta, half=half)
