"""Makes detectors from strings, as on the command line."""

import pathlib

from rmpe_jax.detectors.protocol import Detector
from rmpe_jax.errors import UserError
from rmpe_jax.interop.hub import is_hub_name

_FORMS = (
    "builtin, whole, gt:DATASET, FILE.json[:ANNOTATIONS.json], MODEL.onnx[:LAYOUT], "
    "hf:USER/REPOSITORY/MODEL.onnx[:LAYOUT] or MODEL.safetensors, or a training run's workdir"
)


def is_lookup(text: str) -> bool:
    """Whether the detector that `text` names looks boxes up by the names of images.

    Such boxes refer to images as stored in their files, without the EXIF orientation.
    """
    kind = text.partition(":")[0]
    return kind == "gt" or pathlib.Path(kind).suffix.lower() == ".json"


def open_detector(text: str, score_threshold: float | None = None) -> Detector:
    """The detector that `text` names.

    Args:
      text: one of
        `builtin`: the detector that comes with the package;
        `whole`: one box that covers the image;
        `gt:DATASET`: the annotated boxes of a dataset, named as in `open_dataset`;
        `FILE.json` or `FILE.json:ANNOTATIONS.json`: boxes of a detections file in COCO's or
        AlphaPose's format; annotations are needed if only they have the file names of its ids;
        `MODEL.onnx` or `MODEL.onnx:LAYOUT`: a network; the layout is needed if the outputs are
        ambiguous (see `open_onnx`);
        `hf:USER/REPOSITORY/MODEL.onnx`, also with a layout: a network of the Hugging Face Hub;
        `MODEL.safetensors` or the workdir of a training run: a detector trained by `train.py`.
      score_threshold: boxes with lower scores are left out. By default all boxes of a file are
        taken, and networks have their own thresholds.

    Raises:
      UserError: `text` has none of these forms, or what it names cannot be used.
    """
    kind, _, rest = text.partition(":")
    if is_hub_name(text):  # its prefix ends with a colon too
        path, _, rest = rest.partition(":")
        kind = f"{kind}:{path}"
    suffix = pathlib.Path(kind).suffix.lower()
    # Imported here, because prediction does not need dataset readers and evaluation.
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
    if text == "builtin" or suffix == ".safetensors" or (text and pathlib.Path(text).is_dir()):
        from rmpe_jax.detectors.points import PointDetector
        from rmpe_jax.model_io.detector_model import load_detector_model

        return PointDetector.from_model(load_detector_model(text), score_threshold)
    raise UserError(f"{text!r} is not a detector: write {_FORMS}")
