"""Crops per second of FastPose-50 at 256x192, here and in torch, on the same device.

  python benchmarks/estimator.py [--batch-size=16] [--repeats=6] [--dtype=float32]

Prints JSON lines. "network" is the network alone: ours with batch norms folded, torch's in
channels_last and inference mode; the two take turns. "estimator" is everything from an image and
boxes to poses. "crops_per_second" is that of the best run, with the median and the slowest beside
it. "cpu_seconds" is the time per crop of all cores together; other processes change it less than
the wall time. torch is measured only on CPUs, and only if it is installed.
"""

import argparse
import json
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from timing import crop_rates, ratios

from rmpe_jax.arguments import positive_int, present_names
from rmpe_jax.config import default_config, model_spec, parse_config
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.models.folding import fold_batch_norm
from rmpe_jax.models.spec import require_pose

SIZE = (256, 192)
# Peak FLOP/s of dense bfloat16 products, from NVIDIA's data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "T4": 65e12}


def random_model(dtype: str) -> PoseModel:
    """FastPose-50 with random weights."""
    config = default_config()
    config.model.name, config.model.input_size, config.model.dtype = "fastpose_res50", SIZE, dtype
    spec = require_pose(model_spec(parse_config(config)))
    network, _ = spec.build()
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *SIZE, 3)))
    variables = jax.tree.map(lambda leaf: 0.01 * rng.random(leaf.shape, np.float32), dict(shapes))
    return PoseModel(spec, variables)


def torch_network(crops: np.ndarray) -> Callable[[], object] | None:
    """A function that runs torch's FastPose-50 on the crops; None without torch."""
    try:
        import torch
        from torch_fastpose import FastPose50
    except ImportError:
        return None
    network = FastPose50().eval().to(memory_format=torch.channels_last)
    inputs = torch.from_numpy(crops).permute(0, 3, 1, 2)  # NHWC in memory: channels_last

    def run():
        with torch.inference_mode():
            return network(inputs)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=positive_int, default=16)
    parser.add_argument("--repeats", type=positive_int, default=6)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    renamed = {"--batch": "--batch-size", "--rounds": "--repeats"}
    args = parser.parse_args(present_names(sys.argv[1:], renamed))
    device = jax.devices()[0]
    model = random_model(args.dtype)
    common = {"device": device.device_kind, "batch": args.batch_size, "dtype": args.dtype}
    measure_networks(model, args.batch_size, args.repeats, common)
    measure_estimator(model, args.batch_size, args.repeats, common)


def measure_networks(model: PoseModel, batch_size: int, repeats: int, common: dict) -> None:
    """Prints the times of the networks alone."""
    device = jax.devices()[0]
    network, _ = model.build()
    folded, folded_variables = fold_batch_norm(network, model.variables, SIZE)
    crops = np.random.default_rng(0).normal(size=(batch_size, *SIZE, 3)).astype(np.float32)
    x = jax.device_put(crops)
    plain = jax.jit(network.apply).lower(model.variables, x).compile()
    ours = jax.jit(folded.apply).lower(folded_variables, x).compile()
    functions = {
        "ours": lambda: jax.block_until_ready(ours(folded_variables, x)),
        "ours, not folded": lambda: jax.block_until_ready(plain(model.variables, x)),
    }
    peer = torch_network(crops) if device.platform == "cpu" else None
    if peer:
        functions["torch"] = peer
    found = crop_rates(functions, batch_size, repeats)
    flops = plain.cost_analysis()["flops"] / batch_size
    peaks = PEAKS if common["dtype"] == "bfloat16" else {}
    peak = next((peak for name, peak in peaks.items() if name in device.device_kind), None)
    for name, values in found.items():
        if peak:
            utilization = values["crops_per_second"] * flops / peak
            values["model_flops_utilization"] = round(utilization, 3)
        print(json.dumps({"network": name, **common, "gflop": round(flops / 1e9, 2), **values}))
    if peer:
        print(json.dumps({"ours to torch": ratios(found["ours"], found["torch"])}))


def measure_estimator(model: PoseModel, batch_size: int, repeats: int, common: dict) -> None:
    """Prints the time from an image and boxes to poses."""
    estimator = PoseEstimator(model, chunk=batch_size if 32 % batch_size == 0 else None)
    image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    bboxes = np.array([100, 50, 300, 400]) + 5 * np.arange(batch_size)[:, None]
    functions = {"image and boxes to poses": lambda: estimator.estimate(image, bboxes)}
    for name, values in crop_rates(functions, batch_size, repeats).items():
        print(json.dumps({"estimator": name, **common, **values}))


if __name__ == "__main__":
    main()
