"""RMPE, Regional Multi-person Pose Estimation (ICCV 2017), complete, in JAX and Flax."""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # On its first use only: without it `import rmpe_jax` takes no time.
    if name == "PoseEstimator":
        return importlib.import_module("rmpe_jax.inference.estimator").PoseEstimator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
