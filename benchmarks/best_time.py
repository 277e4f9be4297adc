"""Times a function that JAX compiles; for the other benchmarks."""

import os
import time
from collections.abc import Callable

import jax


def best_time(run: Callable, repeats: int) -> dict[str, float]:
    """Seconds of the best run after the first one, and of compilation (the first run)."""
    times = []
    for _ in range(repeats + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        times.append((time.perf_counter() - start, time.process_time() - cpu_start))
    seconds, cpu_seconds = min(times[1:])
    compile_seconds = times[0][0] - seconds
    return {
        "seconds": round(seconds, 5),
        "cpu_seconds": round(cpu_seconds, 5),
        "compile_seconds": round(compile_seconds, 2),
        "load": round(os.getloadavg()[0], 1),
    }
