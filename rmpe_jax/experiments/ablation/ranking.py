"""Measures what pose NMS gains by eliminating poses, and what by ranking people.

  python -m rmpe_jax.experiments.ablation.ranking \\
    --config=configs/ablation_synthetic.py --workdir=ablation

The rows of the ablation that compare NMS differ in which poses stay and in the score that people
are ranked by. Here each way to eliminate poses is ranked by the mean score of the joints, as preset
`rmpe` does, and by that mean times the score of the box. It reads the whole system's poses of
`rmpe ablate`.
"""

import dataclasses
import functools
import pathlib
import sys

import numpy as np

from rmpe_jax.arguments import Parser
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.bootstrap import image_resamples, interval, resampled_ap
from rmpe_jax.evaluation.coco import coco_ap, ranked_poses
from rmpe_jax.evaluation.nms import Nms, apply_nms, open_nms
from rmpe_jax.evaluation.results import person_records
from rmpe_jax.experiments.ablation.config import AblationConfig
from rmpe_jax.experiments.ablation.rows import FULL
from rmpe_jax.experiments.ablation.run import RESAMPLES, load_ablation, poses_path
from rmpe_jax.experiments.tables import markdown_table
from rmpe_jax.pose_nms import PoseNmsParams, pose_nms_batch
from rmpe_jax.skeletons import Skeleton

RANKINGS = ("mean joint score", "times the box's score")
_BOXES = "by NMS of boxes"

_Scored = tuple[float, np.ndarray]  # AP and resampled AP of a seed, or differences of these


def ranking_table(ablation: AblationConfig, folder: pathlib.Path) -> str:
    """A Markdown table of AP on the first dataset: a row for each NMS, columns for each ranking.

    Brackets hold 95 % of resamples of images and seeds. Δ is the difference to NMS of boxes in the
    same ranking.

    Args:
      ablation: its settings.
      folder: of the ablation.

    Raises:
      UserError: no seed has the whole system's poses, or their metric is not AP.
    """
    name, datasets = next(iter(ablation.sets.items()))
    dataset = open_dataset(datasets.data)
    if dataset.skeleton.name != "coco":
        raise UserError(f"{datasets.data} is not scored by AP: name an ablation whose first set is")
    files = [
        path
        for seed in ablation.seeds
        if (path := poses_path(folder, seed, FULL, name, "detector")).exists()
    ]
    if not files:
        raise UserError(f"{folder} has no poses of the whole system: run rmpe ablate first")
    draws = image_resamples(len(dataset.images), RESAMPLES, seed=0)
    found: dict[tuple[str, str], list[_Scored]] = {}
    skeleton = dataset.skeleton
    eliminations = _eliminations(skeleton)
    for title, nms in eliminations.items():
        for path in files:
            poses = person_records(path)
            if nms:
                poses = apply_nms(poses, skeleton.num_keypoints, dataset.image_ids, nms)
            for ranking in RANKINGS:
                ranked = rank(poses, ranking)
                ap = coco_ap(dataset, ranked)["AP"]
                resampled = resampled_ap(ranked_poses(dataset, ranked), draws)
                found.setdefault((title, ranking), []).append((ap, resampled))
    rows = {}
    for title in eliminations:
        rows[title] = []
        for ranking in RANKINGS:
            ours, theirs = found[title, ranking], found[_BOXES, ranking]
            deltas = [(a - b, x - y) for (a, x), (b, y) in zip(ours, theirs, strict=True)]
            rows[title] += [_cell(ours, ""), "" if title == _BOXES else _cell(deltas, "+")]
    columns = [column for ranking in RANKINGS for column in (ranking, "Δ")]
    return markdown_table("eliminated", columns, rows)


def rank(poses: list[dict], ranking: str) -> list[dict]:
    """Poses in COCO's result format with the score that `ranking`, of `RANKINGS`, gives them."""
    ranked = []
    for pose in poses:
        score = float(np.mean(pose["keypoints"][2::3]))
        if ranking != RANKINGS[0]:
            score *= pose["bbox_score"]
        ranked.append(pose | {"score": score})
    return ranked


def _eliminations(skeleton: Skeleton) -> dict[str, Nms | None]:
    """The ways to eliminate poses, by the title of their row."""
    preset = PoseNmsParams.preset("rmpe")
    variant = dataclasses.replace(preset.variant, merge="none")
    params = dataclasses.replace(preset, variant=variant)
    return {
        "nothing": None,
        _BOXES: open_nms("box", skeleton),
        "by NMS by OKS": open_nms("oks", skeleton),
        "by pose NMS, preset rmpe": open_nms("rmpe", skeleton),
        "the same, without merging": functools.partial(
            pose_nms_batch, params=params, skeleton=skeleton
        ),
    }


def _cell(found: list[_Scored], sign: str) -> str:
    """Mean over seeds and its interval, in percent."""
    limits = interval(np.array([resampled for _, resampled in found]), seed=1)
    values = (np.mean([ap for ap, _ in found]), *limits)
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in values)
    return f"{mean} [{low}, {high}]"


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="FILE or FILE:ARGUMENT")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of rmpe ablate")
    args = parser.parse_args()
    use_compilation_cache()
    return run(lambda: print(ranking_table(load_ablation(args.config), args.workdir)))


if __name__ == "__main__":
    sys.exit(main())
