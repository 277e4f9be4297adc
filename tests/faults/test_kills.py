"""Programs that are killed at random moments, and run again."""

import collections
import itertools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest
from programs import PROGRAMS, Program, finish, times

pytestmark = pytest.mark.faults

ROUNDS = times("ROUNDS", 50)  # of each program


def any_file(folder: pathlib.Path) -> bool:
    """Whether anything was written but the lock."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return any(not name.endswith(".lock") for name in names)


def wait_for_file(folder: pathlib.Path, process: subprocess.Popen) -> None:
    """Returns when the program has written its first file, or ended."""
    while process.poll() is None and not any_file(folder):
        time.sleep(0.02)


def undisturbed(program: Program, folder: pathlib.Path) -> tuple[float, float]:
    """Seconds from the start to the first file, and to the end."""
    folder.mkdir()
    start = time.monotonic()
    process = program.start(folder)
    wait_for_file(folder, process)
    first = time.monotonic() - start
    status, lines = finish(process)
    assert status == 0, lines
    return first, time.monotonic() - start


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_killed_program_that_runs_again_ends_as_if_it_never_was(tmp_path, name, tell):
    """Half of the kills are at any moment, half of them after the first file was written."""
    program = PROGRAMS[name](tmp_path / "data")
    undisturbed(program, tmp_path / "first")  # compiles, for the others too
    first, whole = undisturbed(program, tmp_path / "whole")
    expected = program.result(tmp_path / "whole")
    assert expected == program.result(tmp_path / "first")
    moments = random.Random(name)
    counts: collections.Counter[str] = collections.Counter()
    for number in itertools.count():
        if counts["writing"] + counts["before files"] == ROUNDS:
            break
        folder = tmp_path / str(number)
        folder.mkdir()
        process = program.start(folder)
        if number % 2:
            wait_for_file(folder, process)
            time.sleep(moments.uniform(0, whole - first))
        else:
            time.sleep(moments.uniform(0, whole))
        process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:  # the kill came after the end: it is no round
            counts["ended before"] += 1
            assert counts["ended before"] <= ROUNDS
            shutil.rmtree(folder)
            continue
        counts["writing" if any_file(folder) else "before files"] += 1
        program.check(folder, expected)
        status, lines = finish(program.start(folder))
        assert status == 0 or (name == "prepare" and "exists: remove it" in lines[-1]), lines
        assert program.result(folder) == expected
        assert not list(folder.rglob("*.lock")), "the lock stays"
        counts["temporary files left"] += len(list(folder.rglob("*.tmp")))
        shutil.rmtree(folder)
    tell(f"{name}: {ROUNDS} kills, {dict(counts)}, {first:.1f} of {whole:.1f} s to the first file")
