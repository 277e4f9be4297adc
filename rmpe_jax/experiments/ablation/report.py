"""The table of the ablation, from however many seeds are done: Markdown, JSON and pictures."""

import dataclasses
import importlib.util
import json
import pathlib

import ml_collections
import numpy as np
from jaxtyping import Float

from rmpe_jax.experiments.ablation.rows import ROWS, Row, rows_of
from rmpe_jax.experiments.ablation.run import row_path
from rmpe_jax.files import write_json

PAPER_FULL = 80.8  # mAP of the paper's whole system


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table for one data set; all values in percent.

    Attributes:
      row: which system.
      metric: `AP` or `mAP`.
      values: of each seed.
      deltas: what it is short of the whole system of the same seed.
    """

    row: Row
    metric: str
    values: Float[np.ndarray, " s"]
    deltas: Float[np.ndarray, " s"]

    @property
    def paper_delta(self) -> float | None:
        return None if self.row.paper is None else self.row.paper - PAPER_FULL


def read_lines(config: ml_collections.ConfigDict, folder: pathlib.Path, name: str) -> list[Line]:
    """The rows that are there for data set `name`, over the seeds that have the whole system."""
    scores: dict[Row, dict[int, float]] = {}
    metric = ""
    for row in rows_of(tuple(config.ablation.trainings)):
        for seed in _seeds(folder):
            path = row_path(folder, seed, name, row)
            if path.exists():
                metric, value = next(iter(json.loads(path.read_text()).items()))
                scores.setdefault(row, {})[seed] = 100 * value if metric == "AP" else value
    whole = scores.get(ROWS[0], {})
    lines = []
    for row, values in scores.items():
        seeds = [seed for seed in values if seed in whole]
        deltas = np.array([values[seed] - whole[seed] for seed in seeds])
        lines.append(Line(row, metric, np.array([values[seed] for seed in seeds]), deltas))
    return [line for line in lines if len(line.values)]


def write_report(config: ml_collections.ConfigDict, folder: pathlib.Path) -> str:
    """Writes `table.md`, `table.json` and the pictures; returns the table.

    Without matplotlib there are no pictures.
    """
    tables, content = [], {}
    for name in config.ablation.sets:
        lines = read_lines(config, folder, name)
        if not lines:
            continue
        tables.append(f"{name}\n\n{markdown(lines)}")
        content[name] = [_to_dict(line) for line in lines]
        if importlib.util.find_spec("matplotlib"):
            _draw(lines, name, folder)
    text = "\n\n".join(tables) + "\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    write_json(folder / "table.json", content)
    return text


def markdown(lines: list[Line]) -> str:
    """Mean ± standard deviation over seeds; ours and the paper's difference to the whole system."""
    metric = lines[0].metric
    out = [f"| | {metric} | Δ | n | paper's mAP | its Δ |", "|---|---|---|---|---|---|"]
    for line in lines:
        whole = line.row is ROWS[0]
        delta = "" if whole else _spread(line.deltas, "+.1f")
        paper = "" if line.row.paper is None else f"{line.row.paper:.1f}"
        paper_delta = "" if whole or line.paper_delta is None else f"{line.paper_delta:+.1f}"
        values = _spread(line.values, ".1f")
        out.append(
            f"| {line.row.title} | {values} | {delta} | {len(line.values)} | {paper} "
            f"| {paper_delta} |"
        )
    return "\n".join(out)


def _spread(values: Float[np.ndarray, " s"], form: str) -> str:
    text = format(round(float(values.mean()), 1) + 0.0, form)  # no -0.0
    return f"{text} ± {values.std(ddof=1):.1f}" if len(values) > 1 else text


def _to_dict(line: Line) -> dict:
    return {
        "row": line.row.name,
        "title": line.row.title,
        "metric": line.metric,
        "values": line.values.tolist(),
        "deltas": line.deltas.tolist(),
        "paper": line.row.paper,
    }


def _seeds(folder: pathlib.Path) -> list[int]:
    names = [path.name.removeprefix("seed") for path in folder.glob("seed*")]
    return sorted(int(name) for name in names if name.isdigit())


def _draw(lines: list[Line], name: str, folder: pathlib.Path) -> None:
    from rmpe_jax.experiments.ablation.plots import draw_bars, draw_theta

    draw_bars(lines, folder / f"bars_{name}.png")
    draw_theta([folder / f"seed{seed}" for seed in _seeds(folder)], folder / "theta.png")
