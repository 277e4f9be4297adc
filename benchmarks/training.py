"""Crops per second of a training step at 256x192, here and in torch, on a CPU.

  python benchmarks/training.py [--network=fastpose_res50] [--batch-size=8] [--repeats=5] [--tiny]

Prints JSON lines for FastPose-50 and for a small network, litepose_effnet0_s. Both steps take
turns: forward pass with batch statistics, loss, gradient, and the update that the config of the
network names. FastPose-50 learns by the mean squared error of the heatmaps and Adam, the small
network by cross-entropy, clipping, AdamW and moving averages. Ours is the step of `rmpe train`,
which also normalizes the crops, draws the targets and measures accuracy; torch gets its inputs and
targets ready made, in channels_last. "crops_per_second" is that of the best run, with the median
and the slowest beside it. "cpu_seconds" is the time per crop of all cores together. torch is
measured only if it is installed.
"""

import argparse
import json
from collections.abc import Callable

from on_accelerator.networks import LITE, R50, Case
from on_accelerator.training import compile_step, runner, step_program
from timing import crop_rates, ratios

from rmpe_jax.arguments import positive_int

NETWORKS = {"fastpose_res50": R50, "litepose_effnet0_s": LITE}


def our_steps(case: Case) -> Callable[[int], object]:
    """A function that makes so many steps, on batches that are on the device."""
    program = step_program(case)
    return runner(case, program, compile_step(program).call)


def torch_step(name: str, batch_size: int) -> Callable[[], object] | None:
    """The same in torch, one step; None without torch."""
    try:
        import torch_training
    except ImportError:
        return None
    steps = {
        "fastpose_res50": torch_training.fastpose_step,
        "litepose_effnet0_s": torch_training.litepose_step,
    }
    return steps[name](batch_size)


def measure(name: str, args: argparse.Namespace) -> None:
    """Prints the lines of a network."""
    case = Case(NETWORKS[name], args.batch_size, "float32", args.tiny)
    steps = our_steps(case)
    functions: dict[str, Callable] = {"ours": lambda: steps(1)}
    if peer := None if args.tiny else torch_step(name, args.batch_size):
        functions["torch"] = peer
    found = crop_rates(functions, args.batch_size, args.repeats)
    common = {"network": case.spec().network, "batch": args.batch_size}
    for which, values in found.items():
        print(json.dumps({"training step": which, **common, **values}), flush=True)
    if peer:
        faster = ratios(found["ours"], found["torch"])
        print(json.dumps({"ours to torch": faster, **common}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, help="default: both, one after the other")
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--repeats", type=positive_int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a toy network of ours, without torch")
    args = parser.parse_args()
    for name in [args.network] if args.network else NETWORKS:
        measure(name, args)


if __name__ == "__main__":
    main()
