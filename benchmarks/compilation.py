"""Compilation, cold and from the cache: the training step and `PoseEstimator`, in fresh processes.

  python benchmarks/compilation.py [--batch-size=8] [--repeats=3] [--tiny]

Prints a JSON line for each program and state of the cache, of litepose_effnet0_s at 256x192. "cold"
is a process with an empty cache, "cached" is one after it, which finds what the former compiled.
`compile_seconds` is the first call less the second one: tracing, lowering, and compiling or
loading; `compiler_seconds` is compiling or loading alone. Both are medians, with the least and the
most beside them. `peak_mb` is the most memory of these processes.
"""

import argparse
import collections
import json
import tempfile
from collections.abc import Callable

import jax
import numpy as np
from fresh_process import peak_megabytes, run_python
from machine import cores
from on_accelerator.networks import LITE, Case, random_variables
from on_accelerator.training import runner, step_program
from timing import spread, timed

from rmpe_jax.arguments import positive_int
from rmpe_jax.entry import use_compilation_cache
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.model_io.pose_model import PoseModel

_COMPILER = "/jax/core/compile/backend_compile_duration"


def training_step(case: Case) -> Callable[[], object]:
    """A function that makes a training step; nothing of it is compiled yet."""
    program = step_program(case)
    steps = runner(case, program, jax.jit(program.step, donate_argnums=0))
    return lambda: steps(1)


def estimator(case: Case) -> Callable[[], object]:
    """A function that estimates the poses in four boxes, likewise."""
    estimator = PoseEstimator(PoseModel(case.spec(), random_variables(case)))
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    bboxes = np.array([100, 50, 300, 400]) + 5 * np.arange(4)[:, None]
    return lambda: estimator.estimate(image, bboxes)


PROGRAMS = {"training step": training_step, "estimator": estimator}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=positive_int, default=8, help="of the training step")
    parser.add_argument("--repeats", type=positive_int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a toy network")
    parser.add_argument(
        "--here", choices=PROGRAMS, help="compile this program in this process, as others do"
    )
    args = parser.parse_args()
    case = Case(LITE, args.batch_size, "float32", args.tiny)
    if args.here:
        print(json.dumps(compile_here(PROGRAMS[args.here](case))))
        return
    for program in PROGRAMS:
        options = [f"--batch-size={args.batch_size}", *(["--tiny"] if args.tiny else [])]
        rows = [compile_twice(program, options) for _ in range(args.repeats)]
        for cache, found in zip(("cold", "cached"), zip(*rows, strict=True), strict=True):
            line = {"benchmark": "compilation", "program": program, "cache": cache}
            line |= {"network": case.spec().network, "cores": cores()}
            for name in ("compile_seconds", "compiler_seconds"):
                line |= spread(name, [row[name] for row in found])
            line["peak_mb"] = max(row["peak_mb"] for row in found)
            print(json.dumps(line), flush=True)


def compile_twice(program: str, options: list[str]) -> tuple[dict, dict]:
    """What two processes say that share a cache, which is empty at first."""
    with tempfile.TemporaryDirectory() as cache:
        first, second = (
            json.loads(run_python(__file__, f"--here={program}", *options, cache=cache).printed)
            for _ in range(2)
        )
    return first, second


def compile_here(function: Callable[[], object]) -> dict[str, float]:
    """Seconds of the compilation that the first call needs."""
    spent = collections.Counter()
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: spent.update({name: seconds})
    )
    use_compilation_cache()
    first, second = timed(function), timed(function)
    return {
        "compile_seconds": first.wall - second.wall,
        "compiler_seconds": spent[_COMPILER],
        "peak_mb": peak_megabytes(),
    }


if __name__ == "__main__":
    main()
