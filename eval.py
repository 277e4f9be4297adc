"""Score a trained pose estimator, or a detector by its config.

  python eval.py --config=configs/synthetic.py --workdir=demo/run --boxes=gt --flip_test
  python eval.py --config=configs/synthetic.py --workdir=demo/run --boxes=demo/val/detections.json
  python eval.py --config=configs/synthetic.py --workdir=demo/run --boxes=boxes.json --nms=rmpe
  python eval.py --model=fastpose.safetensors --data=coco:data/coco:val2017 --boxes=gt --flip_test

Writes metrics.json, results.json (COCO's result form) and people.png (best, median and worst
people) to WORKDIR/eval/, or beside a model file to NAME-eval/, one folder for each data set, kind
of boxes and NMS, and prints the metrics. Of a detector it writes metrics.json and
detections.json, which --boxes takes.
"""

import pathlib
from typing import Any

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from rmpe_jax.entry import parse_flags, run, use_compilation_cache

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, as given to train.py.")
_MODEL = flags.DEFINE_string(
    "model", None, "A file of rmpe convert, or another model file, in place of --config --workdir."
)
_BOXES = flags.DEFINE_string(
    "boxes", "gt", "gt, or a file of detections in COCO's or AlphaPose's form."
)
_DATA = flags.DEFINE_string(
    "data", None, "Data set, such as coco:FOLDER:val2017; by default all of config.data.evaluate."
)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint.")
_FLIP_TEST = flags.DEFINE_bool("flip_test", False, "Average with the mirrored crop.")
_FLIP_SHIFT = flags.DEFINE_bool(
    "flip_shift", False, "Move the mirrored heatmaps by a pixel, for networks aligned like that."
)
_NMS = flags.DEFINE_string(
    "nms",
    None,
    "NMS of the poses before they are scored: none, box, oks, soft_oks, paper, rmpe, alphapose, or "
    "a params.json of rmpe fit-nms. By default none for annotated boxes and oks for a detector's.",
)
_SKIP_UNKNOWN = flags.DEFINE_bool(
    "skip_unknown", False, "Leave out detections of pictures that the data set does not have."
)
_OUT = flags.DEFINE_string("out", None, "Folder for the files, by default WORKDIR/eval.")
config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
flags.mark_flags_as_mutual_exclusive(["workdir", "model"], required=True)
flags.register_multi_flags_validator(
    ["config", "model"],
    lambda given: any(value is not None for value in given.values()),
    message="--config is needed, or --model",
)


def main(argv: list[str]) -> int:
    del argv
    return run(evaluate)


def evaluate() -> None:
    from rmpe_jax.errors import UserError
    from rmpe_jax.experiments.evaluate import evaluate_detector, evaluate_run, metrics_table

    use_compilation_cache()
    config, variables, version, folder = model_of_file() if _MODEL.value else model_of_run()
    folder = pathlib.Path(_OUT.value or folder)
    specs = (_DATA.value,) if _DATA.value else tuple(config.data.evaluate)
    if not specs:
        raise UserError("no data set to evaluate on: give --data, or config.data.evaluate")
    for spec in specs:
        if config.model.task == "detection":
            out = folder / folder_name(spec)
            metrics = evaluate_detector(config, variables, spec, out)
            print(metrics_table({f"{spec}, {version}": metrics}))
            print(f"files: {out}")
            continue
        boxes = _BOXES.value
        nms = _NMS.value or ("none" if boxes == "gt" else "oks")
        parts = [folder_name(spec), pathlib.Path(boxes).stem]
        name = "-".join([*parts, pathlib.Path(nms).stem] if _NMS.value else parts)
        out = folder / name
        metrics = evaluate_run(
            config,
            variables,
            spec,
            boxes,
            out,
            flip_test=_FLIP_TEST.value,
            flip_shift=_FLIP_SHIFT.value,
            skip_unknown=_SKIP_UNKNOWN.value,
            nms=nms,
        )
        title = f"{spec}, boxes {boxes}, NMS {nms}, {version}"
        print(metrics_table({title: metrics}))
        print(f"files: {out}")


def model_of_run() -> tuple[ml_collections.ConfigDict, dict[str, Any], str, pathlib.Path]:
    """Config, variables, the step they are of, and the folder for files, of --workdir."""
    from rmpe_jax.config import validate
    from rmpe_jax.training.checkpoints import check_same_model, load_variables

    config = flags.FLAGS.config
    validate(config)
    workdir = pathlib.Path(_WORKDIR.value or "")
    checkpoints = workdir / ("checkpoints" if _CHECKPOINT.value == "last" else "best")
    variables, meta = load_variables(checkpoints)
    check_same_model(checkpoints, meta, config)
    return config, variables, f"step {meta['step']}", workdir / "eval"


def model_of_file() -> tuple[ml_collections.ConfigDict, dict[str, Any], str, pathlib.Path]:
    """Config, variables, the file's name, and the folder for files, of --model."""
    from rmpe_jax.model_io.pose_model import load_pose_model

    path = pathlib.Path(_MODEL.value or "")
    model = load_pose_model(path)
    model.build()  # says if config and variables do not belong together
    return model.config, model.variables, path.name, path.with_name(f"{path.stem}-eval")


def folder_name(spec: str) -> str:
    return spec.replace(":", "-").replace("/", "_")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
