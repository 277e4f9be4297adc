"""Score a trained pose network or detector.

  rmpe eval --model=runs/coco --data=coco:data/coco:val2017 --boxes=gt --flip-test
  rmpe eval --model=fastpose.safetensors --data=coco:data/coco:val2017 --boxes=boxes.json --nms=rmpe
  rmpe eval --config=configs/synthetic.py --workdir=demo/run --boxes=demo/val/detections.json

MODEL is a training run's workdir or a model file. With --config and --workdir the config says how
crops are made and heatmaps read, and which datasets to evaluate on. `python eval.py` is the same.

Writes metrics.json, results.json (COCO's result form) and people.png (best, median and worst
people) to WORKDIR/eval/, or to NAME-eval/ beside a model file, one folder for each dataset, kind
of boxes and NMS, and prints the metrics. For a detector it writes metrics.json and
detections.json, which --boxes takes.
"""

import dataclasses
import pathlib
from typing import Any, cast

from absl import flags
from ml_collections import config_flags

from rmpe_jax.entry import run_app, use_compilation_cache

_MODEL = flags.DEFINE_string("model", None, "A training run's workdir, or a model file.")
_WORKDIR = flags.DEFINE_string("workdir", None, "A run's workdir, to be used with --config.")
_DATA = flags.DEFINE_string(
    "data", None, "Dataset, such as coco:FOLDER:val2017; by default all of config.data.evaluate."
)
_BOXES = flags.DEFINE_string(
    "boxes", "gt", "gt, or a file of detections in COCO's or AlphaPose's form."
)
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    None,
    ["last", "best"],
    "Which checkpoint of a run; by default the last with --workdir, and with --model the best if "
    "there is one.",
)
_FLIP_TEST = flags.DEFINE_bool("flip_test", False, "Average with the mirrored crop.")
_FLIP_SHIFT = flags.DEFINE_bool(
    "flip_shift", False, "Shift the mirrored heatmaps by a pixel, for networks aligned like that."
)
_NMS = flags.DEFINE_string(
    "nms",
    None,
    "NMS of the poses before they are scored: none, box, oks, soft_oks, paper, rmpe, alphapose, or "
    "a params.json of rmpe fit-nms. By default none for annotated boxes and oks for a detector's.",
)
_SKIP_UNKNOWN = flags.DEFINE_bool(
    "skip_unknown", False, "Skip detections on images that the dataset does not have."
)
_OUT = flags.DEFINE_string("out", None, "Folder for the files.")
config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
flags.mark_flags_as_mutual_exclusive(["workdir", "model"], required=True)
flags.register_multi_flags_validator(
    ["config", "model"],
    lambda given: any(value is not None for value in given.values()),
    message="--config is needed, or --model",
)


def main() -> None:
    """The command line; ends the program."""
    run_app(evaluate_by_flags, __name__)


def evaluate_by_flags() -> None:
    """Evaluates as the flags say."""
    from rmpe_jax.errors import UserError
    from rmpe_jax.experiments.evaluate import (
        evaluate_detector_model,
        evaluate_pose_model,
        metrics_table,
    )
    from rmpe_jax.model_io.detector_model import DetectorModel

    use_compilation_cache()
    model, default_data, folder = _by_model() if _MODEL.value else _by_config()
    folder = pathlib.Path(_OUT.value or folder)
    datasets = (_DATA.value,) if _DATA.value else default_data
    if not datasets:
        raise UserError("no dataset to evaluate on: give --data, or config.data.evaluate")
    for data in datasets:
        if isinstance(model, DetectorModel):
            out = folder / _folder_name(data)
            title = f"{data}, {model.version}"
            metrics = evaluate_detector_model(model, data, out)
        else:
            boxes = _BOXES.value
            nms = _NMS.value or ("none" if boxes == "gt" else "oks")
            parts = [_folder_name(data), pathlib.Path(boxes).stem]
            name = "-".join([*parts, pathlib.Path(nms).stem] if _NMS.value else parts)
            out = folder / name
            title = f"{data}, boxes {boxes}, NMS {nms}, {model.version}"
            metrics = evaluate_pose_model(
                model,
                data,
                boxes,
                out,
                flip_test=_FLIP_TEST.value,
                flip_shift=_FLIP_SHIFT.value,
                skip_unknown=_SKIP_UNKNOWN.value,
                nms=nms,
            )
        print(metrics_table({title: metrics}))
        print(f"files: {out}")


def _by_model() -> tuple[Any, tuple[str, ...], pathlib.Path]:
    """The network of --model, no datasets, and the folder for files."""
    from rmpe_jax.model_io.load import load_trained

    path = pathlib.Path(_MODEL.value or "")
    folder = path / "eval" if path.is_dir() else path.with_name(f"{path.stem}-eval")
    return load_trained(path, cast(Any, _CHECKPOINT.value)), (), folder


def _by_config() -> tuple[Any, tuple[str, ...], pathlib.Path]:
    """The weights of --workdir in the network of --config, its datasets, the folder for files."""
    from rmpe_jax.config import model_spec, parse_config, require_same_network
    from rmpe_jax.model_io.load import load_trained
    from rmpe_jax.models.spec import ModelSpec

    run = parse_config(flags.FLAGS.config)
    spec = model_spec(run)
    if isinstance(spec, ModelSpec):
        spec = dataclasses.replace(spec, parallel="")  # is not run in evaluation
    workdir = pathlib.Path(_WORKDIR.value or "")
    model = load_trained(workdir, cast(Any, _CHECKPOINT.value or "last"))
    require_same_network(workdir, model.spec, spec)
    return model._replace(spec=cast(Any, spec)), run.data.evaluate, workdir / "eval"


def _folder_name(data: str) -> str:
    return data.replace(":", "-").replace("/", "_")
