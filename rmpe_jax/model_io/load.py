"""Reading a trained network without knowing whether it is a pose network or a detector."""

import os

from rmpe_jax.model_io.detector_model import DetectorModel
from rmpe_jax.model_io.pose_model import PoseModel, pose_nms_of
from rmpe_jax.model_io.read import Which, read_network
from rmpe_jax.models.spec import DetectorSpec


def load_trained(
    path: str | os.PathLike, checkpoint: Which | None = None
) -> PoseModel | DetectorModel:
    """The pose network or detector of a model file or a run.

    Args:
      path: a model file, a run's workdir, or a folder of checkpoints in it.
      checkpoint: of a workdir; by default the best if there is one, else the last.

    Raises:
      UserError: there is no network that can be read.
    """
    spec, variables, meta = read_network(path, "network", checkpoint)
    if isinstance(spec, DetectorSpec):
        return DetectorModel(spec, variables, meta["version"])
    return PoseModel(spec, variables, pose_nms_of(path, meta), meta["version"])
