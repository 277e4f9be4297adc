"""Trains and scores every row. Run again, it resumes.

Existing results are not computed again: a training resumes from its last checkpoint; poses and
scores are files. `WORKDIR/seedN/` contains the trainings, their poses before NMS in `poses/`, the
learned parameters of pose NMS in `nms/`, and the scores in `rows/`.
"""

import dataclasses
import functools
import json
import pathlib
import sys

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.bootstrap import image_resamples, resampled_ap, resampled_map
from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.evaluation.coco import coco_ap, ranked_poses
from rmpe_jax.evaluation.mpii import ranked_joints
from rmpe_jax.evaluation.mpii_people import mpii_ground_truth, mpii_predictions
from rmpe_jax.evaluation.nms import apply_nms, open_nms
from rmpe_jax.evaluation.protocol import score_results
from rmpe_jax.evaluation.results import person_records
from rmpe_jax.experiments.ablation.config import AblationConfig, EvaluationSet, parse_ablation
from rmpe_jax.experiments.ablation.oracle import oracle_poses
from rmpe_jax.experiments.ablation.rows import FULL, Row, select_rows, unique_trainings
from rmpe_jax.experiments.ablation.trainings import (
    CONTEXT,
    Training,
    jitter_path,
    mixture_folder,
    pgpg_folder,
    stages,
)
from rmpe_jax.experiments.evaluate import evaluate_pose_model
from rmpe_jax.experiments.fit_nms import PRESETS, fit_nms
from rmpe_jax.experiments.fit_pgpg import Options, fit_from_files, read_set
from rmpe_jax.experiments.scenes import draw_scenes
from rmpe_jax.experiments.searches import search_line
from rmpe_jax.experiments.stages import load_config
from rmpe_jax.files import atomic_write, write_json
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.pgpg.fit import MIN_IOU
from rmpe_jax.pgpg.model import iou_from_offsets
from rmpe_jax.pgpg.sample import jitter_strength
from rmpe_jax.pose_nms import load_params

RESAMPLES = 500  # of images and seeds, for the intervals
_PGPG_OPTIONS = Options(
    num_atoms=(0, 4, 8, 16), num_components=(1, 2, 4, 8), min_iou=MIN_IOU, min_score=0.09, seed=0
)


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
    rows = select_rows(ablation.trainings)
    if FULL not in unique_trainings(rows) and any(row.nms == "learned" for row in rows):
        raise UserError(
            f"{spec}: config.ablation.trainings={ablation.trainings!r} lacks {FULL.name}, from "
            "whose poses NMS is learned: add it"
        )
    for training in unique_trainings(rows):
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
    """Draws the synthetic scenes, fits PGPG and matches the random jitter, unless that is done.

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
        print(fit_from_files(pgpg_folder(folder), ablation.pgpg, (), _PGPG_OPTIONS))
    wanted = {training.proposals for training in unique_trainings(select_rows(ablation.trainings))}
    if "mixture" in wanted and not (mixture_folder(folder) / "pgpg.npz").exists():
        _log("fitting PGPG without atoms")
        without_atoms = dataclasses.replace(_PGPG_OPTIONS, num_atoms=(0,))
        print(fit_from_files(mixture_folder(folder), ablation.pgpg, (), without_atoms))
    if not jitter_path(folder).exists():
        median = median_iou(ablation)
        content = {"median_iou": median, "strength": jitter_strength(median)}
        write_json(jitter_path(folder), content)


def median_iou(ablation: AblationConfig) -> float:
    """The median IoU with people's boxes of the detected boxes that PGPG is fitted to."""
    sets = [read_set(spec, files, _PGPG_OPTIONS) for spec, *files in ablation.pgpg]
    offsets = np.concatenate([one.samples.offsets for one in sets])
    return float(np.median(iou_from_offsets(offsets)))


def find_poses(
    ablation: AblationConfig, training: Training, seed: int, folder: pathlib.Path
) -> None:
    """Trains a system, and writes its poses on all boxes, before NMS."""
    from rmpe_jax.model_io.pose_model import load_pose_model
    from rmpe_jax.training.loop import train

    rows = [row for row in select_rows(ablation.trainings) if row.training == training]
    kinds = [(row.boxes, row.decode) for row in rows]
    kinds += [("fit", "crop")] if training == FULL else []
    missing = [
        (name, boxes, decode)
        for name in ablation.sets
        for boxes, decode in dict.fromkeys(kinds)
        if not poses_path(folder, seed, training, name, boxes, decode).exists()
    ]
    if not missing:
        return
    for stage, workdir in stages(ablation, training, seed, folder):
        _log(f"{workdir}:")
        train(stage, workdir)
    model = load_pose_model(workdir, "last")
    for name, boxes, decode in missing:
        out = poses_path(folder, seed, training, name, boxes, decode).parent
        _write_poses(model, ablation.sets[name], boxes, decode, out)


def _write_poses(
    model: PoseModel, datasets: EvaluationSet, boxes: str, decode: str, out: pathlib.Path
) -> None:
    """Poses on one kind of boxes, as of `Row.boxes`, or `fit`: those that NMS is learned from."""
    if boxes in ("oracle", "oracle_context"):
        context = CONTEXT if boxes == "oracle_context" else 1.0
        oracle_poses(model, datasets.data, datasets.boxes, out, context)
        return
    data, file = {
        "detector": (datasets.data, datasets.boxes),
        "gt": (datasets.data, "gt"),
        "fit": (datasets.fit_data, datasets.fit_boxes),
    }[boxes]
    spec = dataclasses.replace(model.spec, sstn_decode=decode)
    evaluate_pose_model(model._replace(spec=spec), data, file, out, skip_unknown=True)


def score_row(ablation: AblationConfig, row: Row, seed: int, folder: pathlib.Path) -> None:
    """Writes the metrics of a row on each dataset, unless they exist."""
    for name, datasets in ablation.sets.items():
        path = row_path(folder, seed, name, row)
        if path.exists():
            continue
        files = poses_path(folder, seed, row.training, name, row.boxes, row.decode)
        nms = row.nms
        if nms == "learned":
            nms = str(learn_nms(ablation, name, seed, folder))
        metrics = score_poses(open_dataset(datasets.data), person_records(files), nms, path)
        _log(f"seed {seed}, {name}, {row.title}: {next(iter(metrics.values())):.4g}")


def score_poses(
    dataset: PoseDataset, poses: list[dict], nms: str, path: pathlib.Path
) -> dict[str, float]:
    """Writes the metrics of poses after NMS.

    For AP and MPII's mAP it also writes their values on resamples of the images, which are the same
    for all systems. Intervals are computed from them.

    Args:
      dataset: the annotated images.
      poses: in COCO's result format, before NMS.
      nms: a name for `nms.open_nms`.
      path: of the JSON file of the metrics; that of the resamples ends in `.npy`.

    Returns:
      The metrics.
    """
    results = filter_results(dataset, poses, nms)
    metrics = score_results(dataset, results)
    resampled = None
    draws = image_resamples(len(dataset.images), RESAMPLES, seed=0)
    if dataset.skeleton.name == "coco":
        resampled = resampled_ap(ranked_poses(dataset, results), draws)
    elif dataset.skeleton.name == "mpii":
        joints = ranked_joints(mpii_ground_truth(dataset), mpii_predictions(results))
        resampled = resampled_map(joints, draws)
    if resampled is not None:
        with atomic_write(path.with_suffix(".npy"), "wb") as file:
            np.save(file, resampled)
    write_json(path, metrics)
    return metrics


def learn_nms(ablation: AblationConfig, name: str, seed: int, folder: pathlib.Path) -> pathlib.Path:
    """The file of pose NMS parameters learned on the `fit_data` of a dataset.

    The search starts from the preset with the highest AP there. All rows use the parameters learned
    from the full system's poses.
    """
    out = folder / f"seed{seed}" / "nms" / name
    if not (out / "params.json").exists():
        path = poses_path(folder, seed, FULL, name, "fit")
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
            report=lambda search: report(search_line(search, "AP")),
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


def load_resampled(
    folder: pathlib.Path, seed: int, name: str, row: Row
) -> Float[np.ndarray, " b"] | None:
    """The metric of a row on each resample of the images; None if that was not written.

    AP is a fraction, MPII's mAP is in percent.
    """
    path = row_path(folder, seed, name, row).with_suffix(".npy")
    return np.load(path) if path.exists() else None


def poses_path(
    folder: pathlib.Path,
    seed: int,
    training: Training,
    name: str,
    boxes: str,
    decode: str = "crop",
) -> pathlib.Path:
    """The file of a system's poses before NMS; arguments as of `Row`."""
    poses = f"{name}_{boxes}" + "_view" * (decode == "view")
    return folder / f"seed{seed}" / "poses" / training.name / poses / "results.json"


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
