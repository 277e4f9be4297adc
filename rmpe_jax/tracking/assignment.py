"""The best assignment of people to tracks, solved exactly.

Shortest augmenting paths with dual variables (Jonker and Volgenant, Computing 1987; Crouse, IEEE
TAES 2016), with two additions. A row may stay alone, which costs 0, so the solver takes impossible
pairs and any numbers of rows and columns. And all rows whose best column no other row wants are
assigned at once: most frames of a video need no path at all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class _Matching(NamedTuple):
    """Pairs and dual variables: cost - of_rows - of_columns is 0 in pairs and nowhere negative.

    Attributes:
      of_rows: at most 0, and 0 for rows that stay alone.
      of_columns: 0 for columns without a row.
      column: of each row, -1 where there is none.
      row: of each column, -1 where there is none.
      waiting: rows that are still to be assigned.
    """

    of_rows: Float[Array, " t"]
    of_columns: Float[Array, " n"]
    column: Int[Array, " t"]
    row: Int[Array, " n"]
    waiting: Bool[Array, " t"]


class _Search(NamedTuple):
    """Dijkstra's search for the cheapest path from a waiting row to a place where it can end.

    Attributes:
      cost: of the cheapest known path to each column.
      before: the row before each column on that path.
      is_final: columns whose path is the cheapest one.
      row: to be scanned next.
      row_cost: of the path to it.
      end_row: the scanned row with which the path could end most cheaply: it would stay alone.
      end_row_cost: of the path that ends with it.
      end_column: the column without a row with which the path ends, -1 if it ends with a row.
      is_done: whether the end is found.
    """

    cost: Float[Array, " n"]
    before: Int[Array, " n"]
    is_final: Bool[Array, " n"]
    row: Int[Array, ""]
    row_cost: Float[Array, ""]
    end_row: Int[Array, ""]
    end_row_cost: Float[Array, ""]
    end_column: Int[Array, ""]
    is_done: Bool[Array, ""]


def assign(value: Float[Array, "t n"]) -> Int[Array, " t"]:
    """The pairs with the highest sum of values, each row and each column in one pair at most.

    Args:
      value: what a pair adds to the sum, finite. Pairs with values of 0 or less are impossible.
        There is at least one row and one column.

    Returns:
      The column of each row, -1 where it has none.
    """
    # Fewer rows wait for a path if there are fewer rows than columns.
    if value.shape[0] > value.shape[1]:
        return _solve(value.T).row
    return _solve(value).column


def is_taken(columns: Int[Array, " t"], num_columns: int) -> Bool[Array, " n"]:
    """Which of the columns are in a pair of `assign`'s result."""
    # Out of range is dropped; -1 would be the last column.
    index = jnp.where(columns < 0, num_columns, columns)
    return jnp.zeros(num_columns, bool).at[index].set(True, mode="drop")


def _solve(value: Float[Array, "t n"]) -> _Matching:
    """The best pairs, see `assign`."""
    costs = jnp.where(value > 0, -value, jnp.inf)
    return jax.lax.while_loop(
        lambda matching: matching.waiting.any(),
        lambda matching: _assign_row(costs, matching),
        _simple_pairs(value),
    )


def _simple_pairs(value: Float[Array, "t n"]) -> _Matching:
    """Each column with the first row that wants it most; the other rows that want it wait."""
    num_rows, num_columns = value.shape
    best, wanted = value.max(1), value.argmax(1)
    wants = (best > 0)[:, None] & (wanted[:, None] == jnp.arange(num_columns))
    row = jnp.where(wants.any(0), wants.argmax(0), -1)
    is_first = (best > 0) & (row[wanted] == jnp.arange(num_rows))
    return _Matching(
        of_rows=-jnp.maximum(best, 0),
        of_columns=jnp.zeros(num_columns, value.dtype),
        column=jnp.where(is_first, wanted, -1),
        row=row,
        waiting=(best > 0) & ~is_first,
    )


def _assign_row(costs: Float[Array, "t n"], matching: _Matching) -> _Matching:
    """Assign the first waiting row, and change the pairs along its cheapest path."""
    first = matching.waiting.argmax()
    search = jax.lax.while_loop(
        lambda search: ~search.is_done,
        lambda search: _scan(costs, matching, search),
        _start_search(matching, first),
    )
    # The path's cost, and how much less the paths to the columns on the way cost.
    cost = jnp.minimum(search.row_cost, search.end_row_cost)
    less = jnp.where(search.is_final, cost - search.cost, 0)
    rows = jnp.where(search.is_final, matching.row, len(matching.column))
    of_rows = matching.of_rows.at[first].add(cost).at[rows].add(less, mode="drop")

    ends_with_row = search.end_column < 0
    end = jnp.where(ends_with_row, matching.column[search.end_row], search.end_column)
    alone = jnp.where(ends_with_row, search.end_row, len(matching.column))
    column = matching.column.at[alone].set(-1, mode="drop")

    def step_back(pairs: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        at, row, column = pairs
        before = search.before[at]
        # Under `vmap` this also runs, unused, where no row waits and the first row has a column.
        at_next = jnp.where(before == first, -1, column[before])
        return at_next, row.at[at].set(before), column.at[before].set(at)

    _, row, column = jax.lax.while_loop(
        lambda pairs: pairs[0] >= 0, step_back, (end, matching.row, column)
    )
    waiting = matching.waiting.at[first].set(False)
    return _Matching(of_rows, matching.of_columns - less, column, row, waiting)


def _start_search(matching: _Matching, row: Int[Array, ""]) -> _Search:
    """The search before its first row is scanned."""
    none = jnp.full_like(matching.row, -1)
    infinite = jnp.full_like(matching.of_columns, jnp.inf)
    return _Search(
        cost=infinite,
        before=none,
        is_final=none >= 0,
        row=row.astype(none.dtype),
        row_cost=jnp.zeros_like(infinite[0]),
        end_row=none[0],
        end_row_cost=infinite[0],
        end_column=none[0],
        is_done=jnp.array(False),
    )


def _scan(costs: Float[Array, "t n"], matching: _Matching, search: _Search) -> _Search:
    """The paths from one row to all columns, then to the cheapest column that is not final."""
    of_row = matching.of_rows[search.row]
    cost = search.row_cost + costs[search.row] - of_row - matching.of_columns
    is_better = ~search.is_final & (cost < search.cost)
    cost = jnp.where(is_better, cost, search.cost)
    ends_better = search.row_cost - of_row < search.end_row_cost
    end_row = jnp.where(ends_better, search.row, search.end_row)
    end_row_cost = jnp.where(ends_better, search.row_cost - of_row, search.end_row_cost)
    open_cost = jnp.where(search.is_final, jnp.inf, cost)
    nearest = open_cost.argmin().astype(end_row.dtype)
    ends_with_row = end_row_cost <= open_cost[nearest]
    is_done = ends_with_row | (matching.row[nearest] < 0)
    return _Search(
        cost=cost,
        before=jnp.where(is_better, search.row, search.before),
        is_final=search.is_final | ((jnp.arange(len(cost)) == nearest) & ~is_done),
        row=matching.row[nearest],
        row_cost=open_cost[nearest],
        end_row=end_row,
        end_row_cost=end_row_cost,
        end_column=jnp.where(ends_with_row, -1, nearest),
        is_done=is_done,
    )
