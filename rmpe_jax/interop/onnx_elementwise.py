"""Translation of elementwise primitives to ONNX.

Each primitive has a rule. In this and the other modules, a rule takes the graph, an equation of the
jaxpr and the values of its inputs; it adds nodes to the graph and returns the value of the output.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Shaped

from rmpe_jax.errors import UserError
from rmpe_jax.interop.onnx_graph import Graph, Tensor, Value, is_int, onnx_type

Rule = Callable[..., Value]


def unsupported(eqn: Any, variant: str = "") -> UserError:
    """Returns the error for a primitive, or a variant of it, that has no translation."""
    name = " ".join(filter(None, (repr(eqn.primitive.name), variant)))
    return UserError(f"to ONNX: the primitive {name} is not supported; export to StableHLO instead")


def align(graph: Graph, *values: Value) -> tuple[list[Tensor], Callable[[Tensor], Value]]:
    """Brings the axes of several arrays into the same order.

    ONNX broadcasts like NumPy, so scalars stay scalars and axes of size 1 stay as they are.

    Returns:
      The tensors, and a function that converts the tensor of an elementwise result to a value.
    """
    rank = max(len(value.shape) for value in values)
    full = [value for value in values if len(value.shape) == rank]
    axes = next((value.axes for value in full if value.array is None), full[0].axes)
    tensors = [graph.tensor(v, axes if len(v.shape) == rank else ()) for v in values]
    sizes_by_axis = zip(*(value.shape for value in full), strict=True)
    shape = tuple(next((n for n in sizes if not is_int(n, 1)), 1) for sizes in sizes_by_axis)
    return tensors, lambda tensor: Value(tensor, shape, axes)


def unary(op_type: str) -> Rule:
    """Returns the rule for a primitive with one input that becomes one node."""

    def rule(graph: Graph, eqn: Any, x: Value) -> Value:
        return Value(graph.op(op_type, x.tensor), x.shape, x.axes)

    return rule


def binary(op_type: str) -> Rule:
    """Returns the rule for a primitive with two inputs that becomes one node."""

    def rule(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
        tensors, make_value = align(graph, x, y)
        return make_value(graph.op(op_type, *tensors))

    return rule


def logical(op_type: str) -> Rule:
    """Returns the rule for a primitive that becomes one node; only booleans are supported."""

    def rule(graph: Graph, eqn: Any, *values: Value) -> Value:
        if eqn.invars[0].aval.dtype != bool:
            raise unsupported(eqn, "of integers")
        tensors, make_value = align(graph, *values)
        return make_value(graph.op(op_type, *tensors))

    return rule


def identity(graph: Graph, eqn: Any, x: Value) -> Value:
    """The rule for primitives that have no effect on values."""
    return x


def subtract(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """x - y; a constant y is negated and added, which runtimes fold into a convolution."""
    if y.array is None or not np.issubdtype(y.array.dtype, np.floating):
        return binary("Sub")(graph, eqn, x, y)
    return binary("Add")(graph, eqn, x, Value.constant(np.asarray(-y.array)))


def max_or_min(op_type: str) -> Rule:
    """Returns the rule for max or min; with a scalar constant it becomes Relu or Clip."""

    def rule(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
        if not np.issubdtype(eqn.invars[0].aval.dtype, np.floating):
            return binary(op_type)(graph, eqn, x, y)
        for value, bound in ((x, y.array), (y, x.array)):
            if bound is not None and bound.ndim == 0:
                return _clip(graph, op_type, value, bound)
        return binary(op_type)(graph, eqn, x, y)

    return rule


def _clip(graph: Graph, op_type: str, x: Value, bound: Shaped[np.ndarray, ""]) -> Value:
    if np.isinf(bound) and (bound < 0) == (op_type == "Max"):
        return x
    if op_type == "Max" and bound == 0:
        tensor = graph.op("Relu", x.tensor)
    else:
        tensor = graph.op("Clip", x.tensor, *((bound,) if op_type == "Max" else (None, bound)))
    return Value(tensor, x.shape, x.axes)


def erfc(graph: Graph, eqn: Any, x: Value) -> Value:
    """1 - erf(x), of which the exact GELU consists."""
    one = np.ones((), eqn.outvars[0].aval.dtype)
    return Value(graph.op("Sub", one, graph.op("Erf", x.tensor)), x.shape, x.axes)


def not_equal(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """x != y."""
    tensors, make_value = align(graph, x, y)
    return make_value(graph.op("Not", graph.op("Equal", *tensors)))


def remainder(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """The remainder of x / y rounded towards 0; it has the sign of x."""
    tensors, make_value = align(graph, x, y)
    return make_value(graph.op("Mod", *tensors, fmod=1))


def select(graph: Graph, eqn: Any, which: Value, *cases: Value) -> Value:
    """The first case where `which` is false, the second where it is true."""
    if len(cases) != 2 or eqn.invars[0].aval.dtype != bool:
        raise unsupported(eqn, "with an integer")
    tensors, make_value = align(graph, which, cases[1], cases[0])
    return make_value(graph.op("Where", *tensors))


def clamp(graph: Graph, eqn: Any, low: Value, x: Value, high: Value) -> Value:
    """min(max(x, low), high)."""
    (low_, x_, high_), make_value = align(graph, low, x, high)
    return make_value(graph.op("Min", graph.op("Max", low_, x_), high_))


def rsqrt(graph: Graph, eqn: Any, x: Value) -> Value:
    """1 / sqrt(x)."""
    return Value(graph.op("Reciprocal", graph.op("Sqrt", x.tensor)), x.shape, x.axes)


def power(graph: Graph, eqn: Any, x: Value) -> Value:
    """x ** y for the constant y of `integer_pow`, or for y = 2 of `square`."""
    y = eqn.params.get("y", 2)
    if y == 2:
        return Value(graph.op("Mul", x.tensor, x.tensor), x.shape, x.axes)
    exponent = np.array(y, eqn.invars[0].aval.dtype)
    return Value(graph.op("Pow", x.tensor, exponent), x.shape, x.axes)


def convert(graph: Graph, eqn: Any, x: Value) -> Value:
    """Conversion to another dtype; floats are rounded towards 0 to integers."""
    new = eqn.params["new_dtype"]
    if new == eqn.invars[0].aval.dtype:
        return x
    return Value(graph.op("Cast", x.tensor, to=onnx_type(new)), x.shape, x.axes)


ELEMENTWISE: dict[str, Rule] = {
    "erfc": erfc,
    **{name: unary(name.capitalize()) for name in ("abs", "ceil", "erf", "exp", "floor", "log")},
    **{name: unary(name.capitalize()) for name in ("neg", "sign", "sqrt", "tanh")},
    **{name: binary(name.capitalize()) for name in ("add", "div", "mul", "pow")},
    **{name: logical(name.capitalize()) for name in ("and", "not", "or")},
    **{name: identity for name in ("copy", "optimization_barrier", "stop_gradient")},
    "clamp": clamp,
    "convert_element_type": convert,
    "eq": binary("Equal"),
    "ge": binary("GreaterOrEqual"),
    "gt": binary("Greater"),
    "integer_pow": power,
    "le": binary("LessOrEqual"),
    "logistic": unary("Sigmoid"),
    "lt": binary("Less"),
    "max": max_or_min("Max"),
    "min": max_or_min("Min"),
    "ne": not_equal,
    "rem": remainder,
    "rsqrt": rsqrt,
    "select_n": select,
    "square": power,
    "sub": subtract,
}
