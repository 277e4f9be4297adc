"""A trained detector of ours: from a run's checkpoints, or from a file, and into a file."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rmpe_jax.detectors.points import PointDetector, config_to_store
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import save_model
from rmpe_jax.training.checkpoints import load_variables


def load_detector(path: str | os.PathLike, score_threshold: float | None = None) -> PointDetector:
    """The detector of a run.

    Args:
      path: the run's workdir: its best checkpoint if there is one, else the last.
      score_threshold: boxes that score less are left out; a default if not given.

    Raises:
      UserError: there is no detector that can be read.
    """
    variables, meta = _load_run(path)
    return PointDetector.from_config(meta["config"], variables, score_threshold)


def save_detector(
    path: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    half: bool = False,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a run's detector as one file, for `detectors.open_detector`.

    Args:
      path: of the file, `NAME.safetensors`.
      workdir: of the run, as in `load_detector`.
      half: store kernels as float16.
      about: for JSON: whatever else should be known of it, such as data, scores and terms.

    Raises:
      UserError: the run cannot be read, is no detector's, or the file cannot be written.
    """
    variables, meta = _load_run(path=workdir)
    PointDetector.from_config(meta["config"], variables)  # or say what is wrong
    content = {"config": config_to_store(meta["config"]), "about": dict(about or {})}
    save_model(path, variables, content, half=half)


def _load_run(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise UserError(f"{path}: no detector there; name a training run's workdir")
    best = folder / "best"
    has_best = best.is_dir() and any(best.iterdir())
    return load_variables(best if has_best else folder / "checkpoints")
