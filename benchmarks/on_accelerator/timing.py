"""Times of compilation and of compiled functions."""

import concurrent.futures
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

WORKERS = 4  # programs that are compiled at once


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function.

    Attributes:
      call: runs it.
      lower_s: seconds of tracing and lowering.
      compile_s: seconds of compilation.
      beside: how many others were compiled at the same time.
    """

    call: Any
    lower_s: float
    compile_s: float
    beside: int = 0

    def times(self) -> dict[str, float]:
        """For a line of the report."""
        return {
            "lower_s": round(self.lower_s, 2),
            "compile_s": round(self.compile_s, 2),
            "compiled_beside": self.beside,
        }


def compile_all(
    functions: dict[str, tuple[Callable, tuple]], **options: Any
) -> dict[str, Compiled | Exception]:
    """Compiles functions, several at a time; an error takes the place of its function.

    Args:
      functions: each with its arguments, or with shapes in their place.
      options: of `jax.jit`.
    """
    lowered: dict[str, Any] = {}
    for name, (function, args) in functions.items():
        begin = time.perf_counter()
        try:
            stage = jax.jit(function, **options).lower(*args)
        except Exception as error:
            stage = error
        lowered[name] = stage, time.perf_counter() - begin
    beside = min(len(functions), WORKERS) - 1

    def finish(name: str) -> Compiled | Exception:
        stage, lower_s = lowered[name]
        begin = time.perf_counter()
        try:
            if isinstance(stage, Exception):
                return stage
            return Compiled(stage.compile(), lower_s, time.perf_counter() - begin, beside)
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(functions, pool.map(finish, functions), strict=True))


def compile_one(function: Callable, *args: Any, **options: Any) -> Compiled:
    """Compiles one function alone; raises its error."""
    compiled = compile_all({"": (function, args)}, **options)[""]
    return required(compiled)


def required(compiled: Compiled | Exception) -> Compiled:
    """The compiled function; raises the error in its place."""
    if isinstance(compiled, Exception):
        raise compiled
    return compiled


def seconds_per_call(
    function: Callable[[], Any], *, calls: int = 10, repeats: int = 5
) -> list[float]:
    """Seconds per call, of several timings of many calls each, after two that are not timed.

    Args:
      function: gives arrays, which are waited for at the end of each timing.
      calls: of a timing; fewer if they take more than half a second.
      repeats: number of timings.
    """
    jax.block_until_ready(function())
    begin = time.perf_counter()
    jax.block_until_ready(function())
    calls = max(1, min(calls, int(0.5 / (time.perf_counter() - begin))))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            result = function()
        jax.block_until_ready(result)
        times.append((time.perf_counter() - begin) / calls)
    return times


def summary(times: list[float], crops: int | None = None) -> dict[str, Any]:
    """Median, fastest and slowest timing in milliseconds; crops per second of the median."""
    ms = {
        name: round(1e3 * choose(times), 4)
        for name, choose in (("ms", statistics.median), ("ms_min", min), ("ms_max", max))
    }
    return {"crops_per_s": round(crops / statistics.median(times), 1), **ms} if crops else ms
