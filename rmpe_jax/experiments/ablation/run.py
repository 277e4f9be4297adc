"""Trains and scores every row. Run again, it resumes.

Existing results are not computed again: a training resumes from its last checkpoint; poses and
scores are files. `WORKDIR/seedN/` contains the trainings, their poses before NMS in `poses/`, the
learned parameters of pose NMS in `nms/`, and the scores in `rows/`.
"""

import functools
import json
import pathlib
import sys

from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.evaluation.coco import coco_ap
from rmpe_jax.evaluation.nms import apply_nms, open_nms
from rmpe_jax.evaluation.protocol import score_results
from rmpe_jax.evaluation.results import person_records
from rmpe_jax.experiments.ablation.config import AblationConfig, parse_ablation
from rmpe_jax.experiments.ablation.rows import FULL, Row, select_rows, unique_trainings
from rmpe_jax.experiments.ablation.trainings import Training, pgpg_folder, stages
from rmpe_jax.experiments.evaluate import evaluate_pose_model
from rmpe_jax.experiments.fit_nms import fit_nms, search_line
from rmpe_jax.experiments.fit_pgpg import Options, fit_from_files
from rmpe_jax.experiments.scenes import draw_scenes
from rmpe_jax.experiments.stages import load_config
from rmpe_jax.files import write_json
from rmpe_jax.pose_nms import load_params

PRESETS = ("paper", "rmpe", "alphapose")


def load_ablation(spec: str) -> AblationConfig:
    """The ablation of a config file, FILE or FILE:ARGUMENT, with all its stages checked.

    Raises:
      UserError: there is no such file, or its config is not a valid ablation.
    """
    from rmpe_jax.config import parse_config

    config = load_config(spec)
    try:
        ablation = parse_ablation(config)
    except UserError as error:
        raise UserError(f"{spec}: {error}") from None
    for training in unique_trainings(select_rows(ablation.trainings)):
        for stage, _ in stages(ablation, training, 0, pathlib.Path()):
            parse_config(stage)
    return ablation


def run_seed(ablation: AblationConfig, folder: pathlib.Path, seed: int) -> None:
    """Trains and scores all rows of a seed, with the data that `prepare_data` has made.

    Args:
      ablation: its settings.
      folder: of the ablation.
      seed: of the trainings.

    Raises:
      UserError: data, config or folder cannot be used.
    """
    rows = select_rows(ablation.trainings)
    for training in unique_trainings(rows):
        find_poses(ablation, training, seed, folder)
        for row in rows:
            if row.training == training:
                score_row(ablation, row, seed, folder)


def prepare_data(ablation: AblationConfig, folder: pathlib.Path) -> None:
    """Draws the synthetic scenes and fits PGPG, unless that is done.

    The datasets of `ablation.sets` are opened before the fit, so that a wrong path is found at
    once.

    Raises:
      UserError: data or folder cannot be used.
    """
    for name, (first, count) in ablation.scenes.items():
        draw_scenes(pathlib.Path(ablation.scenes_folder) / name, range(first, first + count))
    if not (pgpg_folder(folder) / "pgpg.npz").exists():
        for datasets in ablation.sets.values():
            load_boxes(open_dataset(datasets.data), datasets.boxes, skip_unknown=True)
            load_boxes(open_dataset(datasets.fit_data), datasets.fit_boxes, skip_unknown=True)
        _log("fitting PGPG to the detector's boxes")
        options = Options(
            num_atoms=(0, 4, 8, 16),
            num_components=(1, 2, 4, 8),
            min_iou=0.5,
            min_score=0.09,
            seed=0,
        )
        print(fit_from_files(pgpg_folder(folder), ablation.pgpg, (), options))


def find_poses(
    ablation: AblationConfig, training: Training, seed: int, folder: pathlib.Path
) -> None:
    """Trains a system, and writes its poses on all boxes, before NMS."""
    from rmpe_jax.model_io.pose_model import load_pose_model
    from rmpe_jax.training.loop import train

    required = {}
    for name, datasets in ablation.sets.items():
        required[name, "detector"] = datasets.data, datasets.boxes
        if training == FULL:
            required[name, "gt"] = datasets.data, "gt"
            required[name, "fit"] = datasets.fit_data, datasets.fit_boxes
    missing = {
        key: value
        for key, value in required.items()
        if not _poses_path(folder, seed, training, *key).exists()
    }
    if not missing:
        return
    for stage, workdir in stages(ablation, training, seed, folder):
        _log(f"{workdir}:")
        train(stage, workdir)
    model = load_pose_model(workdir, "last")
    for key, (data, boxes) in missing.items():
        out = _poses_path(folder, seed, training, *key).parent
        evaluate_pose_model(model, data, boxes, out, skip_unknown=True)


def score_row(ablation: AblationConfig, row: Row, seed: int, folder: pathlib.Path) -> None:
    """Writes the metrics of a row on each dataset, unless they exist."""
    for name, datasets in ablation.sets.items():
        path = row_path(folder, seed, name, row)
        if path.exists():
            continue
        dataset = open_dataset(datasets.data)
        poses = person_records(_poses_path(folder, seed, row.training, name, row.boxes))
        nms = row.nms
        if nms == "learned":
            nms = str(learn_nms(ablation, name, seed, folder))
        metrics = score_results(dataset, filter_results(dataset, poses, nms))
        write_json(path, metrics)
        _log(f"seed {seed}, {name}, {row.title}: {next(iter(metrics.values())):.4g}")


def learn_nms(ablation: AblationConfig, name: str, seed: int, folder: pathlib.Path) -> pathlib.Path:
    """The file of pose NMS parameters learned on the `fit_data` of a dataset.

    The search starts from the preset with the highest AP there. All rows use the parameters learned
    from the full system's poses.
    """
    out = folder / f"seed{seed}" / "nms" / name
    if not (out / "params.json").exists():
        path = _poses_path(folder, seed, FULL, name, "fit")
        dataset = open_dataset(ablation.sets[name].fit_data)
        poses = person_records(path)
        ap = {p: coco_ap(dataset, filter_results(dataset, poses, p))["AP"] for p in PRESETS}
        start = max(PRESETS, key=ap.__getitem__)
        _log(f"learning pose NMS, starting from preset {start}: " + json.dumps(ap))
        report = functools.partial(print, file=sys.stderr)
        fit_nms(
            path,
            dataset,
            out,
            load_params(start),
            dataset.skeleton,
            steps=ablation.nms_steps,
            report=lambda search: report(search_line(search)),
        )
    return out / "params.json"


def filter_results(dataset: PoseDataset, results: list[dict], nms: str) -> list[dict]:
    """Results of a dataset after NMS.

    Args:
      dataset: the dataset.
      results: in COCO's result format, before NMS.
      nms: a name for `nms.open_nms`.
    """
    suppress = open_nms(nms, dataset.skeleton)
    if suppress is None:
        return results
    return apply_nms(results, dataset.skeleton.num_keypoints, dataset.image_ids, suppress)


def row_path(folder: pathlib.Path, seed: int, name: str, row: Row) -> pathlib.Path:
    """The file of a row's metrics on the dataset called `name`."""
    return folder / f"seed{seed}" / "rows" / name / f"{row.name}.json"


def _poses_path(
    folder: pathlib.Path, seed: int, training: Training, name: str, boxes: str
) -> pathlib.Path:
    return folder / f"seed{seed}" / "poses" / training.name / f"{name}_{boxes}" / "results.json"


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
