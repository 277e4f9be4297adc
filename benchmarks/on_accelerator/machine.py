"""The device, the machine, and a large matrix product for calibration."""

import pathlib

import jax
import jax.numpy as jnp
import machine
from on_accelerator import flops, timing
from on_accelerator.report import Report


def measure(report: Report, out: pathlib.Path, tiny: bool) -> None:
    """Section "machine"."""
    report.measure("machine", "device", describe, seconds=0)
    large = jax.default_backend() in ("gpu", "tpu") and not tiny
    size = 8192 if large else 256
    report.measure("machine", f"bfloat16 product, {size}^3", lambda: product(size), seconds=5)


def describe() -> dict:
    """What the figures were obtained on; the memory is the device's."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    return machine.describe() | {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "memory_gb": limit and round(limit / 1e9, 1),
        "peak_tflops": flops.peak() and flops.peak() / 1e12,
    }


def product(size: int) -> dict:
    """A square matrix product of random values."""
    left, right = (
        jax.random.normal(jax.random.key(seed), (size, size), jnp.bfloat16) for seed in (0, 1)
    )
    compiled = timing.compile_one(jnp.matmul, left, right)
    speed = timing.summary(timing.seconds_per_call(lambda: compiled.call(left, right), calls=20))
    per_second = 2 * size**3 / speed["ms"] * 1e3
    share = flops.share_of_peak(per_second)
    return {"tflops": round(per_second / 1e12, 3), "share_of_peak": share, **speed}
