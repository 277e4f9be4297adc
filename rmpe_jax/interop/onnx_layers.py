"""Translation of convolutions, products, pooling and reductions to ONNX."""

import math
import string
from typing import Any

import numpy as np
from jaxtyping import Float

from rmpe_jax.interop.onnx_elementwise import Rule, unsupported
from rmpe_jax.interop.onnx_graph import Graph, Value, int64s, onnx_type
from rmpe_jax.interop.onnx_shapes import remove_axes


def convolution(graph: Graph, eqn: Any, x: Value, kernel: Value) -> Value:
    """A convolution with constant weights: strided, dilated, grouped or transposed."""
    params = eqn.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if kernel.array is None or params["batch_group_count"] != 1 or min(*params["padding"][0]) < 0:
        raise unsupported(eqn, "with computed weights or negative padding")
    tensor = graph.tensor(x, numbers.lhs_spec, eqn.invars[0].aval.shape)
    weights = kernel.array.transpose(numbers.rhs_spec)  # (out, in per group, *window)
    strides, lows, highs = params["window_strides"], *zip(*params["padding"], strict=True)
    options = {"dilations": params["rhs_dilation"], "group": groups}
    if any(step != 1 for step in params["lhs_dilation"]):
        if any(step != 1 for step in strides):
            raise unsupported(eqn, "with strides in its input and in its output")
        weights = _conv_transpose_weights(weights, groups)
        strides, op_type = params["lhs_dilation"], "ConvTranspose"
        spans = [d * (n - 1) for d, n in zip(options["dilations"], weights.shape[2:], strict=True)]
        lows, highs = (
            [span - pad for span, pad in zip(spans, pads, strict=True)] for pads in (lows, highs)
        )
    else:
        op_type = "Conv"
    pads = [*lows, *highs]
    if min(pads) < 0:
        raise unsupported(eqn, f"with the padding {params['padding']}")
    tensor = graph.op(op_type, tensor, weights, strides=strides, pads=pads, **options)
    return Value(tensor, eqn.outvars[0].aval.shape, tuple(numbers.out_spec))


def _conv_transpose_weights(
    weights: Float[np.ndarray, "out in_per_group *window"], groups: int
) -> Float[np.ndarray, "in out_per_group *window"]:
    """Converts to the layout of ONNX's ConvTranspose: mirrored, input channels first."""
    out, per_group, *window = weights.shape
    mirrored = np.flip(weights, tuple(range(2, weights.ndim)))
    grouped = mirrored.reshape(groups, out // groups, per_group, *window).swapaxes(1, 2)
    return grouped.reshape(groups * per_group, out // groups, *window)


def depthwise(graph: Graph, eqn: Any, x: Value, kernel: Value) -> Value:
    """`models.inverted_residual.depthwise` as one convolution; in XLA it is a sum of products."""
    if kernel.array is None:
        raise unsupported(eqn, "with computed weights")
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
    """The maximum or sum over windows of rows and columns of NHWC arrays."""
    params = eqn.params
    window, strides = params["window_dimensions"], params["window_strides"]
    batch, *padding, channels = params["padding"]
    ones = (window[0], window[-1], *params["base_dilation"], *params["window_dilation"])
    if len(window) != 4 or set(ones) != {1} or any((*batch, *channels)):
        raise unsupported(eqn, "over axes other than rows and columns")
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
    """The sum, maximum or minimum over all entries along some axes."""
    axes, shape = [int(axis) for axis in eqn.params["axes"]], eqn.invars[0].aval.shape
    tensor, tensor_axes = graph.tensor(x, x.axes, shape), x.tensor_axes(axes)
    if eqn.primitive.name == "reduce_sum":
        tensor = graph.op("ReduceSum", tensor, int64s(*tensor_axes), keepdims=0)
    else:
        op_type = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}[eqn.primitive.name]
        tensor = graph.op(op_type, tensor, axes=tensor_axes, keepdims=0)
    return remove_axes(Value(tensor, shape, x.axes), axes, tensor)


def argmax(graph: Graph, eqn: Any, x: Value) -> Value:
    """The index of the first maximum along an axis."""
    (axis,), shape = eqn.params["axes"], eqn.invars[0].aval.shape
    tensor_axis = x.axes.index(axis)
    tensor = graph.op("ArgMax", graph.tensor(x, x.axes, shape), axis=tensor_axis, keepdims=0)
    tensor = graph.op("Cast", tensor, to=onnx_type(eqn.params["index_dtype"]))
    return remove_axes(Value(tensor, shape, x.axes), [int(axis)], tensor)


def dot(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """A product with contracted and batch axes; as MatMul where possible, else as Einsum."""
    contract, batch = eqn.params["dimension_numbers"]
    shapes = [var.aval.shape for var in eqn.invars]
    ranks, result = [len(shape) for shape in shapes], eqn.outvars[0].aval.shape
    axes = tuple(range(len(result)))
    if not batch[0] and tuple(map(tuple, contract)) == ((ranks[0] - 1,), (0,)) and ranks[1] == 2:
        x_, y_ = (graph.tensor(v, range(len(s)), s) for v, s in zip((x, y), shapes, strict=True))
        return Value(graph.op("MatMul", x_, y_), result, axes)
    letters = iter(string.ascii_lowercase)
    labels: list[dict[int, str]] = [{}, {}]  # by axis, for x and for y
    for left, right in (*zip(*batch, strict=True), *zip(*contract, strict=True)):
        labels[0][left] = labels[1][right] = next(letters)
    out = [labels[0][axis] for axis in batch[0]]
    for operand_labels, rank in zip(labels, ranks, strict=True):
        for axis in range(rank):
            if axis not in operand_labels:
                operand_labels[axis] = next(letters)
                out.append(operand_labels[axis])
    terms = ["".join(label[a] for a in v.axes) for label, v in zip(labels, (x, y), strict=True)]
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
