"""The table of the ablation, from the seeds that are done: Markdown, JSON and plots."""

import importlib.util
import json
import pathlib

import numpy as np
from jaxtyping import Float

from rmpe_jax.experiments.ablation.config import AblationConfig
from rmpe_jax.experiments.ablation.rows import ROWS, Row, ScoredRow, select_rows
from rmpe_jax.experiments.ablation.run import row_path
from rmpe_jax.files import atomic_write, write_json


def read_scores(ablation: AblationConfig, folder: pathlib.Path, name: str) -> list[ScoredRow]:
    """The rows with scores on dataset `name`, over the seeds that have scored the full system."""
    scores: dict[Row, dict[int, float]] = {}
    metric = ""
    for row in select_rows(ablation.trainings):
        for seed in _seeds(folder):
            path = row_path(folder, seed, name, row)
            if path.exists():
                metric, value = next(iter(json.loads(path.read_text()).items()))
                scores.setdefault(row, {})[seed] = 100 * value if metric == "AP" else value
    full = scores.get(ROWS[0], {})
    rows = []
    for row, values in scores.items():
        seeds = [seed for seed in values if seed in full]
        deltas = np.array([values[seed] - full[seed] for seed in seeds])
        rows.append(ScoredRow(row, metric, np.array([values[seed] for seed in seeds]), deltas))
    return [row for row in rows if len(row.values)]


def write_report(ablation: AblationConfig, folder: pathlib.Path) -> str:
    """Writes `table.md`, `table.json` and, if matplotlib is installed, plots; returns the table."""
    tables, content = [], {}
    for name in ablation.sets:
        rows = read_scores(ablation, folder, name)
        if not rows:
            continue
        tables.append(f"{name}\n\n{markdown(rows)}")
        content[name] = [_to_dict(row) for row in rows]
        if importlib.util.find_spec("matplotlib"):
            _plot(rows, name, folder)
    text = "\n\n".join(tables) + "\n"
    with atomic_write(folder / "table.md") as file:
        file.write(text)
    write_json(folder / "table.json", content)
    return text


def markdown(rows: list[ScoredRow]) -> str:
    """The table: mean ± standard deviation over seeds, and differences to the full system."""
    metric = rows[0].metric
    lines = [f"| | {metric} | Δ | n | paper's mAP | its Δ |", "|---|---|---|---|---|---|"]
    for row in rows:
        full = row.row is ROWS[0]
        delta = "" if full else _mean_and_deviation(row.deltas, "+.1f")
        paper = "" if row.row.paper_map is None else f"{row.row.paper_map:.1f}"
        paper_delta = "" if full or row.paper_delta is None else f"{row.paper_delta:+.1f}"
        values = _mean_and_deviation(row.values, ".1f")
        lines.append(
            f"| {row.row.title} | {values} | {delta} | {len(row.values)} | {paper} "
            f"| {paper_delta} |"
        )
    return "\n".join(lines)


def _mean_and_deviation(values: Float[np.ndarray, " s"], form: str) -> str:
    text = format(round(float(values.mean()), 1) + 0.0, form)  # avoids -0.0
    return f"{text} ± {values.std(ddof=1):.1f}" if len(values) > 1 else text


def _to_dict(row: ScoredRow) -> dict:
    return {
        "row": row.row.name,
        "title": row.row.title,
        "metric": row.metric,
        "values": row.values.tolist(),
        "deltas": row.deltas.tolist(),
        "paper": row.row.paper_map,
    }


def _seeds(folder: pathlib.Path) -> list[int]:
    names = [path.name.removeprefix("seed") for path in folder.glob("seed*")]
    return sorted(int(name) for name in names if name.isdigit())


def _plot(rows: list[ScoredRow], name: str, folder: pathlib.Path) -> None:
    from rmpe_jax.experiments.ablation.plots import plot_deltas, plot_theta

    plot_deltas(rows, folder / f"bars_{name}.png")
    plot_theta([folder / f"seed{seed}" for seed in _seeds(folder)], folder / "theta.png")
