"""The assignment against SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from rmpe_jax.tracking.assignment import assign, is_taken

SHAPES = [(1, 1), (3, 8), (8, 3), (12, 12)]


def best_sum(value):
    """SciPy's optimum; pairs without value add nothing."""
    gains = np.maximum(value, 0)
    return gains[scipy.optimize.linear_sum_assignment(gains, maximize=True)].sum()


def pairs(columns):
    columns = np.asarray(columns)
    rows = np.flatnonzero(columns >= 0)
    return rows, columns[rows]


@pytest.mark.parametrize("shape", SHAPES)
def test_is_as_good_as_scipy_and_keeps_the_gates(shape):
    rng = np.random.default_rng(0)
    value = rng.uniform(0, 1, (60, *shape)).astype(np.float32)
    gates = rng.uniform(size=value.shape) < rng.uniform(0, 1, (60, 1, 1))
    value = np.where(gates, value, rng.choice([0, -1], value.shape)).astype(np.float32)
    found = jax.jit(jax.vmap(assign))(value)
    num_pairs = 0
    for one, columns in zip(value, found, strict=True):
        rows, columns = pairs(columns)
        assert len(set(columns)) == len(columns)
        assert (one[rows, columns] > 0).all()
        np.testing.assert_allclose(one[rows, columns].sum(), best_sum(one), rtol=1e-5)
        num_pairs += len(rows)
    assert 0.2 * 60 * min(shape) < num_pairs < 60 * min(shape)


def test_finds_scipys_pairs_where_the_best_ones_are_unique():
    rng = np.random.default_rng(1)
    solve = jax.jit(assign)
    for _ in range(20):
        value = rng.uniform(0.1, 1, (7, 9)).astype(np.float32)
        rows, columns = pairs(solve(jnp.asarray(value)))
        expected = scipy.optimize.linear_sum_assignment(value, maximize=True)
        np.testing.assert_array_equal([rows, columns], expected)


def test_one_good_pair_beats_two_poor_ones():
    # Row 0 fits column 0 well; the two other pairs together are worth less.
    value = np.array([[0.6, 0.2], [0.2, 0.0]], np.float32)
    np.testing.assert_array_equal(assign(jnp.asarray(value)), [0, -1])


def test_nothing_is_possible():
    np.testing.assert_array_equal(assign(jnp.zeros((3, 2))), [-1, -1, -1])


def test_is_taken():
    taken = is_taken(jnp.array([2, -1, 0]), 4)
    np.testing.assert_array_equal(taken, [True, False, True, False])
