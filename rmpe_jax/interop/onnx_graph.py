"""An ONNX graph under construction, and the arrays in it.

JAX says what the axes of an array are; where they lie in memory is free. Networks here are NHWC,
ONNX convolves NCHW: so a `Value` knows in which order its tensor holds the axes. Transposing one
then costs nothing until an operation insists on an order, which in a pose network happens at its
ends and in its pixel shuffles alone. Likewise, an array that repeats along an axis is not repeated
before it must be.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rmpe_jax.errors import UserError

# Of ONNX 1.12 (2022): young enough for Einsum, GatherND and Where, old enough for most runtimes.
OPSET = 17
IR_VERSION = 8
BATCH = "batch"  # name of the dimension that is left open

Dim = Any  # an int, or a symbolic dimension of jax.export
Tensor = str | np.ndarray  # the name of a tensor, or a constant


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of the traced function.

    Attributes:
      tensor: the name of a tensor in the graph, or a constant.
      shape: by axis; 1 where the array may still have to be repeated.
      axes: the axis at each place of the tensor; those of constants are in order.
    """

    tensor: Tensor
    shape: tuple[Dim, ...]
    axes: tuple[int, ...]

    @classmethod
    def constant(cls, array: np.ndarray) -> "Value":
        """An array that is known while exporting."""
        return cls(array, array.shape, tuple(range(array.ndim)))

    @property
    def array(self) -> np.ndarray | None:
        """The constant, or None."""
        return None if isinstance(self.tensor, str) else self.tensor

    def places(self, axes: Iterable[int]) -> list[int]:
        """Where in the tensor these axes are, ascending."""
        return sorted(self.axes.index(axis) for axis in axes)


class Graph:
    """Nodes and weights of an ONNX graph with one input, whose axis 0 is the batch."""

    def __init__(self, name: str, shape: Sequence[Dim], dtype: np.dtype, axes: Sequence[int]):
        self.input = Value(name, tuple(shape), tuple(axes))
        self._input_dtype = dtype
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, np.ndarray] = {}
        self._outputs: list[onnx.ValueInfoProto] = []

    def op(self, kind: str, *inputs: Tensor | None, **attributes: Any) -> str:
        """Adds a node. Arrays among its inputs become weights, None is an input left out."""
        names = [self._name(tensor) for tensor in inputs]
        output = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [output], output, **attributes))
        return output

    def _name(self, tensor: Tensor | None) -> str:
        if tensor is None or isinstance(tensor, str):
            return tensor or ""
        name = f"constant_{len(self._weights)}"
        self._weights[name] = np.ascontiguousarray(tensor)
        return name

    def tensor(
        self, value: Value, axes: Sequence[int], shape: Sequence[Dim] | None = None
    ) -> Tensor:
        """The tensor of `value` with its axes in this order, repeated to `shape` if that is given.

        Raises:
          UserError: it would be repeated along a symbolic axis that is not the batch.
        """
        order = [value.axes.index(axis) for axis in axes]
        tensor = value.tensor
        if not isinstance(tensor, str):
            tensor = tensor.transpose(order)
        elif order != list(range(len(order))):
            tensor = self.op("Transpose", tensor, perm=order)
        if shape is None:
            return tensor
        repeated = [is_int(value.shape[a], 1) and not is_int(shape[a], 1) for a in axes]
        if not any(repeated):
            return tensor
        sizes = [shape[a] if r else 1 for a, r in zip(axes, repeated, strict=True)]
        return self._expand(tensor, sizes)

    def _expand(self, tensor: Tensor, shape: list[Dim]) -> Tensor:
        if all(is_int(n) for n in shape):
            if not isinstance(tensor, str):
                return np.broadcast_to(tensor, np.broadcast_shapes(tensor.shape, tuple(shape)))
            return self.op("Expand", tensor, integers(*shape))
        sizes = [integers(n) if is_int(n) else self._batch_of(n) for n in shape]
        return self.op("Expand", tensor, self.op("Concat", *sizes, axis=0))

    def _batch_of(self, dim: Dim) -> str:
        if dim != self.input.shape[0]:
            raise UserError(f"to ONNX: a dimension of {dim} is not supported; only the batch is")
        place = integers(self.input.axes.index(0))
        return self.op("Gather", self.op("Shape", self.input.tensor), place)

    def output(self, name: str, value: Value, shape: Sequence[Dim], dtype: np.dtype, axes) -> None:
        """Makes `value` an output, with its axes in this order."""
        tensor = self._name(self.tensor(value, axes, shape))
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name))
        self._outputs.append(self._info(name, shape, dtype, axes))

    def _info(self, name: str, shape: Sequence[Dim], dtype: np.dtype, axes: Sequence[int]):
        dims = [shape[axis] if is_int(shape[axis]) else BATCH for axis in axes]
        return helper.make_tensor_value_info(name, onnx_type(dtype), dims)

    def model(self, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model, without what no output needs; checked by `onnx.checker`."""
        nodes, needed = [], {info.name for info in self._outputs}
        for node in reversed(self._nodes):
            if node.output[0] in needed:
                nodes.append(node)
                needed.update(node.input)
        weights = [
            numpy_helper.from_array(array, key)
            for key, array in self._weights.items()
            if key in needed
        ]
        source = self.input
        inputs = [self._info(str(source.tensor), source.shape, self._input_dtype, source.axes)]
        graph = helper.make_graph(nodes[::-1], name, inputs, self._outputs, weights)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="rmpe_jax"
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model


def is_int(dim: Dim, value: int | None = None) -> bool:
    """Is a dimension fixed, and this `value` if one is given?"""
    return isinstance(dim, int | np.integer) and (value is None or dim == value)


def integers(*values: int) -> np.ndarray:
    """A vector of ONNX's type for sizes and places."""
    return np.array(values, np.int64)


def onnx_type(dtype: np.dtype) -> int:
    """ONNX's number of a NumPy type."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
