"""Runs Python in fresh processes; for the other benchmarks."""

import os
import resource
import subprocess
import sys
import time
from typing import NamedTuple


class Ended(NamedTuple):
    """A program that has ended: wall time and processor time in seconds, and what it printed."""

    wall: float
    cpu: float
    printed: str


def run_python(*arguments: str, cache: str) -> Ended:
    """Runs Python with the arguments and a folder for compiled programs.

    Raises:
      SystemExit: it failed; with what it wrote to stderr.
    """
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(wall, cpu, done.stdout)


def peak_megabytes(who: int = resource.RUSAGE_SELF) -> float:
    """The most memory that a process has used so far.

    Linux begins with the peak of the process that started it, which should therefore be small.

    Args:
      who: this process, or `RUSAGE_CHILDREN`: the largest of those that have ended.
    """
    peak = resource.getrusage(who).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
