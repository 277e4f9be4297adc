"""How processes join, and that they do not wait for one that is lost."""

import os

import jax
import pytest
from absl.testing import flagsaver

from rmpe_jax.cli import process_flags, train  # noqa: F401  `train` adopts the flags
from rmpe_jax.errors import UserError
from rmpe_jax.processes import ending_with_the_others


@pytest.mark.parametrize("flag", [{"coordinator": "localhost:1"}, {"process_id": 0}])
def test_two_ways_of_joining_are_one_too_many(flag):
    with (
        flagsaver.flagsaver(distributed=True, **flag),
        pytest.raises(UserError, match="leave it out"),
    ):
        process_flags.join_by_flags()


@pytest.mark.parametrize(
    "flags", [{"process_id": 0}, {"num_processes": 2}, {"num_processes": 2, "process_id": 1}]
)
def test_a_number_without_a_coordinator(flags):
    """Without the refusal each process would do all the work and write the same files."""
    with (
        flagsaver.flagsaver(**flags),
        pytest.raises(UserError, match=r"--coordinator=None .* give the address of process 0"),
    ):
        process_flags.join_by_flags()


def lost(text: str) -> None:
    with ending_with_the_others():
        raise jax.errors.JaxRuntimeError(text)


class Ended(Exception):
    pass


@pytest.fixture
def ends(monkeypatch):
    def end(status):
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", end)


@pytest.mark.usefixtures("ends")
def test_a_lost_process_ends_this_one_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(Ended, match="1"):
        lost("UNKNOWN: Gloo all-reduce failed: Connection reset by peer\nmore")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("process 0: another process has ended or cannot be reached: stopped; ")
    assert line.endswith("(UNKNOWN: Gloo all-reduce failed: Connection reset by peer)")


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize(
    ("count", "text"), [(1, "Gloo all-reduce failed"), (2, "RESOURCE_EXHAUSTED: out of memory")]
)
def test_other_errors_are_raised(count, text, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    with pytest.raises(jax.errors.JaxRuntimeError):
        lost(text)
