"""Alternating exhaustive search: two parameters at a time, until nothing improves.

As in Fang et al. (ICCV 2017, section 3.2), which does not give ranges, steps and order; these are
our choice. Runs on the host, around a function that scores many points at once.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.ndimage
from jaxtyping import Float

Point = dict[str, float]  # a positive value for each parameter
Limits = tuple[float, float]  # of a parameter


@dataclasses.dataclass(frozen=True)
class Search:
    """An exhaustive search over two parameters.

    Attributes:
      sweep: the round over all pairs that it belongs to, from 1.
      names: of the two parameters.
      values: the values that were tried for each, ascending.
      scores: of each pair of values.
      previous_score: the score of the parameters before the search, which are among the values.
      best: the chosen pair of values.
      score: the score of the chosen pair, and so of all parameters after the search.
    """

    sweep: int
    names: tuple[str, str]
    values: tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]
    scores: Float[np.ndarray, "s s"]
    previous_score: float
    best: tuple[float, float]
    score: float


def alternating_search(
    scores_of: Callable[[list[Point]], Float[np.ndarray, " p"]],
    start: Point,
    pairs: Sequence[tuple[str, str]],
    ranges: Mapping[str, Limits],
    *,
    steps: int,
    tolerance: float,
    max_sweeps: int,
    report: Callable[[Search], None] = lambda search: None,
) -> tuple[Point, tuple[Search, ...]]:
    """Search each pair in turn; each sweep searches half the range around the best so far.

    Args:
      scores_of: the scores of points, to be maximized.
      start: where the search starts.
      pairs: names of the two parameters of each search of a sweep.
      ranges: the lowest and the highest value of each parameter that is searched, positive.
      steps: values of each parameter in a search, so steps² points.
      tolerance: a sweep that gains less ends the search.
      max_sweeps: the search ends after this many sweeps.
      report: called after every search.

    Returns:
      The best point, and the searches in order.
    """
    point = dict(start)
    searches: list[Search] = []
    for sweep in range(1, max_sweeps + 1):
        before = searches[-1].score if searches else -np.inf
        for names in pairs:
            search = _search(scores_of, point, names, ranges, steps, sweep)
            point |= dict(zip(names, search.best, strict=True))
            searches.append(search)
            report(search)
        if searches[-1].score - before < tolerance:
            break
    return point, tuple(searches)


def _search(
    scores_of: Callable[[list[Point]], Float[np.ndarray, " p"]],
    point: Point,
    names: tuple[str, str],
    ranges: Mapping[str, Limits],
    steps: int,
    sweep: int,
) -> Search:
    first, second = (grid_values(ranges[name], point[name], steps, sweep) for name in names)
    grid = [point | {names[0]: a, names[1]: b} for a, b in itertools.product(first, second)]
    scores = scores_of(grid).reshape(steps, steps)
    current = (_nearest(first, point[names[0]]), _nearest(second, point[names[1]]))
    row, column = best_cell(scores, current)
    return Search(
        sweep,
        names,
        values=(first, second),
        scores=scores,
        previous_score=float(scores[current]),
        best=(float(first[row]), float(second[column])),
        score=float(scores[row, column]),
    )


def grid_values(limits: Limits, center: float, steps: int, sweep: int) -> Float[np.ndarray, " s"]:
    """Log-spaced values around `center`, which is one of them, so that a search cannot lose.

    Args:
      limits: of the first sweep.
      center: positive.
      steps: number of values.
      sweep: from 1; each one spans half of the one before.
    """
    low, high = np.log(limits)
    span = (high - low) / 2 ** (sweep - 1)
    middle = np.clip(np.log(center), low + span / 2, high - span / 2)
    values = np.exp(np.linspace(middle - span / 2, middle + span / 2, steps))
    values[np.abs(np.log(values / center)).argmin()] = center
    return values


def at_limits(point: Point, ranges: Mapping[str, Limits]) -> tuple[str, ...]:
    """The parameters whose value is the lowest or the highest of its range."""
    return tuple(
        name for name, limits in ranges.items() if np.isclose(point[name], limits, rtol=1e-3).any()
    )


def _nearest(values: Float[np.ndarray, " s"], value: float) -> int:
    return int(np.abs(values - value).argmin())


def best_cell(scores: Float[np.ndarray, "s s"], current: tuple[int, int]) -> tuple[int, int]:
    """The cell with the highest score; of several, the one whose neighbors score highest.

    Scores may have plateaus with cliffs. Of cells that are still equal, the nearest to the current
    one is taken, so that parameters without an effect do not change.
    """
    around = scipy.ndimage.uniform_filter(scores, 3, mode="nearest")
    around = np.where(scores > scores.max() - 1e-7, around, -np.inf)
    candidates = np.argwhere(around > around.max() - 1e-9)
    row, column = candidates[np.abs(candidates - np.array(current)).sum(-1).argmin()]
    return int(row), int(column)
