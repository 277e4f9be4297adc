"""RMPE, Regional Multi-person Pose Estimation (ICCV 2017), complete, in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

from rmpe_jax import moved

if TYPE_CHECKING:
    from rmpe_jax.config import default_config
    from rmpe_jax.errors import UserError
    from rmpe_jax.inference.estimator import PoseEstimator
    from rmpe_jax.inference.poses import Poses
    from rmpe_jax.model_io.pose_model import PoseModel, load_pose_model, save_pose_model
    from rmpe_jax.models import build_sppe
    from rmpe_jax.models.rmpe import RMPE
    from rmpe_jax.models.spec import ModelSpec
    from rmpe_jax.pose_nms import PoseNmsParams
    from rmpe_jax.skeletons import Skeleton, get_skeleton

__version__ = "0.1.0"

moved.install()

# Where each public name is defined. They are imported on first use, so that `import rmpe_jax` takes
# no time and does not start JAX.
_MODULES = {
    "ModelSpec": "rmpe_jax.models.spec",
    "PoseEstimator": "rmpe_jax.inference.estimator",
    "PoseModel": "rmpe_jax.model_io.pose_model",
    "PoseNmsParams": "rmpe_jax.pose_nms",
    "Poses": "rmpe_jax.inference.poses",
    "RMPE": "rmpe_jax.models.rmpe",
    "Skeleton": "rmpe_jax.skeletons",
    "UserError": "rmpe_jax.errors",
    "build_sppe": "rmpe_jax.models",
    "default_config": "rmpe_jax.config",
    "get_skeleton": "rmpe_jax.skeletons",
    "load_pose_model": "rmpe_jax.model_io.pose_model",
    "save_pose_model": "rmpe_jax.model_io.pose_model",
}

__all__ = [
    "RMPE",
    "ModelSpec",
    "PoseEstimator",
    "PoseModel",
    "PoseNmsParams",
    "Poses",
    "Skeleton",
    "UserError",
    "build_sppe",
    "default_config",
    "get_skeleton",
    "load_pose_model",
    "save_pose_model",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if f"{__name__}.{name}" in moved.MOVED:  # as in `from rmpe_jax import heatmaps`
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
