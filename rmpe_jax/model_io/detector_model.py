"""A trained person detector: from a run's checkpoints, or from a file, and into a file."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.config import spec_to_dict
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import save_model
from rmpe_jax.model_io.read import Which, read_network
from rmpe_jax.models.folding import FoldedNetwork, check_variables, fold_batch_norm
from rmpe_jax.models.spec import DetectorSpec, require_detector


class DetectorModel(NamedTuple):
    """A trained detector.

    Attributes:
      spec: which network it is.
      variables: its parameters and statistics.
      version: of the variables, for titles: a file's name, or the step of a run.
    """

    spec: DetectorSpec
    variables: dict[str, Any]
    version: str = ""

    def build(self) -> tuple[nn.Module, BoxCodec]:
        """The network and its codec.

        Raises:
          UserError: spec and variables do not belong together.
        """
        module, size = self.spec.module(), self.spec.test_size
        output = check_variables(module, self.variables, size, self._name)
        return module, self.spec.codec(output, size)

    def fold(self) -> tuple[FoldedNetwork, dict[str, Any], BoxCodec]:
        """The network for inference, one image at a time, its variables, and its codec.

        Raises:
          UserError: spec and variables do not belong together.
        """
        size = self.spec.test_size
        network, variables = fold_batch_norm(
            self.spec.module(), self.variables, size, name=self._name
        )
        return network, variables, self.spec.codec(network.output, size)

    @property
    def _name(self) -> str:
        return f"{self.spec.network} ({self.version})" if self.version else self.spec.network


def load_detector_model(path: str | os.PathLike, checkpoint: Which | None = None) -> DetectorModel:
    """The detector of a file or a run, or the one that ships with the package.

    Args:
      path: a model file, as `save_detector_model` writes it; or a run's workdir, or a folder of
        checkpoints in it; or "builtin".
      checkpoint: of a workdir; by default the best if there is one, else the last.

    Raises:
      UserError: there is no detector that can be read.
    """
    spec, variables, meta = read_network(path, "detector", checkpoint)
    try:
        # A detector trained in bfloat16 is used in float32.
        spec = dataclasses.replace(require_detector(spec), dtype="float32")
        return DetectorModel(spec, variables, meta["version"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def save_detector_model(
    path: str | os.PathLike,
    model: DetectorModel,
    *,
    half: bool = False,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a detector as one file; see `model_file.save_model`.

    Args:
      path: of the file, usually `NAME.safetensors`.
      model: the detector; nothing about its training is written.
      half: store kernels as float16.
      about: for JSON: further information, such as data, scores and terms.

    Raises:
      UserError: the file cannot be written, or the model's parts do not belong together.
    """
    model.build()
    content = {"config": spec_to_dict(model.spec), "about": dict(about or {})}
    save_model(path, model.variables, content, half=half)
