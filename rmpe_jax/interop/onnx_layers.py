"""Primitives that sum or take the maximum over many entries, in ONNX."""

import math
import string
from typing import Any

import numpy as np

from rmpe_jax.interop.onnx_elementwise import Rule, refusal
from rmpe_jax.interop.onnx_graph import Graph, Value, integers, onnx_type
from rmpe_jax.interop.onnx_shapes import without


def convolution(graph: Graph, eqn: Any, x: Value, kernel: Value) -> Value:
    """A convolution with known weights: strided, dilated, grouped or transposed."""
    params = eqn.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if kernel.array is None or params["batch_group_count"] != 1 or min(*params["padding"][0]) < 0:
        raise refusal(eqn, "whose weights are computed, or that cuts")
    tensor = graph.tensor(x, numbers.lhs_spec, eqn.invars[0].aval.shape)
    weights = kernel.array.transpose(numbers.rhs_spec)  # (out, in of a group, *window)
    strides, lows, highs = params["window_strides"], *zip(*params["padding"], strict=True)
    options = {"dilations": params["rhs_dilation"], "group": groups}
    if any(step != 1 for step in params["lhs_dilation"]):
        if any(step != 1 for step in strides):
            raise refusal(eqn, "with steps in its input and in its output")
        weights = _transposed(weights, groups)
        strides, kind = params["lhs_dilation"], "ConvTranspose"
        reach = [d * (n - 1) for d, n in zip(options["dilations"], weights.shape[2:], strict=True)]
        lows, highs = (
            [r - pad for r, pad in zip(reach, pads, strict=True)] for pads in (lows, highs)
        )
    else:
        kind = "Conv"
    pads = [*lows, *highs]
    if min(pads) < 0:
        raise refusal(eqn, f"with the padding {params['padding']}")
    tensor = graph.op(kind, tensor, weights, strides=strides, pads=pads, **options)
    return Value(tensor, eqn.outvars[0].aval.shape, tuple(numbers.out_spec))


def _transposed(weights: np.ndarray, groups: int) -> np.ndarray:
    """(out, in of a group, *window) as ONNX's ConvTranspose has it: mirrored, inputs first."""
    out, per_group, *window = weights.shape
    mirrored = np.flip(weights, tuple(range(2, weights.ndim)))
    grouped = mirrored.reshape(groups, out // groups, per_group, *window).swapaxes(1, 2)
    return grouped.reshape(groups * per_group, out // groups, *window)


def depthwise(graph: Graph, eqn: Any, x: Value, kernel: Value) -> Value:
    """`models.efficientnet.depthwise`, which is a sum of shifted products for XLA's sake."""
    if kernel.array is None:
        raise refusal(eqn, "whose weights are computed")
    shape, result = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    size, _, channels = kernel.array.shape
    strides = [-(-before // after) for before, after in zip(shape[1:3], result[1:3], strict=True)]
    tensor = graph.op(
        "Conv",
        graph.tensor(x, (0, 3, 1, 2), shape),
        kernel.array.transpose(2, 0, 1)[:, None],
        strides=strides,
        pads=[size // 2] * 4,
        group=channels,
    )
    return Value(tensor, result, (0, 3, 1, 2))


def pool(graph: Graph, eqn: Any, x: Value) -> Value:
    """The maximum or sum in windows over rows and columns of NHWC arrays."""
    params = eqn.params
    window, strides = params["window_dimensions"], params["window_strides"]
    batch, *padding, channels = params["padding"]
    ones = (window[0], window[-1], *params["base_dilation"], *params["window_dilation"])
    if len(window) != 4 or set(ones) != {1} or any((*batch, *channels)):
        raise refusal(eqn, "over other axes than rows and columns")
    options = {
        "kernel_shape": window[1:3],
        "strides": strides[1:3],
        "pads": [pads[end] for end in (0, 1) for pads in padding],
    }
    tensor = graph.tensor(x, (0, 3, 1, 2), eqn.invars[0].aval.shape)
    if eqn.primitive.name == "reduce_window_max":
        tensor = graph.op("MaxPool", tensor, **options)
    else:
        tensor = graph.op("AveragePool", tensor, count_include_pad=1, **options)
        tensor = graph.op("Mul", tensor, np.array(math.prod(window), np.float32))
    return Value(tensor, eqn.outvars[0].aval.shape, (0, 3, 1, 2))


def reduce(graph: Graph, eqn: Any, x: Value) -> Value:
    """The sum, maximum or minimum over whole axes."""
    axes, shape = [int(axis) for axis in eqn.params["axes"]], eqn.invars[0].aval.shape
    tensor, places = graph.tensor(x, x.axes, shape), x.places(axes)
    if eqn.primitive.name == "reduce_sum":
        tensor = graph.op("ReduceSum", tensor, integers(*places), keepdims=0)
    else:
        kind = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}[eqn.primitive.name]
        tensor = graph.op(kind, tensor, axes=places, keepdims=0)
    return without(Value(tensor, shape, x.axes), axes, tensor)


def argmax(graph: Graph, eqn: Any, x: Value) -> Value:
    """Where the maximum along an axis is; of equal ones the first."""
    (axis,), shape = eqn.params["axes"], eqn.invars[0].aval.shape
    place = x.axes.index(axis)
    tensor = graph.op("ArgMax", graph.tensor(x, x.axes, shape), axis=place, keepdims=0)
    tensor = graph.op("Cast", tensor, to=onnx_type(eqn.params["index_dtype"]))
    return without(Value(tensor, shape, x.axes), [int(axis)], tensor)


def dot(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """A sum of products over some axes; a matrix product where it is one."""
    contract, batch = eqn.params["dimension_numbers"]
    shapes = [var.aval.shape for var in eqn.invars]
    ranks, result = [len(shape) for shape in shapes], eqn.outvars[0].aval.shape
    axes = tuple(range(len(result)))
    if not batch[0] and tuple(map(tuple, contract)) == ((ranks[0] - 1,), (0,)) and ranks[1] == 2:
        x_, y_ = (graph.tensor(v, range(len(s)), s) for v, s in zip((x, y), shapes, strict=True))
        return Value(graph.op("MatMul", x_, y_), result, axes)
    letters = iter(string.ascii_lowercase)
    names: list[dict[int, str]] = [{}, {}]
    for left, right in (*zip(*batch, strict=True), *zip(*contract, strict=True)):
        names[0][left] = names[1][right] = next(letters)
    out = [names[0][axis] for axis in batch[0]]
    for side, rank in zip(names, ranks, strict=True):
        for axis in range(rank):
            if axis not in side:
                side[axis] = next(letters)
                out.append(side[axis])
    terms = ["".join(n[a] for a in v.axes) for n, v in zip(names, (x, y), strict=True)]
    tensors = [graph.tensor(v, v.axes, s) for v, s in zip((x, y), shapes, strict=True)]
    equation = f"{','.join(terms)}->{''.join(out)}"
    return Value(graph.op("Einsum", *tensors, equation=equation), result, axes)


LAYERS: dict[str, Rule] = {
    "argmax": argmax,
    "conv_general_dilated": convolution,
    "dot_general": dot,
    **dict.fromkeys(("reduce_max", "reduce_min", "reduce_sum"), reduce),
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum"), pool),
}
