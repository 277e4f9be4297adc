"""A program on a CPU starts again with huge pages, once, and only if nothing stands between."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, pathlib, sys
from rmpe_jax.cli import huge_pages

huge_pages._SETTING = pathlib.Path(__file__).with_name("enabled")
print("started", os.getpid(), flush=True)
huge_pages.restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""
HUGE = "glibc.malloc.hugetlb=1"


def run(tmp_path, command, setting="always [madvise] never", **variables):
    """The lines that SCRIPT prints."""
    (tmp_path / "script.py").write_text(SCRIPT)
    if setting is not None:
        (tmp_path / "enabled").write_text(setting)
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | variables
    result = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()


def test_starts_again_with_the_same_arguments(tmp_path):
    first, second, last = run(tmp_path, [sys.executable, "script.py", "a b", "--c"])
    assert first == second  # one process
    assert last == f"{HUGE} ['a b', '--c']"


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]", None])
def test_not_if_it_would_change_nothing(tmp_path, setting):
    lines = run(tmp_path, [sys.executable, "script.py"], setting)
    assert lines[1:] == ["None []"]


def test_not_over_a_setting_of_the_user(tmp_path):
    lines = run(tmp_path, [sys.executable, "script.py"], GLIBC_TUNABLES="glibc.malloc.check=0")
    assert lines[1:] == ["glibc.malloc.check=0 []"]


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "import runpy; runpy.run_path('script.py', run_name='__main__')"],
        ["-m", "pdb", "-c", "continue", "-c", "quit", "script.py"],
    ],
    ids=["runpy", "pdb"],
)
def test_not_inside_of_another_program(tmp_path, command):
    lines = run(tmp_path, [sys.executable, *command])
    assert sum(line.startswith("started") for line in lines) == 1
    assert any(line.startswith("None") for line in lines)
