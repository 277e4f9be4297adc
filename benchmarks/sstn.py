"""Cost of the spatial transformer at inference: the SPPE alone, and within STN and SDTN.

  python benchmarks/sstn.py

Prints one JSON line: milliseconds per crop (medians over runs that take turns) and their ratio. The
goal is at most 1.15 with the small localization network.
"""

import argparse
import functools
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from rmpe_jax.arguments import positive_int, present_names
from rmpe_jax.models import SPPE_NAMES, build_sppe
from rmpe_jax.models.localization import LOCALIZATION_NAMES, build_localization
from rmpe_jax.models.rmpe import RMPE
from rmpe_jax.models.rtmpose import RTMPOSE_MODELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name in SPPE_NAMES if name not in RTMPOSE_MODELS]  # those with heatmaps
    parser.add_argument("--model", default="fastpose_res50", choices=names)
    parser.add_argument("--localization", default="small", choices=LOCALIZATION_NAMES)
    parser.add_argument("--input-size", type=int, nargs=2, default=(256, 192))
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=positive_int, default=7)
    args = parser.parse_args(present_names(sys.argv[1:], {}))

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
    for run in runs.values():
        jax.block_until_ready(run())
    seconds = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)

    ms = {name: 1e3 * statistics.median(s) / args.batch_size for name, s in seconds.items()}
    result = {
        "benchmark": "sstn",
        "device": jax.devices()[0].device_kind,
        **vars(args),
        **{name: round(value, 3) for name, value in ms.items()},
        "ratio": round(ms["sstn_ms"] / ms["sppe_ms"], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
