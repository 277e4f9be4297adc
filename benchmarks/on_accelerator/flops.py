"""FLOPs by hand, from shapes, and the peaks of devices.

XLA's cost analysis does not know what the libraries of a GPU compute (cuDNN, cuBLAS), so shapes
decide. A multiplication and an addition are two FLOPs. Only matrix products and convolutions count.
The backward pass counts as two forward passes.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
from on_accelerator.report import attempt

TRAINING = 3  # forward pass, gradient of the inputs, gradient of the weights

# Dense bfloat16 products, FLOP/s, from the data sheets; the first name that fits counts.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}


def peak() -> float | None:
    """The peak of the first device; None if it is not known."""
    kind = jax.devices()[0].device_kind
    return next((value for name, value in PEAKS.items() if re.search(rf"\b{name}\b", kind)), None)


def share_of_peak(flops_per_second: float) -> float | None:
    """Of the dense bfloat16 peak, also for float32."""
    known = peak()
    return round(flops_per_second / known, 4) if known else None


def forward_flops(function: Callable, *args: Any) -> int:
    """FLOPs of the matrix products and convolutions of a function.

    Zeros that pad an image count as in most papers. Zeros that a transposed convolution puts
    between pixels do not.

    Args:
      function: to be traced, not run.
      args: arrays, or shapes in their place.

    Raises:
      ValueError: the function has a loop of unknown length.
    """
    return _count(jax.make_jaxpr(function)(*args))


def _count(jaxpr: Any) -> int:
    """Of a jaxpr, closed or not."""
    return sum(_count_equation(equation) for equation in _opened(jaxpr).eqns)


def _opened(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _count_equation(equation: Any) -> int:
    match equation.primitive.name:
        case "dot_general":
            return _product(equation)
        case "conv_general_dilated":
            return _convolution(equation)
        case "scan":
            return equation.params["length"] * _count(equation.params["jaxpr"])
        case "cond":
            return max(_count(branch) for branch in equation.params["branches"])
        case "while":
            if _count(equation.params["body_jaxpr"]):
                raise ValueError("a loop of unknown length has products: their number is unknown")
            return 0
    # What other equations call, such as those of `jit`, `remat` and custom derivatives, runs once.
    inner = [value for value in equation.params.values() if hasattr(_opened(value), "eqns")]
    return sum(map(_count, inner))


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    summed = math.prod(left[axis] for axis in contracted)
    return 2 * summed * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    numbers, dilation = equation.params["dimension_numbers"], equation.params["lhs_dilation"]
    per_output = math.prod(kernel) // kernel[numbers.rhs_spec[0]]  # without output channels
    outputs = math.prod(equation.outvars[0].aval.shape)
    return 2 * outputs * per_output // math.prod(dilation)


def xla_flops(stage: Any) -> float | None:
    """XLA's count, of a lowered or compiled function; None if it gives none."""
    analysis = stage.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return (analysis or {}).get("flops")


def per_crop(
    count: int | None, crops_per_s: float, batch: int, compiled: Any
) -> dict[str, float | None]:
    """The share of the peak, and GFLOPs per crop by hand and by XLA, for a line of the report.

    Args:
      count: of one crop, by hand; None if it could not be counted.
      crops_per_s: speed.
      batch: crops.
      compiled: the compiled function of a batch.
    """
    counted = attempt(lambda: xla_flops(compiled))
    return {
        "share_of_peak": count and share_of_peak(crops_per_s * count),
        "gflop_per_crop": count and round(count / 1e9, 4),
        "xla_gflop_per_crop": counted and round(counted / batch / 1e9, 4),
    }
