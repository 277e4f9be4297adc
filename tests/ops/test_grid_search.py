"""The alternating search over pairs of parameters."""

import numpy as np
import pytest

from rmpe_jax.ops.grid_search import alternating_search, at_limits, best_cell, grid_values


def test_the_search_finds_the_highest_point():
    """A ridge along a diagonal of a and b, and a parameter that is not searched."""
    seen = []

    def scores_of(points):
        a, b, c = (np.log([point[name] for point in points]) for name in "abc")
        return -((a + b) ** 2) - (b - 1) ** 2 - c**2

    start = {"a": 5.0, "b": 0.2, "c": 2.0, "other": 7.0}
    point, searches = alternating_search(
        scores_of,
        start,
        (("a", "b"), ("b", "c")),
        {"a": (0.1, 10.0), "b": (0.1, 10.0), "c": (0.5, 4.0)},
        steps=9,
        tolerance=1e-3,
        max_sweeps=8,
        report=seen.append,
    )
    assert start["a"] == 5
    found = [point[name] for name in "abc"]
    np.testing.assert_allclose(found, [np.exp(-1), np.exp(1), 1], rtol=0.1)
    assert point["other"] == 7
    assert list(searches) == seen
    scores = [searches[0].previous_score, *(search.score for search in searches)]
    assert scores == sorted(scores)
    assert searches[-1].score == scores_of([point])[0]
    assert 1 < searches[-1].sweep < 8  # ended by the tolerance


@pytest.mark.parametrize("limits", [(0.005, 1.0), (0.1, 20.0)])
@pytest.mark.parametrize("sweep", [1, 2, 5])
def test_values_hold_the_present_one_and_stay_in_range(limits, sweep):
    low, high = limits
    for center in (low, 0.7 * low + 0.3 * high, high):
        values = grid_values(limits, center, 15, sweep)
        assert np.isclose(values, center, rtol=1e-12).sum() == 1
        assert (np.diff(values) > 0).all()
        assert low * 0.999 <= values[0]
        assert values[-1] <= high * 1.001


def test_later_sweeps_look_closer():
    spans = [np.ptp(np.log(grid_values((0.1, 20.0), 2.0, 15, sweep))) for sweep in (1, 2, 3)]
    np.testing.assert_allclose(spans[1:], np.array(spans[:2]) / 2, rtol=1e-6)


def test_of_equal_cells_the_one_on_the_plateau():
    scores = np.zeros((5, 5))
    scores[0, 4] = 1
    scores[1:4, 1:4] = 1
    assert best_cell(scores, (0, 0)) == (2, 2)


def test_what_has_no_effect_stays_as_it_is():
    scores = np.tile([0.0, 1.0, 1.0, 1.0, 0.0], (5, 1))
    assert best_cell(scores, (3, 0)) == (3, 2)
    assert best_cell(np.zeros((5, 5)), (4, 1)) == (4, 1)


def test_limits_that_a_search_ended_at():
    ranges = {"a": (0.1, 20.0), "b": (0.1, 20.0), "c": (0.5, 2.0)}
    assert at_limits({"a": 0.1, "b": 19.999, "c": 1.0, "other": 0.1}, ranges) == ("a", "b")
