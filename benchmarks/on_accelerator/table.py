"""A readable table of the JSON lines."""

import itertools
from typing import Any

SECTIONS = ("machine", "training", "sizes", "profile", "inference", "nms", "sampler", "loop")
_HIDDEN = {"section", "name", "network", "dtype", "batch", "kernels", "operations", "shape"}


def markdown(rows: list[dict]) -> str:
    """A table for each section, with what failed and what was left out below it."""
    sections = [*SECTIONS, *dict.fromkeys(r["section"] for r in rows if "section" in r)]
    parts = []
    for section in dict.fromkeys(sections):
        own = [row for row in rows if row.get("section") == section]
        if own:
            parts.append(f"## {section}\n\n" + "\n".join(_section(own)))
    return "\n\n".join(parts) + "\n"


def _section(rows: list[dict]) -> list[str]:
    good = [row for row in rows if "left_out" not in row and not _failed(row)]
    lines: list[str] = []
    for _, alike in itertools.groupby(good, tuple):  # rows with the same columns
        lines += [*_table(list(alike)), ""]
    for row in rows:
        if _failed(row):
            lines.append(f"* failed: {row['name']}: {row['error']}")
        elif "left_out" in row:
            lines.append(f"* left out: {row['name']}: {row['left_out']}")
    for row in good:
        for kind in ("kernels", "operations"):
            if row.get(kind):
                lines += ["", f"{row['name']}, {kind}:", "", *_table(row[kind])]
    return lines if lines[-1] else lines[:-1]


def _failed(row: dict) -> bool:
    return "error" in row


def _table(rows: list[dict]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in _HIDDEN))
    head = [["name", *columns], ["---"] * (len(columns) + 1)]
    body = [[row["name"], *(_cell(row.get(column)) for column in columns)] for row in rows]
    return ["| " + " | ".join(map(str, cells)) + " |" for cells in [*head, *body]]


def _cell(value: Any) -> str:
    return "–" if value is None else str(value).replace("|", "/").replace("\n", " ")
