"""Cost of the spatial transformer: at inference, and of a training step by its guidance.

  python benchmarks/sstn.py
  python benchmarks/sstn.py --training --model=tinypose_xs --input-size 96 64 --batch-size=32

Prints one JSON line with milliseconds per crop (medians over runs that take turns) and ratios. At
inference: the SPPE alone, and within STN and SDTN; the goal is a ratio of at most 1.15 with the
small localization network. With `--training`: a step of the second stage, by gradients and by
central differences, with and without parallel SPPE. `_mb` is the memory of the compiled step beside
its arguments, as XLA reports it.
"""

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from timing import in_turns

from rmpe_jax.arguments import positive_int, present_names
from rmpe_jax.config import default_config, model_spec, parse_config
from rmpe_jax.models import SPPE_NAMES, build_sppe
from rmpe_jax.models.localization import LOCALIZATION_NAMES, build_localization
from rmpe_jax.models.rmpe import RMPE
from rmpe_jax.models.rtmpose import RTMPOSE_MODELS
from rmpe_jax.training.objectives import PoseObjective
from rmpe_jax.training.optimizers import build_optimizer
from rmpe_jax.training.state import init_state, init_variables
from rmpe_jax.training.step import make_train_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name in SPPE_NAMES if name not in RTMPOSE_MODELS]  # those with heatmaps
    parser.add_argument("--model", default="fastpose_res50", choices=names)
    parser.add_argument("--localization", default="small", choices=LOCALIZATION_NAMES)
    parser.add_argument("--input-size", type=int, nargs=2, default=(256, 192))
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=positive_int, default=7)
    parser.add_argument("--training", action="store_true", help="time training steps instead")
    args = parser.parse_args(present_names(sys.argv[1:], {}))

    result = training(args) if args.training else inference(args)
    device = jax.devices()[0].device_kind
    print(json.dumps({"benchmark": "sstn", "device": device, **vars(args), **result}))


def inference(args: argparse.Namespace) -> dict[str, float]:
    dtype = jnp.dtype(args.dtype)
    sppe = build_sppe(args.model, 17, dtype)
    net = RMPE(sppe, build_localization(args.localization, dtype))
    crops = np.random.default_rng(0).standard_normal((args.batch_size, *args.input_size, 3))
    crops = jnp.asarray(crops, jnp.float32)
    variables = jax.jit(net.init)(jax.random.key(0), crops)
    alone = {kind: trees["sppe"] for kind, trees in variables.items()}
    runs = {
        "sppe_ms": functools.partial(jax.jit(sppe.apply), alone, crops),
        "sstn_ms": functools.partial(jax.jit(net.apply), variables, crops),
    }
    ms = milliseconds(runs, args)
    return {**ms, "ratio": round(ms["sstn_ms"] / ms["sppe_ms"], 3)}


def training(args: argparse.Namespace) -> dict[str, float]:
    """Steps of second stages on noise; each run starts from the same state."""
    runs, megabytes = {}, {}
    for parallel in ("parallel", "alone"):
        for guidance in ("autodiff", "differences"):
            name = f"{parallel}_{guidance}"
            runs[f"{name}_ms"], megabytes[f"{name}_mb"] = step_of(args, parallel, guidance)
    ms = milliseconds(runs, args)
    ratios = {
        f"{parallel}_ratio": round(
            ms[f"{parallel}_differences_ms"] / ms[f"{parallel}_autodiff_ms"], 3
        )
        for parallel in ("parallel", "alone")
    }
    return {**ms, **ratios, **megabytes}


def step_of(args: argparse.Namespace, parallel: str, guidance: str) -> tuple[Callable, float]:
    """A compiled training step as a function without arguments, and its temporary megabytes."""
    config = default_config()
    config.model.name, config.model.dtype = args.model, args.dtype
    config.model.input_size = tuple(args.input_size)
    config.codec.loss = "cross_entropy"
    config.sstn.enabled, config.sstn.localization = True, args.localization
    config.sstn.guidance = guidance
    if parallel == "parallel":
        config.sstn.parallel, config.sstn.parallel_from = args.model, "the same"
    run = parse_config(config)
    spec = model_spec(run)
    model, codec = spec.build()
    optimizer = build_optimizer(run.optim, run.total_steps, run.sstn)
    state = init_state(init_variables(spec, model, 0), optimizer, run.optim)
    rng, b = np.random.default_rng(0), args.batch_size
    size = np.array(args.input_size[::-1])
    batch = {
        "image": rng.integers(0, 256, (b, *args.input_size, 3), np.uint8),
        "keypoints": (rng.uniform(0.2, 0.8, (b, 17, 2)) * size).astype(np.float32),
        "weights": np.ones((b, 17), np.float32),
        "centered_from_crop": np.tile(np.eye(2, 3, dtype=np.float32), (b, 1, 1)),
        "corrupt": np.zeros(b, bool),
    }
    batch = jax.tree.map(jnp.asarray, batch)
    step = jax.jit(make_train_step(model, PoseObjective(codec, run.sstn), optimizer))
    compiled = step.lower(state, batch).compile()
    memory = compiled.memory_analysis()
    return functools.partial(compiled, state, batch), round(memory.temp_size_in_bytes / 2**20, 1)


def milliseconds(runs: dict[str, Callable], args: argparse.Namespace) -> dict[str, float]:
    """The median time of each run per crop; the runs take turns."""
    return {
        name: round(1e3 * statistics.median(run.wall for run in found) / args.batch_size, 3)
        for name, found in in_turns(runs, args.repeats).items()
    }


if __name__ == "__main__":
    main()
