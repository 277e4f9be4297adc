"""Plots of the ablation: differences to a system, and theta during training."""

import json
import os
import pathlib

import numpy as np
from matplotlib.figure import Figure

from rmpe_jax.experiments.ablation.rows import ScoredRow

_OURS, _PAPER = "#1478c8", "#cfd3da"
_COLORS = {  # of trainings
    "atomic_sstn_parallel": "#e8710a",
    "atomic_sstn": "#1478c8",
    "atomic_sstn_parallel_differences": "#1d8f4e",
    "atomic_sstn_differences": "#8a5cc2",
}
_TITLES = {  # of metrics
    "placement": "view to well-placed crop, half sides",
    "theta_change": "mean |theta - identity|",
    "theta_translation": "translation, half sides",
    "theta_scale": "scale of the view",
}


def plot_deltas(scores: list[ScoredRow], path: str | os.PathLike) -> None:
    """Bars: each row's difference to the first, beside the same difference in the paper.

    The lines on the bars are the intervals of the table, or the standard deviation over seeds.

    Args:
      scores: rows of the table; the first is the system that the others are compared to.
      path: of the file to write.
    """
    rows = scores[1:][::-1]
    figure = Figure(figsize=(8, 0.42 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(rows))
    means = [row.deltas.mean() for row in rows]
    errors = np.array([_error(row) for row in rows]).T
    paper = [row.paper_delta or 0 for row in rows]
    n = len(scores[0].values)
    here = f"here, {n} seeds" if n > 1 else "here, 1 seed"
    axes.barh(y + 0.2, means, 0.38, xerr=errors, color=_OURS, label=here)
    axes.barh(y - 0.2, paper, 0.38, color=_PAPER, label="paper, MPII, mAP")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(y, [row.row.title for row in rows], fontsize=8)
    axes.set_xlabel(f"{scores[0].metric} minus that of: {scores[0].row.title}, points")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside lower right", ncols=2)
    figure.savefig(path, dpi=90)


def _error(row: ScoredRow) -> tuple[float, float]:
    """Lengths of the line to the left and to the right of the end of a row's bar."""
    mean = float(row.deltas.mean())
    if row.delta_interval:
        low, high = row.delta_interval
        return max(mean - low, 0.0), max(high - mean, 0.0)
    deviation = float(row.deltas.std(ddof=1)) if len(row.deltas) > 1 else 0.0
    return deviation, deviation


def plot_theta(seed_folders: list[pathlib.Path], path: str | os.PathLike) -> None:
    """Theta during training, by training: a thin line per seed, and their mean.

    A localization stage comes before step 0.

    Args:
      seed_folders: `WORKDIR/seedN` of each seed.
      path: of the file to write.
    """
    figure = Figure(figsize=(13, 2.9), layout="constrained")
    all_axes = figure.subplots(1, len(_TITLES))
    for axes, (metric, title) in zip(all_axes, _TITLES.items(), strict=True):
        for training, color in _COLORS.items():
            lines = []
            for folder in seed_folders:
                alone = folder / f"{training}_localization" / "metrics.jsonl"
                before, earlier = read_metric(alone, metric)
                steps, values = read_metric(folder / training / "metrics.jsonl", metric)
                steps = [step - before[-1] for step in before] + steps
                axes.plot(steps, earlier + values, color=color, linewidth=0.6, alpha=0.4)
                lines += [(steps, earlier + values)] if steps else []
            # Seeds that are not finished are left out of the mean.
            steps = max((steps for steps, _ in lines), key=len, default=[])
            whole = [values for of_seed, values in lines if of_seed == steps]
            if whole:
                axes.plot(steps, np.mean(whole, 0), color=color, linewidth=1.6, label=training)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    if all_axes[0].get_legend_handles_labels()[1]:
        all_axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=80)


def read_metric(path: pathlib.Path, metric: str) -> tuple[list[int], list[float]]:
    """Steps and values of `train/METRIC` in a `metrics.jsonl`; empty if there is no such file."""
    if not path.exists():
        return [], []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = [r for r in records if f"train/{metric}" in r]
    return [r["step"] for r in chosen], [r[f"train/{metric}"] for r in chosen]
