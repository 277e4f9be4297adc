"""Times functions, and says how times spread; for the other benchmarks."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Run(NamedTuple):
    """Seconds of one call: wall time, and processor time of all threads together."""

    wall: float
    cpu: float


def timed(function: Callable[[], Any]) -> Run:
    """Calls a function and waits for the arrays that it gives."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(function())
    return Run(time.perf_counter() - wall, time.process_time() - cpu)


def in_turns(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[Run]]:
    """Runs of each function after a first one that is not timed.

    They take turns, so that a busy machine slows all of them.
    """
    for function in functions.values():
        timed(function)
    runs = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            runs[name].append(timed(function))
    return runs


def best_time(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Seconds of the best run after the first one, and of compilation (the first run)."""
    first, *later = (timed(function) for _ in range(repeats + 1))
    best = min(later)
    return {
        "seconds": round(best.wall, 5),
        "cpu_seconds": round(best.cpu, 5),
        "compile_seconds": round(first.wall - best.wall, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def crop_rates(
    functions: dict[str, Callable[[], Any]], crops: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Crops per second of the best, the median and the slowest run; CPU seconds of a crop."""
    rates = {}
    for name, runs in in_turns(functions, repeats).items():
        walls = [run.wall for run in runs]
        rates[name] = {
            "crops_per_second": round(crops / min(walls), 2),
            "median": round(crops / statistics.median(walls), 2),
            "slowest": round(crops / max(walls), 2),
            "cpu_seconds": round(min(run.cpu for run in runs) / crops, 4),
        }
    return rates


def ratios(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """How many times faster ours is, of two rows of `crop_rates`."""
    values = {key: ours[key] / theirs[key] for key in ("crops_per_second", "median")}
    values["cpu"] = theirs["cpu_seconds"] / ours["cpu_seconds"]
    return {key: round(value, 2) for key, value in values.items()}


def spread(name: str, values: list[float], digits: int = 2) -> dict[str, float]:
    """The median under a name, with the least and the greatest value beside it."""
    found = (statistics.median(values), min(values), max(values))
    keys = (name, f"{name}_min", f"{name}_max")
    return {key: round(value, digits) for key, value in zip(keys, found, strict=True)}
