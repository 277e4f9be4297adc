"""Work divided among processes: each part is done once, and all get the results of all."""

import itertools

import jax
import numpy as np
import pytest
from fake_processes import FakeProcesses
from hypothesis import given
from hypothesis import strategies as st

from rmpe_jax.errors import UserError
from rmpe_jax.processes import (
    agreed,
    in_every_process,
    in_first_process,
    join_processes,
    share_ends,
    share_of,
)


@given(
    sizes=st.lists(st.integers(0, 9), max_size=30),
    num_shares=st.integers(1, 9),
)
def test_each_group_is_whole_in_one_share(sizes, num_shares):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    ends = share_ends(groups, num_shares)
    shares = [groups[low:high].tolist() for low, high in itertools.pairwise(ends)]
    assert len(shares) == num_shares
    assert [row for share in shares for row in share] == groups.tolist()
    assert sum(len(set(share)) for share in shares) == len(set(groups.tolist()))
    even = len(groups) / num_shares
    assert all(len(share) < even + max(sizes) + 1 for share in shares if share)


def test_single_rows_are_divided_evenly():
    assert share_ends(np.arange(10), 4) == [0, 2, 5, 7, 10]


def test_a_process_alone_has_all_of_the_work():
    assert share_of(np.array([0, 0, 3])) == slice(0, 3)
    assert in_every_process(lambda: 5) == [5]
    assert in_first_process(lambda: 5) == agreed(lambda: 5) == 5


@pytest.mark.parametrize("count", [2, 3])
def test_all_get_the_results_of_all(count, monkeypatch):
    """Bit for bit, whatever their sizes."""
    together = FakeProcesses(count, monkeypatch.setattr)

    def work():
        rows = np.arange(7.0)[share_of(np.array([0, 0, 0, 1, 2, 2, 5]))]
        return {"rows": rows / 3, "nan": np.float32(np.nan), "text": "x" * jax.process_index()}

    results = together.run(lambda: in_every_process(work))
    assert together.gathered == 2
    for found in results:
        np.testing.assert_array_equal(
            np.concatenate([part["rows"] for part in found]), np.arange(7.0) / 3
        )
        assert all(np.isnan(part["nan"]) for part in found)
        assert [part["text"] for part in found] == ["x" * i for i in range(count)]


def test_the_first_process_works_for_all(monkeypatch):
    together = FakeProcesses(3, monkeypatch.setattr)
    done = []

    def work():
        done.append(jax.process_index())
        return 7

    assert together.run(lambda: in_first_process(work)) == [7] * 3
    assert done == [0]


def test_each_keeps_its_own_result(monkeypatch):
    together = FakeProcesses(3, monkeypatch.setattr)
    assert together.run(lambda: agreed(jax.process_index)) == [0, 1, 2]


@pytest.mark.parametrize("call", [in_every_process, agreed])
def test_an_error_of_one_is_raised_in_all(call, monkeypatch):
    """Otherwise the others would wait for it."""
    together = FakeProcesses(3, monkeypatch.setattr)

    def work():
        if jax.process_index() > 0:
            raise UserError(f"process {jax.process_index()} fails")
        return 1

    errors = together.run(lambda: call(work))
    assert [str(error) for error in errors] == ["process 1 fails"] * 3
    assert all(isinstance(error, UserError) for error in errors)


@pytest.mark.parametrize(("count", "number"), [(None, 0), (2, None), (2, 2), (2, -1)])
def test_processes_that_do_not_know_their_place(count, number):
    with pytest.raises(UserError, match="the number of processes, and to each") as error:
        join_processes("localhost:1234", count, number)
    assert "\n" not in str(error.value)
