"""Pictures of the ablation: differences as bars, theta over training."""

import json
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from rmpe_jax.experiments.ablation.report import Line

_OURS, _PAPER = "#1478c8", "#cfd3da"
_CURVES = {"atomic_sstn_parallel": "#e8710a", "atomic_sstn": "#1478c8"}
_PANELS = {
    "placement": "view to well-placed crop, half sides",
    "theta_change": "mean |theta - identity|",
    "theta_translation": "translation, half sides",
    "theta_scale": "scale of the view",
}


def draw_bars(lines: "list[Line]", path: str | os.PathLike) -> None:
    """What each row is short of the whole system, beside the same difference in the paper."""
    rows = lines[1:][::-1]
    figure = Figure(figsize=(8, 0.42 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(rows))
    means = [line.deltas.mean() for line in rows]
    errors = [line.deltas.std(ddof=1) if len(line.deltas) > 1 else 0 for line in rows]
    paper = [line.paper_delta or 0 for line in rows]
    n = len(lines[0].values)
    here = f"here, {n} seeds" if n > 1 else "here, 1 seed"
    axes.barh(y + 0.2, means, 0.38, xerr=errors, color=_OURS, label=here)
    axes.barh(y - 0.2, paper, 0.38, color=_PAPER, label="paper, MPII, mAP")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(y, [line.row.title for line in rows], fontsize=8)
    axes.set_xlabel(f"{lines[0].metric} less that of RMPE as a whole, points")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=90)


def draw_theta(seed_folders: list[pathlib.Path], path: str | os.PathLike) -> None:
    """Theta over the second stage, with the parallel SPPE and without, a line for each seed."""
    figure = Figure(figsize=(13, 2.9), layout="constrained")
    all_axes = figure.subplots(1, len(_PANELS))
    for axes, (metric, title) in zip(all_axes, _PANELS.items(), strict=True):
        for training, color in _CURVES.items():
            for number, folder in enumerate(seed_folders):
                steps, values = read_metric(folder / training / "metrics.jsonl", metric)
                label = training if number == 0 else None
                axes.plot(steps, values, color=color, linewidth=1, label=label)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=80)


def read_metric(path: pathlib.Path, metric: str) -> tuple[list[int], list[float]]:
    """Steps and values of `train/METRIC`; none if the run has not begun."""
    if not path.exists():
        return [], []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = [r for r in records if f"train/{metric}" in r]
    return [r["step"] for r in chosen], [r[f"train/{metric}"] for r in chosen]
