"""Pictures of the ablation: differences as bars, theta over training."""

import os
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from rmpe_jax.experiments.ablation.report import Line

_OURS, _PAPER = "#1478c8", "#cfd3da"


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
    axes.barh(y + 0.2, means, 0.38, xerr=errors, color=_OURS, label=f"here, {n} seeds")
    axes.barh(y - 0.2, paper, 0.38, color=_PAPER, label="paper, MPII, mAP")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(y, [line.row.title for line in rows], fontsize=8)
    axes.set_xlabel(f"{lines[0].metric} less that of RMPE as a whole, points")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=90)
