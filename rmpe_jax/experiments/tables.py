"""Markdown tables."""

from collections.abc import Mapping, Sequence


def markdown_table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table whose rows begin with their titles.

    Args:
      title: of the first column; may be empty.
      columns: titles of the others.
      rows: the cells of each row but the first, by the title of the row.
    """
    head = f"| {title}".rstrip()
    lines = [f"{head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)
