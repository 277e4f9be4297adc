"""Measures what a localization network learns from more crops, in three ways.

  python -m rmpe_jax.experiments.ablation.budget \\
    --config=configs/ablation_synthetic.py --workdir=ablation --crops 5000 20000 80000

The localization network is trained as in the localization stages, with atomic proposals and the
parallel SPPE: by gradients, by central differences, and supervised, which means that a loss tells
it where the well-placed crop is. The SPPE is that of the first stage, which has seen people's own
boxes only, and stays frozen. A longer training continues a shorter one. After each number of crops,
it measures the distance of the views from the well-placed crops on held-out people, and AP in the
detector's boxes. Without SSTN the views are the crops themselves, so this distance is what a
training starts from. `WORKDIR/budget/` has all results; those that exist are not computed again.
"""

import importlib.util
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from rmpe_jax.arguments import Parser, non_negative_int, positive_int
from rmpe_jax.config import RunConfig, parse_config
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.bootstrap import interval
from rmpe_jax.evaluation.results import person_records
from rmpe_jax.experiments.ablation.config import AblationConfig, EvaluationSet
from rmpe_jax.experiments.ablation.guidance import held_out_measure, on_fit_data
from rmpe_jax.experiments.ablation.oracle import oracle_poses
from rmpe_jax.experiments.ablation.run import load_ablation, prepare_data, score_poses
from rmpe_jax.experiments.ablation.trainings import (
    Stage,
    Training,
    first_stage,
    localization_stage,
    teacher_stage,
)
from rmpe_jax.experiments.ablation.views import misplaced_boxes, views_sheet
from rmpe_jax.experiments.evaluate import evaluate_pose_model
from rmpe_jax.experiments.tables import markdown_table
from rmpe_jax.files import write_json
from rmpe_jax.model_io.checkpoints import open_manager, steps_of
from rmpe_jax.model_io.pose_model import PoseModel, load_pose_model
from rmpe_jax.training.loop import train
from rmpe_jax.training.pose_task import pose_task
from rmpe_jax.training.state import init_variables

SUPERVISED = "supervised"
WAYS = ("autodiff", "differences", SUPERVISED)  # to train
PLACEMENT_WEIGHT = 100.0  # of the supervised way: the other losses then hardly count
WITHOUT, IDEAL = "without", "ideal"  # systems without a localization network
NMS = "rmpe"  # a preset: nothing is learned here but the localization network
HELD_OUT_BATCHES = 8  # of 64 crops
DRAWN = 7  # crops


class Point(NamedTuple):
    """A system after a number of crops, of one seed.

    Attributes:
      crops: number of crops that the localization network was trained on.
      ap: in percent.
      resampled: AP on resamples of the images.
      placement: distance of the views from the well-placed crops, in half sides.
      parallel_loss: of the parallel SPPE, on the same crops.
    """

    crops: int
    ap: float
    resampled: Float[np.ndarray, " b"]
    placement: float
    parallel_loss: float


Points = dict[tuple[str, int], dict[int, Point]]  # by system and number of crops, then by seed


def budget_stage(
    ablation: AblationConfig, way: str, crops: int, seed: int, folder: pathlib.Path
) -> Stage:
    """The localization stage with a number of crops, rounded up to a batch.

    Args:
      ablation: its settings.
      way: one of `WAYS`.
      crops: number of crops.
      seed: of the training.
      folder: of the ablation.
    """
    guidance = "autodiff" if way == SUPERVISED else way
    training = Training("atomic", sstn=True, parallel=True, guidance=guidance)
    config, _ = localization_stage(ablation, training, seed, folder)
    config.total_steps = -(-crops // config.batch_size)
    if way == SUPERVISED:
        config.sstn.placement_weight = PLACEMENT_WEIGHT
    return config, folder / "budget" / f"seed{seed}" / way


def measure(
    ablation: AblationConfig,
    crops: Sequence[int],
    seed: int,
    folder: pathlib.Path,
    ways: Sequence[str] = WAYS,
) -> None:
    """Trains and measures one seed; what is measured already is not measured again.

    Args:
      ablation: its settings.
      crops: numbers of crops to measure after.
      seed: of the trainings.
      folder: of the ablation.
      ways: of `WAYS`.

    Raises:
      UserError: a training has had more crops than a number that is still to be measured; the
        ablation has several datasets, or no first stage of its own.
    """
    if len(ablation.sets) != 1 or ablation.first:
        raise UserError(
            "the budget is measured on one dataset, from a first stage of the ablation: use a "
            "config with one of config.ablation.sets and an empty config.ablation.first"
        )
    (datasets,) = ablation.sets.values()
    if ablation.teacher:
        train(*teacher_stage(ablation, seed, folder))
    config, workdir = first_stage(ablation, seed, folder)
    train(config, workdir)
    sppe = load_pose_model(workdir, "last")
    if not (out := _point(folder, seed, WITHOUT, 0)).exists():
        config, _ = budget_stage(ablation, WAYS[0], 0, seed, folder)
        found = _placement(ablation, parse_config(config))
        _score(_find_poses(sppe, datasets, out), datasets, out, found)
    if not (out := _point(folder, seed, IDEAL, 0)).exists():
        oracle_poses(sppe, datasets.data, datasets.boxes, out.with_suffix(""))
        _score(out.with_suffix("") / "results.json", datasets, out, {})
    for count in sorted(crops):
        for way in ways:
            out = _point(folder, seed, way, count)
            if out.exists():
                continue
            config, workdir = budget_stage(ablation, way, count, seed, folder)
            _require_no_more_steps(workdir, config.total_steps)
            train(config, workdir)
            model = load_pose_model(workdir, "last")
            found = _placement(ablation, parse_config(config), model.variables)
            _score(_find_poses(model, datasets, out), datasets, out, found)
            print(f"seed {seed}, {way}, {count:,} crops: {json.dumps(found)}", flush=True)


def read_points(folder: pathlib.Path) -> Points:
    """All points that are measured."""
    points: Points = {}
    for path in sorted((folder / "budget").glob("seed*/points/*.json")):
        seed = int(path.parts[-3].removeprefix("seed"))
        name, _, crops = path.stem.rpartition("_")
        content = json.loads(path.read_text())
        placement, loss = (content.get(key, np.nan) for key in ("placement", "parallel_loss"))
        resampled = 100 * np.load(_scored(path).with_suffix(".npy"))
        point = Point(int(crops), 100 * content["AP"], resampled, placement, loss)
        points.setdefault((name, int(crops)), {})[seed] = point
    return points


def budget_table(points: Points) -> str:
    """A Markdown table of means over seeds; brackets hold 95 % of resamples of images and seeds.

    Δ is the difference to AP without SSTN, of the same seeds and resamples.
    """
    rows = {}
    order = [WITHOUT, *WAYS, IDEAL]
    titles = {WITHOUT: "without SSTN", IDEAL: "ideal theta"}
    for name, crops in sorted(points, key=lambda key: (order.index(key[0]), key[1])):
        found = points[name, crops]
        pairs = [
            (point, points[WITHOUT, 0][seed])
            for seed, point in found.items()
            if name != WITHOUT and seed in points.get((WITHOUT, 0), {})
        ]
        title = titles.get(name, f"{name}, {crops:,} crops")
        rows[title] = [
            _with_interval([p.ap for p in found.values()], [p.resampled for p in found.values()]),
            _with_interval(
                [a.ap - b.ap for a, b in pairs], [a.resampled - b.resampled for a, b in pairs], "+"
            ),
            *(_mean([getattr(p, key) for p in found.values()]) for key in Point._fields[3:]),
            f"{len(found)}",
        ]
    return markdown_table("", ["AP", "Δ", "placement", "parallel loss", "n"], rows)


def plot_points(points: Points, path: pathlib.Path) -> None:
    """Placement and AP over crops, one line for each way and seed.

    Dotted: without SSTN; dashed: ideal theta; both are means over seeds.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    fields = {"placement": "view to well-placed crop, half sides", "ap": "AP in detector's boxes"}
    colors = dict(zip(WAYS, ("#e8710a", "#1d8f4e", "#3b6fd4"), strict=True))
    for axes, (field, title) in zip(figure.subplots(1, 2), fields.items(), strict=True):
        for way, color in colors.items():
            counts = sorted(crops for name, crops in points if name == way)
            for seed in sorted({seed for count in counts for seed in points[way, count]}):
                of_seed = [n for n in counts if seed in points[way, n]]
                values = [getattr(points[way, n][seed], field) for n in of_seed]
                axes.plot(of_seed, values, "o-", color=color, linewidth=1, markersize=3)
            axes.plot([], [], color=color, label=way)
        for name, label, style in ((WITHOUT, "without SSTN", ":"), (IDEAL, "ideal theta", "--")):
            mean = np.mean(
                [getattr(p, field) for p in points.get((name, 0), {}).values()] or [np.nan]
            )
            if np.isfinite(mean):
                axes.axhline(mean, color="black", linestyle=style, linewidth=0.8, label=label)
        axes.set_xscale("log")
        ticks = sorted({crops for _, crops in points if crops})
        axes.set_xticks(ticks, [f"{crops:,}" for crops in ticks])
        axes.minorticks_off()
        axes.set_xlabel("crops of the localization network", fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    # The last axes have all the lines.
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8
    )
    figure.savefig(path, dpi=90)


def draw_views(ablation: AblationConfig, seed: int, path: pathlib.Path) -> None:
    """Draws what the trained networks of a seed look at: a row for each way, in their order.

    Each crop of a misplaced box has the outline of the view, and the view to its right. Without
    such a box or a trained network, a line says so and nothing is drawn.

    Args:
      ablation: its settings; crops are of the first dataset.
      seed: of the trainings.
      path: of the image, in the folder `budget` of the ablation.
    """
    datasets = next(iter(ablation.sets.values()))
    requests, _ = misplaced_boxes(open_dataset(datasets.data), datasets.boxes, DRAWN)
    workdirs = [path.parent / f"seed{seed}" / way for way in WAYS]
    models = [load_pose_model(workdir, "last") for workdir in workdirs if workdir.is_dir()]
    if not requests or not models:
        print(f"no {path.name}: no trained network, or no misplaced box in {datasets.boxes}")
        return
    rows = [views_sheet(model, requests, columns=2 * DRAWN) for model in models]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


def _point(folder: pathlib.Path, seed: int, name: str, crops: int) -> pathlib.Path:
    """The file of a point; a folder of the same name has the poses."""
    return folder / "budget" / f"seed{seed}" / "points" / f"{name}_{crops}.json"


def _scored(out: pathlib.Path) -> pathlib.Path:
    """The file of a point's AP, beside its poses."""
    return out.with_suffix("") / "ap.json"


def _placement(
    ablation: AblationConfig, stage: RunConfig, variables: Any | None = None
) -> dict[str, float]:
    """Where the views of a localization stage are on held-out people; at the identity without
    `variables`.
    """
    measured = held_out_measure(stage, on_fit_data(stage, ablation), HELD_OUT_BATCHES)
    if variables is None:
        task = pose_task(stage)
        variables = init_variables(task.spec, task.model, stage.seed)
    placement, loss = measured(variables)
    return {"placement": placement, "parallel_loss": loss}


def _find_poses(model: PoseModel, datasets: EvaluationSet, out: pathlib.Path) -> pathlib.Path:
    """The file of the poses in the detector's boxes."""
    folder = out.with_suffix("")
    evaluate_pose_model(model, datasets.data, datasets.boxes, folder, skip_unknown=True)
    return folder / "results.json"


def _score(
    poses: pathlib.Path, datasets: EvaluationSet, out: pathlib.Path, found: dict[str, float]
) -> None:
    """Writes a point. Its file is last, so that a point that is there is whole."""
    scored = _scored(out)
    metrics = score_poses(open_dataset(datasets.data), person_records(poses), NMS, scored)
    write_json(out, metrics | found)


def _require_no_more_steps(workdir: pathlib.Path, steps: int) -> None:
    """A shorter training cannot be measured after a longer one."""
    folder = workdir / "checkpoints"
    if folder.is_dir():
        with open_manager(folder, read_only=True) as manager:
            done = max(steps_of(manager), default=0)
        if done > steps:
            raise UserError(
                f"{workdir} has been trained for {done} steps already, more than {steps}: remove "
                "it, or leave out this number of crops"
            )


def _with_interval(values: list[float], resampled: list[np.ndarray], sign: str = "") -> str:
    if not values:
        return ""
    limits = interval(np.array(resampled), seed=1)
    mean, low, high = (f"{value:{sign}.1f}" for value in (np.mean(values), *limits))
    return f"{mean} [{low}, {high}]"


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.3f}" if np.isfinite(values).all() else ""


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="FILE or FILE:ARGUMENT")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of rmpe ablate")
    parser.add_argument(
        "--seeds",
        type=non_negative_int,
        nargs="+",
        default=[0],
        help="of the trainings; default: 0",
    )
    parser.add_argument(
        "--crops",
        type=positive_int,
        nargs="+",
        default=[5000, 20000, 80000],
        help="numbers of crops to measure after; default: 5000 20000 80000",
    )
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=WAYS, help="to train; default: all"
    )
    args = parser.parse_args()
    use_compilation_cache()

    def print_budget() -> None:
        ablation = load_ablation(args.config)
        prepare_data(ablation, args.workdir)
        for seed in args.seeds:
            measure(ablation, args.crops, seed, args.workdir, args.ways)
        points = read_points(args.workdir)
        print(budget_table(points))
        if importlib.util.find_spec("matplotlib"):
            plot_points(points, args.workdir / "budget" / "budget.png")
        draw_views(ablation, args.seeds[0], args.workdir / "budget" / "views.jpg")

    return run(print_budget)


if __name__ == "__main__":
    sys.exit(main())
