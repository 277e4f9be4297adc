"""The tables of the ablation, from the seeds that are done: Markdown, JSON and plots."""

import importlib.util
import json
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rmpe_jax.evaluation.bootstrap import interval
from rmpe_jax.experiments.ablation.config import AblationConfig
from rmpe_jax.experiments.ablation.rows import (
    NO_SSTN,
    ROWS,
    SSTN_ROWS,
    Interval,
    Row,
    ScoredRow,
    select_rows,
)
from rmpe_jax.experiments.ablation.run import load_resampled, row_path
from rmpe_jax.files import atomic_write, write_json


class Score(NamedTuple):
    """The score of one row and seed, in percent.

    Attributes:
      value: on all images.
      resampled: on resamples of the images, the same for all rows; None if they are not known.
    """

    value: float
    resampled: Float[np.ndarray, " b"] | None


Scores = dict[Row, dict[int, Score]]  # by row and seed


def read_scores(ablation: AblationConfig, folder: pathlib.Path, name: str) -> tuple[str, Scores]:
    """The metric, and the scores of all rows and seeds that have one, on dataset `name`."""
    scores: Scores = {}
    metric = ""
    for row in select_rows(ablation.trainings):
        for seed in _seeds(folder):
            path = row_path(folder, seed, name, row)
            if path.exists():
                metric, value = next(iter(json.loads(path.read_text()).items()))
                factor = 100 if metric == "AP" else 1
                resampled = load_resampled(folder, seed, name, row)
                resampled = None if resampled is None else factor * resampled
                scores.setdefault(row, {})[seed] = Score(factor * value, resampled)
    return metric, scores


def compare(metric: str, scores: Scores, reference: Row, rows: tuple[Row, ...]) -> list[ScoredRow]:
    """The reference, then `rows`, each over the seeds that both have.

    Args:
      metric: of the scores.
      scores: of `read_scores`.
      reference: that rows are compared to.
      rows: to list; those without scores are left out.

    Returns:
      Nothing if the reference has no scores.
    """
    theirs = scores.get(reference, {})
    found = []
    for row in (reference, *(row for row in rows if row != reference)):
        ours = scores.get(row, {})
        seeds = [seed for seed in ours if seed in theirs]
        if not seeds:
            continue
        values = [ours[seed].value for seed in seeds]
        deltas = [ours[seed].value - theirs[seed].value for seed in seeds]
        draws = [(ours[seed].resampled, theirs[seed].resampled) for seed in seeds]
        of_values = of_deltas = None
        pairs = [(a, b) for a, b in draws if a is not None and b is not None]
        if len(pairs) == len(draws):
            of_values = interval(np.array([a for a, _ in pairs]), seed=1)
            of_deltas = interval(np.array([a - b for a, b in pairs]), seed=1)
        found.append(
            ScoredRow(
                row, reference, metric, np.array(values), np.array(deltas), of_values, of_deltas
            )
        )
    return found


def write_report(ablation: AblationConfig, folder: pathlib.Path) -> str:
    """Writes `table.md`, `table.json` and, if matplotlib is installed, plots; returns the tables.

    Each dataset has the table of all rows, compared to the full system, and one of the rows with a
    spatial transformer, compared to the system without.
    """
    tables, content = [], {}
    sstn_rows = tuple(row for row in ROWS if row.name in SSTN_ROWS)
    for name in ablation.sets:
        metric, scores = read_scores(ablation, folder, name)
        for title, reference, rows in ((name, ROWS[0], ROWS), (f"{name}_sstn", NO_SSTN, sstn_rows)):
            compared = compare(metric, scores, reference, rows)
            if len(compared) > 1:
                tables.append(f"{title}\n\n{markdown(compared)}")
                content[title] = [_to_dict(row) for row in compared]
                if importlib.util.find_spec("matplotlib"):
                    _plot(compared, title, folder)
    text = "\n\n".join(tables) + "\n"
    with atomic_write(folder / "table.md") as file:
        file.write(text)
    write_json(folder / "table.json", content)
    return text


def markdown(rows: list[ScoredRow]) -> str:
    """A table: means over seeds with their intervals, and differences to the first row.

    Without intervals it has the standard deviation over seeds.
    """
    metric = rows[0].metric
    lines = [f"| | {metric} | Δ | n | paper's mAP | its Δ |", "|---|---|---|---|---|---|"]
    for row in rows:
        first = row.row == row.reference
        delta = "" if first else _with_spread(row.deltas, row.delta_interval, "+.1f")
        paper = "" if row.row.paper_map is None else f"{row.row.paper_map:.1f}"
        paper_delta = "" if first or row.paper_delta is None else f"{row.paper_delta:+.1f}"
        values = _with_spread(row.values, row.interval, ".1f")
        lines.append(
            f"| {row.row.title} | {values} | {delta} | {len(row.values)} | {paper} "
            f"| {paper_delta} |"
        )
    return "\n".join(lines)


def _with_spread(values: Float[np.ndarray, " s"], limits: Interval | None, form: str) -> str:
    text = _rounded(values.mean(), form)
    if limits:
        low, high = (_rounded(limit, form) for limit in limits)
        return f"{text} [{low}, {high}]"
    return f"{text} ± {values.std(ddof=1):.1f}" if len(values) > 1 else text


def _rounded(value: float, form: str) -> str:
    return format(round(float(value), 1) + 0.0, form)  # avoids -0.0


def _to_dict(row: ScoredRow) -> dict:
    return {
        "row": row.row.name,
        "title": row.row.title,
        "metric": row.metric,
        "values": row.values.tolist(),
        "deltas": row.deltas.tolist(),
        "reference": row.reference.name,
        "interval": row.interval,
        "delta_interval": row.delta_interval,
        "paper": row.row.paper_map,
    }


def _seeds(folder: pathlib.Path) -> list[int]:
    names = [path.name.removeprefix("seed") for path in folder.glob("seed*")]
    return sorted(int(name) for name in names if name.isdigit())


def _plot(rows: list[ScoredRow], name: str, folder: pathlib.Path) -> None:
    from rmpe_jax.experiments.ablation.plots import plot_deltas, plot_theta

    plot_deltas(rows, folder / f"bars_{name}.png")
    plot_theta([folder / f"seed{seed}" for seed in _seeds(folder)], folder / "theta.png")
