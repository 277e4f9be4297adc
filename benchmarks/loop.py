"""A training step alone, and the same step in the loop of `rmpe train`: the share lost.

  python benchmarks/loop.py [--network=litepose_effnet0_s] [--batch-size=32] [--repeats=6] [--tiny]

Prints one JSON line. `alone_crops_per_s` is the step on batches that are on the device, timed
before and after the loop. `loop_crops_per_s` is the rate that `rmpe train` logs when its loader
reads, decodes, augments and crops drawn scenes of 480x640 on the same cores. Both are medians over
timings of `--steps` steps, with the slowest and the fastest beside them. `share_lost` compares the
medians; the goal is at most 0.05. `data_wait` is the share of the time that the loop waits for a
batch; the rest of what is lost are cores that the loader takes from the step.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable

from machine import cores
from on_accelerator.loop import config_of_scenes, draw_scenes
from on_accelerator.networks import Case
from on_accelerator.report import read_lines
from timing import spread, timed
from training import NETWORKS, our_steps

from rmpe_jax.arguments import positive_int
from rmpe_jax.entry import run
from rmpe_jax.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="litepose_effnet0_s", choices=NETWORKS)
    parser.add_argument("--batch-size", type=positive_int, default=32)
    parser.add_argument("--repeats", type=positive_int, default=6, help="number of timings")
    parser.add_argument("--steps", type=positive_int, default=5, help="of each timing")
    parser.add_argument("--tiny", action="store_true", help="a toy network and toy scenes")
    args = parser.parse_args()
    case = Case(NETWORKS[args.network], args.batch_size, "float32", args.tiny)
    result = {
        "benchmark": "loop",
        "network": case.spec().network,
        "batch": args.batch_size,
        "cores": cores(),
        **measure(case, args.repeats, args.steps),
    }
    print(json.dumps(result))


def measure(case: Case, repeats: int, steps: int) -> dict[str, float]:
    """Rates alone and in the loop."""
    make_steps = our_steps(case)
    make_steps(2)
    alone = rates(make_steps, case.batch, steps, -(-repeats // 2))
    lines = in_loop(case, repeats, steps)
    alone += rates(make_steps, case.batch, steps, -(-repeats // 2))
    loop = [line["train/samples_per_second"] for line in lines]
    return {
        **spread("alone_crops_per_s", alone),
        **spread("loop_crops_per_s", loop),
        "share_lost": round(1 - statistics.median(loop) / statistics.median(alone), 3),
        **spread("data_wait", [line["train/data_wait"] for line in lines], 3),
    }


def rates(
    make_steps: Callable[[int], object], batch_size: int, steps: int, repeats: int
) -> list[float]:
    """Crops per second of several timings of so many steps."""
    return [steps * batch_size / timed(lambda: make_steps(steps)).wall for _ in range(repeats)]


def in_loop(case: Case, repeats: int, steps: int) -> list[dict]:
    """The metrics that `rmpe train` logs, every so many steps.

    Two lines are left out: the program is compiled before the first one, and what writes a line is
    compiled before the second.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        config = config_of_scenes(case, draw_scenes(folder, cores(), case.tiny))
        config.log_every, config.total_steps = steps, steps * (repeats + 2)
        train(config, folder / "run")
        return read_lines(folder / "run/metrics.jsonl")[2:]


if __name__ == "__main__":
    sys.exit(run(main))
