"""Curves of a training, from its `metrics.jsonl`."""

import itertools
import json
import os
import pathlib

import numpy as np
from jaxtyping import Float

from rmpe_jax.errors import UserError

_CURVES = ("#e8710a", "#1478c8", "#3a9d5d", "#8a5cc2", "#c2405a")


def learning_curves(metrics_path: str | os.PathLike, out_path: str | os.PathLike) -> None:
    """Plot loss, accuracy, AP and PCKh over steps from a training's `metrics.jsonl`.

    Each line holds `step` and named numbers; a name's part after the last `/` says what it is.
    Where a resumed training wrote a step twice, the later line counts.

    Raises:
      UserError: matplotlib is not installed, or the file cannot be read or has nothing to plot.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("curves need matplotlib: pip install 'rmpe_jax[viz]'") from None
    series = _read_series(metrics_path)
    panels = [
        (title, {name: points for name, points in series.items() if belongs(name.split("/")[-1])})
        for title, belongs in (
            ("loss", lambda key: key.endswith("loss")),
            ("accuracy", lambda key: key.endswith("accuracy")),
            ("AP", lambda key: key == "AP"),
            ("PCKh", lambda key: key == "PCKh"),
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
    """Step to value of every named number in the file."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"metrics {path} cannot be read ({error.strerror}): check it") from None
    series: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, KeyError, AttributeError, TypeError):
            if number == len(lines):
                break  # a training that is killed while it writes leaves half a line
            raise UserError(
                f"metrics {path}: line {number} is not a step's JSON: mend it"
            ) from None
        for name, value in row.items():
            if isinstance(value, int | float) and np.isfinite(value):
                series.setdefault(name, {})[step] = float(value)
    return series


def _plot_panel(axes, title: str, curves: dict[str, dict[int, float]]) -> None:
    for (name, points), color in zip(sorted(curves.items()), itertools.cycle(_CURVES)):
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
    """Mean over a window of a twentieth of the curve, narrower at its ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)
