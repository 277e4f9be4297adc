"""Primitives that work entry by entry, in ONNX.

Here and in the other modules of rules, a rule takes the graph, an equation of the jaxpr and the
values of its inputs, and gives the value of its output.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.interop.onnx_graph import Graph, Tensor, Value, is_int, onnx_type

Rule = Callable[..., Value]


def refusal(eqn: Any, form: str = "") -> UserError:
    """The error of a primitive, or of a form of it, that no rule translates."""
    name = " ".join(filter(None, (repr(eqn.primitive.name), form)))
    return UserError(f"to ONNX: the primitive {name} is not supported; export to StableHLO instead")


def together(graph: Graph, *values: Value) -> tuple[list[Tensor], Callable[[Tensor], Value]]:
    """The tensors of arrays with their axes in one order, and what makes a value of the result.

    Scalars stay scalars; ONNX repeats as NumPy does, so that nothing has to be repeated before.
    """
    rank = max(len(value.shape) for value in values)
    full = [value for value in values if len(value.shape) == rank]
    axes = next((value.axes for value in full if value.array is None), full[0].axes)
    tensors = [graph.tensor(v, axes if len(v.shape) == rank else ()) for v in values]
    columns = zip(*(value.shape for value in full), strict=True)
    shape = tuple(next((n for n in column if not is_int(n, 1)), 1) for column in columns)
    return tensors, lambda tensor: Value(tensor, shape, axes)


def unary(kind: str) -> Rule:
    """The rule of a primitive that is one node."""

    def rule(graph: Graph, eqn: Any, x: Value) -> Value:
        return Value(graph.op(kind, x.tensor), x.shape, x.axes)

    return rule


def binary(kind: str) -> Rule:
    """The rule of a primitive of two arrays that is one node."""

    def rule(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
        tensors, value_of = together(graph, x, y)
        return value_of(graph.op(kind, *tensors))

    return rule


def logical(kind: str) -> Rule:
    """The rule of a primitive that is a node for booleans, and none for integers."""

    def rule(graph: Graph, eqn: Any, *values: Value) -> Value:
        if eqn.invars[0].aval.dtype != bool:
            raise refusal(eqn, "of integers")
        tensors, value_of = together(graph, *values)
        return value_of(graph.op(kind, *tensors))

    return rule


def identity(graph: Graph, eqn: Any, x: Value) -> Value:
    """What only matters to JAX."""
    return x


def subtract(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """Runtimes fold the addition of a constant into a convolution, but not its subtraction."""
    if y.array is None or not np.issubdtype(y.array.dtype, np.floating):
        return binary("Sub")(graph, eqn, x, y)
    return binary("Add")(graph, eqn, x, Value.constant(-y.array))


def limit(kind: str) -> Rule:
    """The rule of max or min: with a constant it is an activation."""

    def rule(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
        if not np.issubdtype(eqn.invars[0].aval.dtype, np.floating):
            return binary(kind)(graph, eqn, x, y)
        for value, bound in ((x, y.array), (y, x.array)):
            if bound is not None and bound.ndim == 0:
                return _limited(graph, kind, value, bound)
        return binary(kind)(graph, eqn, x, y)

    return rule


def _limited(graph: Graph, kind: str, x: Value, bound: np.ndarray) -> Value:
    if np.isinf(bound) and (bound < 0) == (kind == "Max"):
        return x
    if kind == "Max" and bound == 0:
        tensor = graph.op("Relu", x.tensor)
    else:
        tensor = graph.op("Clip", x.tensor, *((bound,) if kind == "Max" else (None, bound)))
    return Value(tensor, x.shape, x.axes)


def not_equal(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """x != y."""
    tensors, value_of = together(graph, x, y)
    return value_of(graph.op("Not", graph.op("Equal", *tensors)))


def remainder(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """What is left of x / y rounded towards 0; it has the sign of x."""
    tensors, value_of = together(graph, x, y)
    return value_of(graph.op("Mod", *tensors, fmod=1))


def select(graph: Graph, eqn: Any, which: Value, *cases: Value) -> Value:
    """The first case where `which` is false, the second where it is true."""
    if len(cases) != 2 or eqn.invars[0].aval.dtype != bool:
        raise refusal(eqn, "with an integer")
    tensors, value_of = together(graph, which, cases[1], cases[0])
    return value_of(graph.op("Where", *tensors))


def clamp(graph: Graph, eqn: Any, low: Value, x: Value, high: Value) -> Value:
    """x, at least `low` and at most `high`."""
    (low_, x_, high_), value_of = together(graph, low, x, high)
    return value_of(graph.op("Min", graph.op("Max", low_, x_), high_))


def rsqrt(graph: Graph, eqn: Any, x: Value) -> Value:
    """1 / sqrt(x)."""
    return Value(graph.op("Reciprocal", graph.op("Sqrt", x.tensor)), x.shape, x.axes)


def power(graph: Graph, eqn: Any, x: Value) -> Value:
    """x ** y for a y that is known; `square` has none."""
    y = eqn.params.get("y", 2)
    if y == 2:
        return Value(graph.op("Mul", x.tensor, x.tensor), x.shape, x.axes)
    exponent = np.array(y, eqn.invars[0].aval.dtype)
    return Value(graph.op("Pow", x.tensor, exponent), x.shape, x.axes)


def convert(graph: Graph, eqn: Any, x: Value) -> Value:
    """Another type; towards 0 from fractions to integers."""
    new = eqn.params["new_dtype"]
    if new == eqn.invars[0].aval.dtype:
        return x
    return Value(graph.op("Cast", x.tensor, to=onnx_type(new)), x.shape, x.axes)


ELEMENTWISE: dict[str, Rule] = {
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
    "max": limit("Max"),
    "min": limit("Min"),
    "ne": not_equal,
    "rem": remainder,
    "rsqrt": rsqrt,
    "select_n": select,
    "square": power,
    "sub": subtract,
}
