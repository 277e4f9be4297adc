"""Trains and scores every row; run again it goes on where it was stopped.

What is written is not done again: a training goes on from its last checkpoint, poses and scores are
files. `WORKDIR/seedN/` has the trainings, in `poses/` what they find before any NMS, in `nms/` the
parameters learned, in `rows/` the scores.
"""

import functools
import json
import pathlib
import sys

import ml_collections

from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.coco import coco_ap, coco_content
from rmpe_jax.evaluation.nms import open_nms, suppressed
from rmpe_jax.evaluation.protocol import score_results
from rmpe_jax.evaluation.results import person_records
from rmpe_jax.experiments.ablation.rows import FULL, Row, rows_of, trainings_of
from rmpe_jax.experiments.ablation.trainings import Training, pgpg_folder, stages
from rmpe_jax.experiments.evaluate import evaluate_pose_model
from rmpe_jax.experiments.fit_nms import fit_nms, search_line
from rmpe_jax.experiments.fit_pgpg import Options, fit_from_files
from rmpe_jax.experiments.scenes import draw_scenes
from rmpe_jax.experiments.stages import load_config
from rmpe_jax.files import write_json
from rmpe_jax.pose_nms import load_params

PRESETS = ("paper", "rmpe", "alphapose")


def load_ablation(spec: str) -> ml_collections.ConfigDict:
    """The config of FILE or FILE:ARGUMENT, looked through before anything is trained.

    Raises:
      UserError: there is no such file, or it cannot be an ablation's.
    """
    from rmpe_jax.config import parse_config

    config = load_config(spec)
    if "ablation" not in config:
        raise UserError(f"{spec}: it has no config.ablation; name configs/ablation_synthetic.py")
    for training in trainings_of(rows_of(tuple(config.ablation.trainings))):
        for stage, _ in stages(config, training, 0, pathlib.Path()):
            parse_config(stage)
    return config


def run_seed(config: ml_collections.ConfigDict, folder: pathlib.Path, seed: int) -> None:
    """Trains and scores all rows of a seed.

    Args:
      config: of the ablation, such as that of configs/ablation_synthetic.py.
      folder: the ablation's.
      seed: of the trainings.

    Raises:
      UserError: data, config or folder cannot be used.
    """
    prepare(config, folder)
    rows = rows_of(tuple(config.ablation.trainings))
    for training in trainings_of(rows):
        find_poses(config, training, seed, folder)
        for row in rows:
            if row.training == training:
                score_row(config, row, seed, folder)


def prepare(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
    """Draws the scenes that the config names, and fits PGPG."""
    for place, (first, count) in config.ablation.scenes.items():
        scenes = pathlib.Path(config.ablation.scenes_folder) / place
        draw_scenes(scenes, range(first, first + count))
    if not (pgpg_folder(folder) / "pgpg.npz").exists():
        _say("PGPG is fitted to the detector's boxes")
        data = [list(of) for of in config.ablation.pgpg]
        options = Options(
            num_atoms=(0, 4, 8, 16),
            num_components=(1, 2, 4, 8),
            min_iou=0.5,
            min_score=0.09,
            seed=0,
        )
        print(fit_from_files(pgpg_folder(folder), data, (), options))


def find_poses(
    config: ml_collections.ConfigDict, training: Training, seed: int, folder: pathlib.Path
) -> None:
    """Trains, and writes the poses that the network finds on all boxes, before any NMS."""
    from rmpe_jax.model_io.pose_model import load_pose_model
    from rmpe_jax.training.loop import train

    wanted = {}
    for name, of in config.ablation.sets.items():
        wanted[name, "detector"] = of.data, of.boxes
        if training == FULL:
            wanted[name, "gt"] = of.data, "gt"
            wanted[name, "fit"] = of.fit_data, of.fit_boxes
    missing = {
        key: value
        for key, value in wanted.items()
        if not _poses(folder, seed, training, *key).exists()
    }
    if not missing:
        return
    for stage, workdir in stages(config, training, seed, folder):
        _say(f"{workdir}:")
        train(stage, workdir)
    model = load_pose_model(workdir, "last")
    for key, (data, boxes) in missing.items():
        out = _poses(folder, seed, training, *key).parent
        evaluate_pose_model(model, data, boxes, out, skip_unknown=True)


def score_row(config: ml_collections.ConfigDict, row: Row, seed: int, folder: pathlib.Path) -> None:
    """Writes the metrics of a row on each data set."""
    for name, of in config.ablation.sets.items():
        path = row_path(folder, seed, name, row)
        if path.exists():
            continue
        dataset = open_dataset(of.data)
        found = person_records(_poses(folder, seed, row.training, name, row.boxes))
        nms = row.nms
        if nms == "learned":
            nms = str(learn_nms(config, name, seed, folder))
        metrics = score_results(dataset, thinned(dataset, found, nms))
        write_json(path, metrics)
        _say(f"seed {seed}, {name}, {row.title}: {next(iter(metrics.values())):.4g}")


def learn_nms(
    config: ml_collections.ConfigDict, name: str, seed: int, folder: pathlib.Path
) -> pathlib.Path:
    """The file of pose NMS's parameters, learned where nothing is reported.

    The search starts from the preset that does best there. All rows use what is learned from the
    whole system's poses.
    """
    out = folder / f"seed{seed}" / "nms" / name
    if not (out / "params.json").exists():
        poses = _poses(folder, seed, FULL, name, "fit")
        dataset = open_dataset(config.ablation.sets[name].fit_data)
        content, found = coco_content(dataset), person_records(poses)
        sigmas = dataset.skeleton.oks_sigmas
        ap = {p: coco_ap(content, thinned(dataset, found, p), sigmas)["AP"] for p in PRESETS}
        start = max(PRESETS, key=ap.__getitem__)
        _say(f"pose NMS is learned from preset {start}: " + json.dumps(ap))
        report = functools.partial(print, file=sys.stderr)
        fit_nms(
            poses,
            content,
            out,
            load_params(start),
            dataset.skeleton,
            steps=config.ablation.nms_steps,
            report=lambda search: report(search_line(search)),
        )
    return out / "params.json"


def thinned(dataset: PoseDataset, results: list[dict], nms: str) -> list[dict]:
    """The results that the NMS of a name leaves."""
    suppress = open_nms(nms, dataset.skeleton)
    if suppress is None:
        return results
    image_ids = [picture.image_id for picture in dataset.images]
    return suppressed(results, dataset.skeleton.num_keypoints, image_ids, suppress)


def row_path(folder: pathlib.Path, seed: int, name: str, row: Row) -> pathlib.Path:
    """The file of a row's metrics on a data set of that name."""
    return folder / f"seed{seed}" / "rows" / name / f"{row.name}.json"


def _poses(
    folder: pathlib.Path, seed: int, training: Training, name: str, boxes: str
) -> pathlib.Path:
    return folder / f"seed{seed}" / "poses" / training.name / f"{name}_{boxes}" / "results.json"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
