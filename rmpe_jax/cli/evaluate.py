"""Evaluate a trained pose network or detector on a dataset.

  rmpe eval --model=runs/coco --data=coco:data/coco:val2017 --boxes=gt --flip-test
  rmpe eval --model=fastpose.safetensors --data=coco:data/coco:val2017 --boxes=boxes.json --nms=rmpe
  rmpe eval --config=configs/synthetic.py --workdir=demo/run --boxes=demo/val/detections.json

MODEL is a training workdir, a model file, a folder of a ViTPose, hf:USER/REPOSITORY, builtin, or
builtin-small. With --config and --workdir, the config defines how crops are made, how heatmaps are
decoded, and the datasets. `python eval.py` is the same.

Prints the metrics, and writes metrics.json, results.json (COCO's result format) and people.png
(best, median and worst people) to NAME-eval/ beside MODEL, or to WORKDIR/eval/, in one
folder per dataset, kind of boxes and NMS. For a detector it writes metrics.json and
detections.json, a file for --boxes.

Several processes divide the images: run the command on each, with --coordinator, --num-processes
and --process-id.
"""

import dataclasses
import logging
import pathlib
from typing import TYPE_CHECKING, Any, cast

from absl import flags
from ml_collections import config_flags

from rmpe_jax.cli import process_flags
from rmpe_jax.entry import run_app, use_compilation_cache
from rmpe_jax.predict.decoder_messages import without_decoder_messages

if TYPE_CHECKING:
    from rmpe_jax.config import DataConfig
    from rmpe_jax.model_io.detector_model import DetectorModel
    from rmpe_jax.model_io.pose_model import PoseModel

    _Trained = PoseModel | DetectorModel

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A training workdir, a model file, a folder of a ViTPose, hf:USER/REPOSITORY, builtin, or "
    "builtin-small.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "A training workdir, with --config.")
_DATA = flags.DEFINE_string(
    "data", None, "Dataset, such as coco:FOLDER:val2017; default: those of config.data.evaluate."
)
_BOXES = flags.DEFINE_string(
    "boxes", "gt", "gt, or a file of detections in COCO's or AlphaPose's format."
)
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    None,
    ["last", "best"],
    "Checkpoint of a workdir; default: the last with --workdir, the best (if any) with --model.",
)
_FLIP_TEST = flags.DEFINE_bool("flip_test", False, "Average with the mirrored crop.")
_FLIP_SHIFT = flags.DEFINE_bool(
    "flip_shift",
    False,
    "Move mirrored heatmaps by a whole pixel, as AlphaPose does; default: by what the alignment "
    "asks for, .75 heatmap pixels for first_pixel at stride 4, 0 for the others.",
)
_NMS = flags.DEFINE_string(
    "nms",
    None,
    "NMS of the poses before they are scored: none, box, oks, soft_oks, paper, rmpe, alphapose, or "
    "a params.json of rmpe fit-nms; default: none for annotated boxes, oks for a detector's.",
)
_SKIP_UNKNOWN = flags.DEFINE_bool(
    "skip_unknown", False, "Skip detections on images that the dataset does not have."
)
_MAX_SUSPICIOUS = flags.DEFINE_float(
    "max_suspicious",
    None,
    "Fraction of people, boxes or images whose labels may not fit; default: that of the config, or "
    "0.2.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_OUT = flags.DEFINE_string("out", None, "Folder to write, instead of the one above.")
flags.adopt_module_key_flags(process_flags)
config_flags.DEFINE_config_file(
    "config", None, "FILE or FILE:ARGUMENT, such as a file of configs/."
)


def main() -> None:
    """Runs the command line and exits."""
    run_app(evaluate_by_flags, __name__)


@without_decoder_messages()
def evaluate_by_flags() -> None:
    """Evaluates with the parsed flags."""
    from rmpe_jax.errors import UserError
    from rmpe_jax.experiments.evaluate import (
        evaluate_detector_model,
        evaluate_pose_model,
        metrics_table,
    )
    from rmpe_jax.model_io.detector_model import DetectorModel
    from rmpe_jax.object_store import is_address
    from rmpe_jax.processes import agreed, is_first_process

    by_model, by_workdir = _MODEL.value is not None, _WORKDIR.value is not None
    if by_model == by_workdir or (by_workdir and flags.FLAGS.config is None):
        raise UserError("give --model, or --config and --workdir; --help shows the flags")
    use_compilation_cache()
    process_flags.join_by_flags()
    if not is_first_process():
        logging.getLogger().setLevel(logging.ERROR)  # process 0 says the same
    model, folder, config = agreed(_load_by_model if by_model else _load_by_config)
    if _OUT.value and is_address(_OUT.value):
        raise UserError(f"--out={_OUT.value}: results are written to a folder: name one")
    folder = pathlib.Path(_OUT.value or folder)
    datasets = (_DATA.value,) if _DATA.value else config.evaluate
    suspicious = _MAX_SUSPICIOUS.value
    suspicious = config.max_suspicious if suspicious is None else suspicious
    if not datasets:
        raise UserError("no dataset to evaluate on: give --data or config.data.evaluate")
    for data in datasets:
        if isinstance(model, DetectorModel):
            out = folder / _folder_name(data)
            title = f"{data}, {model.version}"
            metrics = evaluate_detector_model(model, data, out, suspicious)
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
                num_threads=config.num_threads,
                max_suspicious=suspicious,
            )
        if is_first_process():
            print(metrics_table({title: metrics}))
            print(f"files: {out}")


def _load_by_model() -> "tuple[_Trained, pathlib.Path, DataConfig]":
    """The model of --model, the folder to write, and the defaults of `config.data`."""
    from rmpe_jax.config import DataConfig
    from rmpe_jax.interop.hub import is_hub_name
    from rmpe_jax.model_io.load import load_trained
    from rmpe_jax.object_store import is_address

    name = _MODEL.value or ""
    model = load_trained(name, cast(Any, _CHECKPOINT.value))
    # Of `hf:USER/REPOSITORY` and of an address in an object store, the last part.
    elsewhere = is_hub_name(name) or is_address(name)
    path = pathlib.Path(name.rstrip("/").rpartition("/")[2] if elsewhere else name)
    return model, path.with_name(f"{path.stem}-eval"), DataConfig()


def _load_by_config() -> "tuple[_Trained, pathlib.Path, DataConfig]":
    """The model of --config with weights of --workdir, the folder to write, and `config.data`."""
    from rmpe_jax.config import model_spec, parse_config, require_same_network
    from rmpe_jax.errors import UserError
    from rmpe_jax.model_io.load import load_trained
    from rmpe_jax.models.spec import ModelSpec
    from rmpe_jax.object_store import is_address

    run = parse_config(flags.FLAGS.config)
    spec = model_spec(run)
    if isinstance(spec, ModelSpec):
        spec = dataclasses.replace(spec, parallel="")  # evaluation does not run it
    workdir = _WORKDIR.value or ""
    if is_address(workdir) and not _OUT.value:
        raise UserError(f"{workdir}: results are written to a folder: give --out")
    model = load_trained(workdir, cast(Any, _CHECKPOINT.value or "last"))
    require_same_network(workdir, model.spec, spec)
    model = model._replace(spec=cast(Any, spec))
    return model, pathlib.Path(workdir) / "eval", run.data


def _folder_name(data: str) -> str:
    return data.replace(":", "-").replace("/", "_")
