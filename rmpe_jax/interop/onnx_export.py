"""Export of JAX functions to ONNX: traced with a symbolic batch, translated by primitive.

Values that do not depend on the input are computed during the export and stored as weights.
Primitives without a rule raise an error that names them. Exported models pass `onnx.checker`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core

from rmpe_jax.interop.onnx_elementwise import ELEMENTWISE, unsupported
from rmpe_jax.interop.onnx_graph import Graph, Value, is_int
from rmpe_jax.interop.onnx_layers import LAYERS, depthwise
from rmpe_jax.interop.onnx_shapes import LAZY_SHAPES, SHAPES

RULES = ELEMENTWISE | SHAPES | LAYERS
# Functions of this project with their own rule, by their names in the jaxpr.
FUNCTION_RULES = {"depthwise": depthwise}
CHANNELS_FIRST = (0, 3, 1, 2)
# Primitives that call a function, and the parameter that holds the function's jaxpr.
_CALL_PARAMS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
}
# The most frequent constant expressions. JAX would compile each of them for each shape.
_NUMPY_FUNCTIONS = {
    "add": np.add,
    "mul": np.multiply,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sub": np.subtract,
}


def to_onnx(
    function: Callable[[jax.Array], Any],
    input_shape: tuple[int, ...],
    dtype: Any = np.float32,
    *,
    input_name: str,
    output_names: Sequence[str],
    channels_first: bool = False,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """Exports a function of one batched array.

    Args:
      function: maps an array (b, *input_shape) to an array or a tuple of arrays.
      input_shape: shape of the input without the batch. The model accepts any batch size.
      dtype: dtype of the input.
      input_name: name of the input in the model.
      output_names: names of the outputs, one per array.
      channels_first: inputs and outputs with four axes are (b, c, h, w) instead of (b, h, w, c).
      metadata: key-value pairs to store in the model.

    Returns:
      The checked model.

    Raises:
      UserError: the function uses a primitive, or a variant of one, that has no translation.
    """
    (batch,) = jax.export.symbolic_shape("b")
    spec = jax.ShapeDtypeStruct((batch, *input_shape), dtype)
    closed: Any = jax.jit(function).trace(spec).jaxpr

    def layout(shape: Sequence) -> tuple[int, ...]:
        return CHANNELS_FIRST if channels_first and len(shape) == 4 else tuple(range(len(shape)))

    graph = Graph(input_name, spec.shape, np.dtype(dtype), layout(spec.shape))
    constants = [Value.constant(np.asarray(constant)) for constant in closed.consts]
    results = _translate_jaxpr(graph, closed.jaxpr, constants, [graph.input])
    for name, value, var in zip(output_names, results, closed.jaxpr.outvars, strict=True):
        graph.output(name, value, var.aval.shape, var.aval.dtype, layout(var.aval.shape))
    return graph.model("rmpe_jax", metadata or {})


def _translate_jaxpr(
    graph: Graph, jaxpr: Any, constants: Sequence[Value], arguments: Sequence[Value]
) -> list[Value]:
    """Translates all equations; returns the values of the outputs."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, core.Literal):
            aval: Any = atom.aval
            return Value.constant(np.asarray(atom.val, aval.dtype))
        return values[atom]

    for eqn in jaxpr.eqns:
        outputs = _translate_equation(graph, eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _translate_equation(graph: Graph, eqn: Any, inputs: list[Value]) -> list[Value]:
    if eqn.primitive.name in _CALL_PARAMS:
        called = eqn.params[_CALL_PARAMS[eqn.primitive.name]]
        inner = getattr(called, "jaxpr", called)
        rule = FUNCTION_RULES.get(inner.debug_info.func_name)
        if rule:
            return [rule(graph, eqn, *inputs)]
        constants = [Value.constant(np.asarray(c)) for c in getattr(called, "consts", ())]
        return _translate_jaxpr(graph, inner, constants, inputs)
    if eqn.primitive.name == "platform_index":  # `lax.platform_dependent`: use its default
        return [Value.constant(np.asarray(eqn.params["platforms"].index(None)))]
    if eqn.primitive.name == "cond" and inputs[0].array is not None:
        branch = eqn.params["branches"][int(inputs[0].array)]
        constants = [Value.constant(np.asarray(c)) for c in branch.consts]
        return _translate_jaxpr(graph, branch.jaxpr, constants, inputs[1:])
    folded = _fold_constants(eqn, inputs)
    if folded is not None:
        return folded
    if eqn.primitive.name not in RULES:
        raise unsupported(eqn)
    return [RULES[eqn.primitive.name](graph, eqn, *inputs)]


def _fold_constants(eqn: Any, inputs: list[Value]) -> list[Value] | None:
    """Computes the outputs of an equation if all inputs are constants, else returns None."""
    name = eqn.primitive.name
    arrays = [value.array for value in inputs if value.array is not None]
    if len(arrays) != len(inputs) or name in LAZY_SHAPES or name not in RULES:
        return None
    if name in _NUMPY_FUNCTIONS:
        return [Value.constant(np.asarray(_NUMPY_FUNCTIONS[name](*arrays)))]
    if name in ELEMENTWISE:
        arrays = np.broadcast_arrays(*arrays)  # with each other, but not along the batch
    elif all(is_int(size) for var in eqn.outvars for size in var.aval.shape):
        arrays = [np.broadcast_to(a, v.aval.shape) for a, v in zip(arrays, eqn.invars, strict=True)]
    else:
        return None
    outputs = eqn.primitive.bind(*arrays, **eqn.params)
    outputs = outputs if eqn.primitive.multiple_results else [outputs]
    return [Value.constant(np.asarray(output)) for output in outputs]
