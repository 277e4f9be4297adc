"""Scores a network on a data set and leaves the evidence: metrics, results, a contact sheet."""

import math
import pathlib
from typing import Any

import cv2
import ml_collections

from rmpe_jax.codecs.poses import Codec
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.detectors.evaluation import detector_ap
from rmpe_jax.detectors.points import LEAST_SCORE, PointDetector
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.nms import open_nms
from rmpe_jax.evaluation.protocol import boxes_of, evaluate
from rmpe_jax.evaluation.top_down import predict_boxes
from rmpe_jax.files import write_json
from rmpe_jax.skeletons import get_skeleton
from rmpe_jax.top_down.prediction import make_predict
from rmpe_jax.training.state import build_network
from rmpe_jax.visualize.sheets import people_sheet


def evaluate_run(
    config: ml_collections.ConfigDict,
    variables: dict[str, Any],
    spec: str,
    boxes: str,
    out: pathlib.Path,
    *,
    flip_test: bool = False,
    flip_shift: bool = False,
    skip_unknown: bool = False,
    nms: str = "none",
) -> dict[str, float]:
    """Evaluates a network on a data set; writes `metrics.json`, `results.json`, `people.png`.

    Args:
      config: that the network was trained with.
      variables: of the network, as `checkpoints.load_variables` gives them.
      spec: the data set, such as `coco:FOLDER:val2017`.
      boxes: `gt`, or a detections file.
      out: folder for the files, made if need be.
      flip_test: average with the mirrored crop.
      flip_shift: move the mirrored heatmaps by a pixel first.
      skip_unknown: leave out detections of pictures that the data set does not have.
      nms: of the poses, before they are scored; a name that `nms.open_nms` knows.

    Returns:
      The metrics: COCO's as fractions, MPII's and LSP's in percent.

    Raises:
      UserError: data, boxes or folder cannot be used.
    """
    model, codec = build_network(config)
    if not isinstance(codec, Codec):
        raise UserError(f"{config.model.name} is a detector: evaluate it by its own config")
    skeleton = get_skeleton(config.model.skeleton)
    dataset = open_dataset(spec)
    person_boxes = boxes_of(dataset, boxes, skip_unknown)
    predict = make_predict(model, codec, skeleton, flip_test=flip_test, flip_shift=flip_shift)
    keypoints, scores = predict_boxes(
        predict,
        variables,
        dataset,
        person_boxes,
        num_keypoints=skeleton.num_keypoints,
        input_size=codec.input_size,
        padding=config.data.padding,
        batch_size=64,
        num_threads=config.data.num_threads,
    )
    metrics, results = evaluate(
        dataset, person_boxes, keypoints, scores, skeleton, open_nms(nms, dataset.skeleton)
    )
    # NaN, for a joint that nobody has, is not JSON.
    finite = {name: v if math.isfinite(v) else None for name, v in metrics.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made, {error.strerror}; name another folder") from error
    write_json(
        out / "metrics.json",
        {"data": spec, "boxes": boxes, "nms": nms, "flip_test": flip_test} | finite,
    )
    write_json(out / "results.json", results)
    sheet = people_sheet(dataset, person_boxes, keypoints, scores, skeleton)
    if not cv2.imwrite(str(out / "people.png"), sheet[..., ::-1]):
        raise UserError(f"{out / 'people.png'}: cannot be written; is the disk full?")
    return metrics


def evaluate_detector(
    config: ml_collections.ConfigDict, variables: dict[str, Any], spec: str, out: pathlib.Path
) -> dict[str, float]:
    """Box AP of a detector on a data set of COCO's form; writes `metrics.json`, `detections.json`.

    Args:
      config: that the detector was trained with.
      variables: of the network.
      spec: the data set, such as `coco:FOLDER:val2017`.
      out: folder for the files, made if need be.

    Raises:
      UserError: data or folder cannot be used.
    """
    detector = PointDetector.from_config(config.to_dict(), variables, LEAST_SCORE)
    metrics, results = detector_ap(detector, open_dataset(spec))
    write_json(out / "metrics.json", {"data": spec} | metrics)
    write_json(out / "detections.json", results)
    return metrics


def metrics_table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table with a line for each evaluation; COCO's fractions as they are."""
    names = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, metrics in rows.items():
        cells = [_cell(name, metrics[name]) for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, value: float) -> str:
    return f"{value:.3f}" if name.startswith(("AP", "AR")) else f"{value:.1f}"
