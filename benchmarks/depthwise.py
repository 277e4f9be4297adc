"""Compares our depthwise convolution with XLA's grouped convolution: forward and backward passes.

  python benchmarks/depthwise.py

Prints one JSON line per layer size of EfficientNet-Lite0 at 128x96, batch 32: milliseconds, and how
many times faster ours is. The backward pass is that of training with frozen kernels: the gradient
with respect to the input.
"""

import json
from collections.abc import Callable

import jax
from jax import lax
from timing import in_turns

from rmpe_jax.models.inverted_residual import depthwise

LAYERS = ((64, 48, 32, 3, 1), (32, 24, 144, 3, 1), (16, 12, 240, 5, 1), (8, 6, 672, 5, 1))


def grouped(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution by `lax.conv_general_dilated` with one group per channel."""
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def milliseconds(function: Callable, *args: jax.Array, repeats: int = 5) -> float:
    """Time of the fastest of several runs; other processes can only add to it."""
    runs = in_turns({"layer": lambda: function(*args)}, repeats)["layer"]
    return 1e3 * min(run.wall for run in runs)


def times_of(layer: Callable, x: jax.Array, kernel: jax.Array, stride: int) -> tuple[float, float]:
    """Milliseconds of a forward pass, and of a forward and backward pass."""

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (layer(x, kernel, stride) ** 2).sum()

    forward = jax.jit(lambda x, kernel: layer(x, kernel, stride))
    return milliseconds(forward, x, kernel), milliseconds(jax.jit(jax.grad(loss)), x, kernel)


def main() -> None:
    for height, width, channels, size, stride in LAYERS:
        x = jax.random.normal(jax.random.key(0), (32, height, width, channels))
        kernel = jax.random.normal(jax.random.key(1), (size, size, channels))
        ours, theirs = (times_of(layer, x, kernel, stride) for layer in (depthwise, grouped))
        row: dict = {"layer": f"{height}x{width}x{channels}", "kernel": size, "stride": stride}
        for what, our_time, their_time in zip(("forward", "backward"), ours, theirs, strict=True):
            row[f"{what}_ms"] = round(our_time, 2)
            row[f"{what}_grouped_ms"] = round(their_time, 2)
            row[f"{what}_times_faster"] = round(their_time / our_time, 1)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
