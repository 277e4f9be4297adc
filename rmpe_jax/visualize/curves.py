"""Learning curves of a training run, from its `metrics.jsonl`."""

import itertools
import json
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

from rmpe_jax.errors import UserError

_COLORS = ("#e8710a", "#1478c8", "#3a9d5d", "#8a5cc2", "#c2405a")


def learning_curves(metrics_path: str | os.PathLike, out_path: str | os.PathLike) -> None:
    """Plots loss, accuracy, AP and PCKh over the training steps.

    Args:
      metrics_path: the `metrics.jsonl` of a training run. Each line holds `step` and named numbers;
        the part of a name after its last `/` is the metric. If a resumed run wrote a step twice,
        the later line counts.
      out_path: image file to write.

    Raises:
      UserError: matplotlib is not installed, or the file is unreadable or has nothing to plot.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("curves need matplotlib: pip install 'rmpe_jax[viz]'") from None
    series = _read_series(metrics_path)
    panels = [
        (title, {name: points for name, points in series.items() if is_shown(name.split("/")[-1])})
        for title, is_shown in (
            ("loss", lambda metric: metric.endswith("loss")),
            ("accuracy", lambda metric: metric.endswith("accuracy")),
            ("AP", lambda metric: metric == "AP"),
            ("PCKh", lambda metric: metric == "PCKh"),
        )
    ]
    panels = [(title, curves) for title, curves in panels if curves]
    if not panels:
        raise UserError(f"{metrics_path} has no loss, accuracy, AP or PCKh: nothing to plot")
    figure = Figure(figsize=(5 * len(panels), 3.8), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, curves) in zip(all_axes, panels, strict=True):
        _plot_panel(axes, title, curves)
    figure.savefig(out_path, dpi=130)


def _read_series(path: str | os.PathLike) -> dict[str, dict[int, float]]:
    """The numbers in the file, as {name: {step: value}}."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"metrics {path} cannot be read: {error.strerror}") from None
    series: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, KeyError, AttributeError, TypeError):
            if number == len(lines):
                break  # a run that was killed while writing leaves an incomplete last line
            raise UserError(
                f"metrics {path}: line {number} is not JSON with a step: fix or delete the line"
            ) from None
        for name, value in row.items():
            if isinstance(value, int | float) and np.isfinite(value):
                series.setdefault(name, {})[step] = float(value)
    return series


def _plot_panel(axes: Any, title: str, curves: dict[str, dict[int, float]]) -> None:
    for (name, points), color in zip(sorted(curves.items()), itertools.cycle(_COLORS)):
        steps = np.array(sorted(points))
        values = np.array([points[step] for step in steps])
        if len(steps) <= 40:
            axes.plot(steps, values, color=color, label=name, marker="o", markersize=3.5)
        else:
            axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
            axes.plot(steps, _smoothed(values), color=color, label=name)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("step")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    if title != "loss":
        axes.set_ylim(bottom=0)


def _smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Moving average over a twentieth of the curve; the window is narrower at both ends."""
    half = max(1, len(values) // 40)
    cumulative = np.concatenate([[0.0], np.cumsum(values)])
    start = np.maximum(np.arange(len(values)) - half, 0)
    end = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (cumulative[end] - cumulative[start]) / (end - start)
