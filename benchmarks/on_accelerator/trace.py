"""A profiler trace of some steps, and the operations in it that take longest."""

import collections
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import jax

STEPS = 5
LONGEST = 10
_KEPT_BYTES = 8 * 2**20


def profile(name: str, steps: Callable[[int], None], compiled: Any, out: pathlib.Path) -> dict:
    """The operations that five steps spend most time in.

    Args:
      name: of the file that a small trace is kept in.
      steps: runs a number of steps and waits for them.
      compiled: the step, whose HLO says which layers operations belong to.
      out: folder of the kept trace.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            steps(STEPS)
        path = next(pathlib.Path(folder).rglob("*.xplane.pb"))
        size = path.stat().st_size
        if size < _KEPT_BYTES:
            shutil.copy(path, out / f"profile_{name}.xplane.pb")
        kernels, operations = _durations(jax.profiler.ProfileData.from_file(str(path)))
    layers = _layers(compiled.as_text())
    return {
        "trace_bytes": size,
        "kernel_ms_per_step": round(sum(kernels.values()) / STEPS / 1e6, 3),
        "kernels": _longest(kernels),
        "operations": [row | {"layer": layers.get(row["name"])} for row in _longest(operations)],
    }


def _durations(data: Any) -> tuple[collections.Counter, collections.Counter]:
    """Nanoseconds by kernel, and by operation of the compiled program."""
    kernels, operations = collections.Counter(), collections.Counter()
    for line in _device_lines(list(data.planes)):
        for event in line.events:
            stats = {key: value for key, value in event.stats if isinstance(key, str)}
            operation = stats.get("hlo_op") or stats.get("name")
            kernels[event.name] += event.duration_ns
            operations[str(operation or event.name)] += event.duration_ns
    return kernels, operations


def _device_lines(planes: list[Any]) -> list[Any]:
    """Where kernels are: a GPU's streams, a TPU's operations, or the threads of a CPU's."""
    device = [p for p in planes if "/device:" in p.name and "CUSTOM" not in p.name.upper()]
    lines = [line for plane in device for line in plane.lines]
    for wanted in ("Stream", "XLA Ops"):
        found = [line for line in lines if wanted in line.name]
        if found:
            return found
    if any(True for line in lines for _ in line.events):
        return lines
    threads = [line for plane in planes if "CPU" in plane.name for line in plane.lines]
    return [line for line in threads if "XLA" in line.name] or threads


def _longest(durations: collections.Counter) -> list[dict]:
    total = sum(durations.values()) or 1
    return [
        {"name": name[:160], "ms": round(ns / STEPS / 1e6, 4), "share": round(ns / total, 4)}
        for name, ns in durations.most_common(LONGEST)
    ]


def _layers(hlo: str) -> dict[str, str]:
    """By operation: the layer it comes from, as JAX names it."""
    found = re.findall(r"^\s*(?:ROOT )?%?([\w.-]+) = .*?op_name=\"([^\"]+)\"", hlo, re.M)
    return {name: layer[-160:] for name, layer in found}
