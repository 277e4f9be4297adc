"""What importing a part of the package brings along, each in a fresh process; and old names."""

import importlib
import subprocess
import sys
import warnings

import pytest

from rmpe_jax import moved

TRAINING_ONLY = ("optax", "orbax", "grain", "tensorflow_datasets", "pycocotools", "sklearn")

PREDICT = """
import sys
import numpy as np
from rmpe_jax import PoseEstimator
from rmpe_jax.detectors import open_detector
open_detector("builtin")
estimator = PoseEstimator.from_checkpoint("builtin", detector="whole")
poses = estimator.predict(np.zeros((64, 48, 3), np.uint8))
found = sorted(name for name in sys.argv[1:] if name in sys.modules)
print(poses.keypoints.shape[1:] == (17, 2), *found)
"""


def imported(code: str, *names: str) -> list[str]:
    """The words that `code` prints; it gets `names` as arguments."""
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_prediction_needs_nothing_of_training():
    ours = ("rmpe_jax.training", "rmpe_jax.evaluation", "rmpe_jax.data.readers")
    assert imported(PREDICT, *TRAINING_ONLY, *ours) == ["True"]


def test_files_of_predict_need_nothing_of_training():
    code = (
        "import sys, rmpe_jax.predict.run, rmpe_jax.detectors.lookup; "
        "print(*(name for name in sys.argv[1:] if name in sys.modules))"
    )
    assert imported(code, *TRAINING_ONLY, "scipy.optimize") == []  # half a second


@pytest.mark.parametrize("module", ["rmpe_jax", "rmpe_jax.cli"])
def test_the_command_starts_without_jax(module):
    code = f"import sys, {module}; print(*(name for name in sys.argv[1:] if name in sys.modules))"
    assert imported(code, "jax", "numpy", "cv2", "flax", *TRAINING_ONLY) == []


@pytest.mark.parametrize("old", moved.MOVED)
def test_old_module_names_give_the_new_module(old):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=f"{old} is now {moved.MOVED[old]}"):
        alias = importlib.import_module(old)
    new = importlib.import_module(moved.MOVED[old])
    public = [name for name in vars(new) if not name.startswith("_")]
    assert public
    assert all(getattr(alias, name) is getattr(new, name) for name in public)
    assert set(alias.__all__) <= set(dir(alias))


def test_an_old_name_of_a_module_from_the_package():
    sys.modules.pop("rmpe_jax.heatmaps", None)
    with warnings.catch_warnings(record=True):
        from rmpe_jax import heatmaps
    from rmpe_jax.ops import heatmaps as new

    assert heatmaps.encode is new.encode
