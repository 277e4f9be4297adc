"""Searches for parameters as lines on the screen and as JSON."""

import logging
from collections.abc import Mapping, Sequence

from rmpe_jax.ops.grid_search import Limits, Search


def search_to_dict(search: Search) -> dict:
    """All values that were tried and their scores, as JSON types."""
    return {
        "sweep": search.sweep,
        "names": list(search.names),
        "values": [values.tolist() for values in search.values],
        "scores": search.scores.tolist(),
        "previous_score": search.previous_score,
        "best": list(search.best),
        "score": search.score,
    }


def search_line(search: Search, metric: str) -> str:
    """Such as `sweep 1  lam 0.52, eta_fraction 0.31  AP 0.6123  (0.5210 to 0.6123 on 15 x 15)`."""
    chosen = ", ".join(f"{n} {v:.4g}" for n, v in zip(search.names, search.best, strict=True))
    rows, columns = search.scores.shape
    low, high = search.scores.min(), search.scores.max()
    return (
        f"sweep {search.sweep}  {chosen:<30}  {metric} {search.score:.4f}  "
        f"({low:.4f} to {high:.4f} on {rows} x {columns})"
    )


def warn_of_limits(names: Sequence[str], ranges: Mapping[str, Limits], metric: str) -> None:
    """Log the parameters that ended at a limit of their range."""
    for name in names:
        line = "%s ended at a limit of its range, %g to %g: the %s is flat there, or rises beyond"
        logging.getLogger(__name__).warning(line, name, *ranges[name], metric)
