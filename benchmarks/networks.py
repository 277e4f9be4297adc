"""Parameters and FLOPs of pose networks, without running or compiling them.

  python benchmarks/networks.py [NAME …]

Prints one JSON line for each network, by default all of `build_sppe`, for 17 joints and one crop of
256x192 (hourglasses: 256x256). `gflops` is XLA's count for inference before optimization, in 1e9: a
multiplication and an addition are two. Many papers count them as one, and call that FLOPs too.
"""

import argparse
import json

import jax

from rmpe_jax.models import SPPE_NAMES, build_sppe

JOINTS = 17


def cost(name: str) -> dict:
    """Parameters and FLOPs of one network."""
    size = (256, 256) if name.startswith("hourglass") else (256, 192)
    module = build_sppe(name, JOINTS)
    images = jax.ShapeDtypeStruct((1, *size, 3), "float32")
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    analysis = jax.jit(module.apply).lower(variables, images).cost_analysis()
    return {
        "network": name,
        "input_size": size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "gflops": round(analysis["flops"] / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=SPPE_NAMES, metavar="NAME")
    for name in parser.parse_args().names:
        print(json.dumps(cost(name)), flush=True)


if __name__ == "__main__":
    main()
