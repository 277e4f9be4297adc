"""Run by test_mesh.py with eight CPU devices: the same steps on one device and on all.

  python on_eight_devices.py CHECKPOINTS

Prints, as JSON, how far apart the results are. Leaves the state of all devices in CHECKPOINTS.
"""

import json
import sys

import jax
import numpy as np
import run_parts
import toy
from jax.sharding import AxisType, Mesh

from rmpe_jax.config import default_config
from rmpe_jax.training import mesh as meshes
from rmpe_jax.training.checkpoints import Checkpoints


def batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (16, 32, 32, 3), np.uint8),
        "keypoints": rng.uniform(2, 29, (16, 17, 2)).astype(np.float32),
        "weights": (rng.uniform(size=(16, 17)) < 0.8).astype(np.float32),
        "corrupt": np.zeros(16, bool),
    }


def train(config, mesh: Mesh):
    """The state after three steps on `mesh`, its losses, and the programs it took."""
    state = jax.device_put(run_parts.start(config), meshes.replicated(mesh))
    step = jax.jit(run_parts.parts(config).step, donate_argnums=0)
    losses = []
    for seed in range(3):
        rows = meshes.put_batch(batch(seed), meshes.batch_sharded(mesh))
        assert len(rows["image"].sharding.device_set) == mesh.size
        state, metrics = step(state, rows)
        losses.append(float(metrics["loss"]))
    assert all(len(leaf.sharding.device_set) == mesh.size for leaf in jax.tree.leaves(state))
    return state, losses, step._cache_size()


def main() -> None:
    toy.register()
    everything = meshes.device_mesh()
    one = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    config = default_config()
    config.model.name, config.model.input_size = "toy", (32, 32)
    config.batch_size, config.grad_accumulation = 16, 2
    config.optim.ema_decay = 0.9
    ours, losses, programs = train(config, everything)
    theirs, expected, _ = train(config, one)
    apart = [
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    ]
    found = {
        "devices": everything.size,
        "state": max(apart),
        "losses": max(abs(a - b) for a, b in zip(losses, expected, strict=True)),
        "programs": programs,
        "sum of kernel": float(np.asarray(ours.ema["params"]["conv"]["kernel"]).sum()),
    }
    with Checkpoints(sys.argv[1]) as checkpoints:
        checkpoints.save(ours, {"config": config.to_dict()}, wait=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
