"""Crops per second of a training step of FastPose-50 at 256x192, here and in torch, on a CPU.

  python benchmarks/training.py [--batch-size=8] [--repeats=5]

Prints JSON lines. Both steps take turns: forward pass with batch statistics, mean squared error of
the heatmaps, gradient, Adam. Ours is that of `rmpe train`, which also normalizes the crops, draws
the targets and measures accuracy; torch gets its inputs and targets ready made, in channels_last.
"cpu_seconds" is the time per crop of all cores together. torch is measured only if it is installed.
"""

import argparse
import json
from collections.abc import Callable

import jax
import numpy as np
from estimator import measure
from on_accelerator.networks import R50, Case, random_variables
from on_accelerator.training import random_batch, step_program

from rmpe_jax.arguments import positive_int


def our_step(batch_size: int) -> Callable[[], object]:
    """A function that makes one step."""
    case = Case(R50, batch_size, "float32")
    program = step_program(case)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.shapes[0])
    state = state.replace(**random_variables(case))
    held = {"state": jax.device_put(state)}
    batch = jax.device_put(random_batch(case, 0))
    step = jax.jit(program.step, donate_argnums=0).lower(*program.shapes).compile()

    def run() -> object:
        held["state"], metrics = step(held["state"], batch)
        return jax.block_until_ready((held["state"], metrics))

    return run


def torch_step(batch_size: int) -> Callable[[], object] | None:
    """The same in torch; None without torch."""
    try:
        import torch
        from torch_fastpose import FastPose50
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    network = FastPose50().train().to(memory_format=torch.channels_last)
    crops = rng.normal(size=(batch_size, 256, 192, 3)).astype(np.float32)
    inputs = torch.from_numpy(crops).permute(0, 3, 1, 2)  # NHWC in memory: channels_last
    targets = torch.from_numpy(rng.random((batch_size, 17, 64, 48), np.float32))
    optimizer = torch.optim.Adam(network.parameters())

    def run() -> object:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(network(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--repeats", type=positive_int, default=5)
    args = parser.parse_args()
    functions = {"ours": our_step(args.batch_size)}
    if peer := torch_step(args.batch_size):
        functions["torch"] = peer
    found = measure(functions, args.batch_size, args.repeats)
    for name, values in found.items():
        print(json.dumps({"training step": name, "batch": args.batch_size, **values}))
    if peer:
        ours, theirs = found["ours"], found["torch"]
        ratios = {key: ours[key] / theirs[key] for key in ("crops_per_second", "median")}
        ratios["cpu"] = theirs["cpu_seconds"] / ours["cpu_seconds"]
        print(json.dumps({"ours to torch": {key: round(r, 2) for key, r in ratios.items()}}))


if __name__ == "__main__":
    main()
