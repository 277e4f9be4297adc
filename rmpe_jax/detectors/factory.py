"""Detectors by what a user writes on a command line."""

import pathlib

from rmpe_jax.detectors.protocol import Detector
from rmpe_jax.errors import UserError

_FORMS = (
    "builtin, whole, gt:DATASET, FILE.json[:ANNOTATIONS.json], MODEL.onnx[:LAYOUT] or "
    "MODEL.safetensors, or a training run's workdir"
)


def looks_up(text: str) -> bool:
    """Whether the detector that `text` names looks boxes up, by the names of pictures.

    Such boxes are of pictures as their files store them, not turned as their cameras say.
    """
    kind = text.partition(":")[0]
    return kind == "gt" or pathlib.Path(kind).suffix.lower() == ".json"


def open_detector(text: str, score_threshold: float | None = None) -> Detector:
    """The detector that `text` names.

    Args:
      text: `builtin`, the detector that comes with the package; `whole`, the picture as one box;
        `gt:` and a data set as in `open_dataset`, its annotated boxes; `FILE.json`, detections in
        COCO's or AlphaPose's form, with `:ANNOTATIONS.json` after it if only that knows the names
        of its ids; `MODEL.onnx`, a network, with `:LAYOUT` after it if its outputs do not tell (see
        `open_onnx`); `MODEL.safetensors` or the
        workdir of a run, a detector that `train.py` trained.
      score_threshold: boxes that score less are left out; if not given, a file's boxes are all
        taken and a network has a threshold of its own.

    Raises:
      UserError: `text` is of no such form, or what it names cannot be used.
    """
    kind, _, rest = text.partition(":")
    suffix = pathlib.Path(kind).suffix.lower()
    # Imported where they are needed: dataset readers and evaluation are no part of prediction.
    if text == "whole":
        from rmpe_jax.detectors.whole import whole_image

        return whole_image
    if kind == "gt":
        from rmpe_jax.data.readers.datasets import open_dataset
        from rmpe_jax.detectors.lookup import ground_truth

        return ground_truth(open_dataset(rest))
    if suffix == ".json":
        from rmpe_jax.detectors.lookup import from_file

        threshold = {} if score_threshold is None else {"score_threshold": score_threshold}
        return from_file(kind, rest or None, **threshold)
    if suffix == ".onnx":
        from rmpe_jax.detectors.onnx import open_onnx

        return open_onnx(kind, rest, score_threshold)
    if text == "builtin" or suffix == ".safetensors" or pathlib.Path(text).is_dir():
        from rmpe_jax.detectors.points import PointDetector
        from rmpe_jax.model_io.detector_model import load_detector_model

        return PointDetector.from_model(load_detector_model(text), score_threshold)
    raise UserError(f"{text!r} names no detector: write {_FORMS}")
