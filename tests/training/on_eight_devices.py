"""Run by test_mesh.py with eight CPU devices: the same steps on one device and on all, both ways.

  python on_eight_devices.py CHECKPOINTS

Prints, as JSON, how far apart the results are. Leaves the state of all devices in CHECKPOINTS.
"""

import json
import math
import pathlib
import re
import sys

import jax
import numpy as np
import run_parts
import toy
from jax.sharding import AxisType, Mesh

from rmpe_jax.config import default_config, parse_config
from rmpe_jax.training import mesh as meshes
from rmpe_jax.training.checkpoints import Checkpoints

STEPS = 3
MOVES = (  # of a checkpoint, from one layout to another
    ("replicated", "fsdp"),
    ("fsdp", "replicated"),
    ("fsdp", "one"),
    ("one", "fsdp"),
    ("fsdp", "four"),
    ("four", "fsdp"),
)


def batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "keypoints": rng.uniform(2, 13, (16, 17, 2)).astype(np.float32),
        "weights": (rng.uniform(size=(16, 17)) < 0.8).astype(np.float32),
        "corrupt": np.zeros(16, bool),
    }


def train(config, layout: meshes.Layout):
    """The state after `STEPS` steps of one program, the losses, and what a step gathers."""
    mesh = layout.mesh
    state = layout.put(run_parts.start(config))
    wanted = layout.shardings(state)
    step = jax.jit(
        run_parts.parts(config, layout).step,
        donate_argnums=0,
        out_shardings=(wanted, meshes.replicated(mesh)),
    )
    rows = meshes.put_batch(batch(0), meshes.batch_sharded(mesh))
    assert len(rows["image"].sharding.device_set) == mesh.size
    step = step.lower(state, rows).compile()  # it takes no state of another layout
    losses = []
    for seed in range(STEPS):
        rows = meshes.put_batch(batch(seed), meshes.batch_sharded(mesh))
        state, metrics = step(state, rows)
        losses.append(float(metrics["loss"]))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == wanted
    assert all(len(leaf.sharding.device_set) == mesh.size for leaf in jax.tree.leaves(state))
    return state, losses, elements_gathered(step.as_text())


def elements_gathered(program: str) -> int:
    """Elements of what the operation all-gather returns in a compiled program."""
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", program)
    assert len(shapes) == len(re.findall(r" all-gather(?:-start)?\(", program))
    return sum(math.prod(map(int, shape.split(","))) for shape in shapes)


def apart(ours, theirs) -> float:
    """The largest difference between two states."""
    return max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    )


def moved(layouts: dict[str, meshes.Layout], state, config, folder) -> dict[str, bool]:
    """For each of `MOVES`: is what is restored laid out as wanted, and the same bit for bit?"""
    run = parse_config(config)
    for name in dict.fromkeys(first for first, _ in MOVES):
        save(folder / name, layouts[name].put(jax.device_get(state)), config)
    found = {}
    for first, second in MOVES:
        layout = layouts[second]
        with Checkpoints(folder / first, read_only=True) as checkpoints:
            ours, _ = checkpoints.restore(layout.abstract(state), run)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, ours)
        found[f"{first} to {second}"] = toy.same(ours, state) and shardings == layout.shardings(
            ours
        )
    return found


def save(folder, state, config) -> None:
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state, {"config": config.to_dict()}, wait=True)


def first_devices(count: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:count]), ("data",), axis_types=(AxisType.Auto,))


def main() -> None:
    toy.register()
    folder = pathlib.Path(sys.argv[1])
    everything = meshes.device_mesh()
    one = meshes.Layout(first_devices(1))
    layouts = {
        "replicated": meshes.Layout(everything),
        "fsdp": meshes.Layout(everything, "fsdp"),
    }
    config = default_config()
    config.model.name, config.model.input_size = "toy_wide", (16, 16)
    config.batch_size, config.grad_accumulation = 16, 2
    config.optim.ema_decay, config.optim.clip_norm = 0.9, 1.0
    theirs, expected, _ = train(config, one)
    found = {"devices": everything.size}
    for name, layout in layouts.items():
        ours, losses, gathered = train(config, layout)
        kernel = ours.ema["params"]["conv"]["kernel"]
        found[name] = {
            "state": apart(ours, theirs),
            "losses": max(abs(a - b) for a, b in zip(losses, expected, strict=True)),
            "gathered": gathered,
            "kernel": kernel.size,
            "shard": kernel.addressable_shards[0].data.size,
            "large": sum(x.size for x in jax.tree.leaves(ours.params) if x.size >= 2**16),
            "moments": [x.addressable_shards[0].data.size for x in largest(ours.opt_state)],
            "sum of kernel": float(np.asarray(kernel).sum()),
        }
        save(folder / f"trained {name}", ours, config)
    layouts |= {"one": one, "four": meshes.Layout(first_devices(4), "fsdp")}
    found["moved"] = moved(layouts, theirs, config, folder)
    print(json.dumps(found))


def largest(tree) -> list[jax.Array]:
    """The two largest leaves."""
    return sorted(jax.tree.leaves(tree), key=lambda leaf: leaf.size)[-2:]


if __name__ == "__main__":
    main()
