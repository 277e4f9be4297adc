"""Evaluates a model on a dataset; writes metrics, results and a sheet of images.

With several processes all call these functions alike. Each predicts its share; process 0 scores and
writes the files, and the others get its metrics.
"""

import math
import pathlib
from typing import Any

import cv2
import numpy as np

from rmpe_jax.data.inspection import (
    MAX_SUSPICIOUS,
    inspect_dataset,
    inspect_detections,
    sample_sizes,
)
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.detectors.evaluation import detector_ap
from rmpe_jax.detectors.points import EVALUATION_THRESHOLD, PointDetector
from rmpe_jax.evaluation.boxes import DatasetBoxes, load_boxes
from rmpe_jax.evaluation.nms import open_nms
from rmpe_jax.evaluation.offsets import joint_offsets, warn_of_offset
from rmpe_jax.evaluation.predictions import PosePredictions, predict_dataset
from rmpe_jax.evaluation.protocol import evaluate
from rmpe_jax.experiments.tables import markdown_table
from rmpe_jax.files import atomic_write, write_json
from rmpe_jax.model_io.detector_model import DetectorModel
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.processes import agreed, in_first_process
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.top_down.prediction import make_predict
from rmpe_jax.visualize.sheets import people_sheet

_BATCH_SIZE = 64  # crops on each device
_OPTION = "--max-suspicious=1"  # allows any number of suspicious labels


def evaluate_pose_model(
    model: PoseModel,
    data: str,
    boxes: str,
    out: pathlib.Path,
    *,
    flip_test: bool = False,
    flip_shift: bool = False,
    skip_unknown: bool = False,
    nms: str = "none",
    num_threads: int = 2,
    max_suspicious: float = MAX_SUSPICIOUS,
) -> dict[str, float]:
    """Evaluates a pose network; writes `metrics.json`, `results.json` and `people.png`.

    Args:
      model: a trained network.
      data: the dataset, such as `coco:FOLDER:val2017`.
      boxes: `gt`, or a detections file.
      out: folder for the files, made if needed.
      flip_test: average with the mirrored crop.
      flip_shift: shift the mirrored heatmaps by a pixel first.
      skip_unknown: skip detections on images that the dataset does not have.
      nms: NMS of the poses before they are scored; a name for `nms.open_nms`.
      num_threads: threads that decode images.
      max_suspicious: maximum fraction of people, boxes or images whose labels do not fit.

    Returns:
      The metrics: COCO's as fractions, MPII's and LSP's in percent. With `gt` also `offset_x` and
      `offset_y`, crop pixels, if any joint is nearly right; see `evaluation.offsets`.

    Raises:
      UserError: data, boxes or folder cannot be used, or too many labels or boxes are suspicious.
    """
    module, codec = model.build()
    skeleton = model.spec.skeleton
    dataset, loaded = agreed(lambda: _open_boxed(data, boxes, skip_unknown, max_suspicious))
    predictions = predict_dataset(
        make_predict(module, codec, skeleton, flip_test=flip_test, flip_shift=flip_shift),
        model.variables,
        dataset,
        loaded,
        skeleton,
        model.spec.crop,
        batch_size=_BATCH_SIZE,
        num_threads=num_threads,
    )
    settings = {"data": data, "boxes": boxes, "nms": nms, "flip_test": flip_test}
    return in_first_process(lambda: _score_poses(predictions, nms, model.spec.crop, settings, out))


def _open_boxed(
    data: str, boxes: str, skip_unknown: bool, max_suspicious: float
) -> tuple[PoseDataset, DatasetBoxes]:
    """The dataset and the boxes of `evaluate_pose_model`, inspected."""
    dataset = open_dataset(data)
    loaded = load_boxes(dataset, boxes, skip_unknown)
    sizes = sample_sizes(dataset)
    _inspect_labels(dataset, dataset.skeleton, sizes, max_suspicious)
    if boxes != "gt":
        found = inspect_detections(dataset, loaded.image_index, loaded.bboxes, sizes)
        found.require_few(boxes, max_suspicious, _OPTION)
        found.warn(boxes)
    return dataset, loaded


def _score_poses(
    predictions: PosePredictions,
    nms: str,
    crop: CropSpec,
    settings: dict[str, Any],
    out: pathlib.Path,
) -> dict[str, float]:
    """Scores poses and writes the files of `evaluate_pose_model`."""
    dataset = predictions.dataset
    metrics, results = evaluate(predictions, open_nms(nms, dataset.skeleton))
    by_joint: dict[str, Any] = {}
    if settings["boxes"] == "gt":
        offsets = joint_offsets(predictions, crop)
        warn_of_offset(dataset.name, offsets)
        if np.isfinite(offsets.mean).all():
            metrics |= dict(zip(("offset_x", "offset_y"), offsets.mean.tolist(), strict=True))
        joints = dataset.skeleton.joints
        by_joint = {
            "offsets": {
                joint: [_finite(v) for v in pair]
                for joint, pair in zip(joints, offsets.by_joint.tolist(), strict=True)
            }
        }
    finite = {name: _finite(value) for name, value in metrics.items()}
    write_json(out / "metrics.json", settings | finite | by_joint)
    write_json(out / "results.json", results)
    _, encoded = cv2.imencode(".png", people_sheet(predictions)[..., ::-1])
    with atomic_write(out / "people.png", "wb") as file:
        file.write(encoded.tobytes())
    return metrics


def evaluate_detector_model(
    model: DetectorModel, data: str, out: pathlib.Path, max_suspicious: float = MAX_SUSPICIOUS
) -> dict[str, float]:
    """Evaluates a detector by box AP; writes `metrics.json` and `detections.json`.

    Args:
      model: a trained detector.
      data: a dataset in COCO's format, such as `coco:FOLDER:val2017`.
      out: folder for the files, made if needed.
      max_suspicious: maximum fraction of people or images whose labels do not fit.

    Returns:
      The metrics, as fractions.

    Raises:
      UserError: data or folder cannot be used, or too many labels are suspicious.
    """

    def opened() -> PoseDataset:
        dataset = open_dataset(data)
        _inspect_labels(dataset, None, sample_sizes(dataset), max_suspicious)
        return dataset

    dataset = agreed(opened)
    detector = PointDetector.from_model(model, EVALUATION_THRESHOLD)
    metrics, results = detector_ap(detector, dataset)

    def write() -> None:
        write_json(out / "metrics.json", {"data": data} | metrics)
        write_json(out / "detections.json", results)

    in_first_process(write)
    return metrics


def _finite(value: float) -> float | None:
    """None instead of NaN, of which JSON has none; NaN is the metric of a joint that nobody has."""
    return value if math.isfinite(value) else None


def _inspect_labels(
    dataset: PoseDataset,
    skeleton: Skeleton | None,
    sizes: dict[int, tuple[int, int]],
    max_suspicious: float,
) -> None:
    inspection = inspect_dataset(dataset, skeleton, sizes)
    inspection.require_few(max_suspicious, _OPTION)
    inspection.warn()


def metrics_table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table of metrics. Lines below explain -1, if there is one.

    Args:
      rows: for each row of the table its title and its metrics.
    """
    names = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    cells = {
        title: [_cell(name, metrics[name]) if name in metrics else "-" for name in names]
        for title, metrics in rows.items()
    }
    lines = [markdown_table("", names, cells)]
    nobody = [title for title, row in rows.items() if row.get("AP") == -1]
    others = [row for title, row in rows.items() if title not in nobody]
    if nobody:
        where = f" in {', '.join(nobody)}" if others else ""
        reason = "all people are crowds or have no labeled joint"
        lines += ["", f"-1: nobody is evaluated{where}: {reason}"]
    absent = [name for name in names if any(row.get(name) == -1 for row in others)]
    if absent:
        lines += ["", f"-1: nobody in the data counts for {', '.join(absent)}"]
    return "\n".join(lines)


def _cell(name: str, value: float) -> str:
    if name.startswith("offset"):
        return f"{value:+.2f}"
    is_fraction = name.split("/")[-1].startswith(("AP", "AR"))
    return f"{value:.3f}" if is_fraction else f"{value:.1f}"
