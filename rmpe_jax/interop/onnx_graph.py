"""A builder for ONNX graphs, and the arrays in them.

Networks here are NHWC, but ONNX convolves NCHW. So a `Value` keeps the axes of the JAX array, and
separately the order of these axes in the ONNX tensor. A transpose only changes that order. Nodes
that move data are only added where an operation requires a certain order. In a pose network this
happens only at its ends and in its pixel shuffles. Likewise, broadcast arrays are only expanded
where an operation requires it.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from jax.typing import DTypeLike
from jaxtyping import Int64
from onnx import helper, numpy_helper

from rmpe_jax.errors import UserError

# Versions of ONNX 1.12 (2022): they have Einsum, GatherND and Where, and most runtimes read them.
OPSET = 17
IR_VERSION = 8
BATCH = "batch"  # name of the symbolic dimension in the model

Dim = Any  # an int, or a symbolic dimension of jax.export
Tensor = str | np.ndarray  # the name of a tensor, or a constant


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of the traced function.

    Attributes:
      tensor: the name of a tensor in the graph, or a constant.
      shape: sizes of the array's axes; 1 where a broadcast array is not expanded yet.
      axes: for each axis of the tensor, the corresponding axis of the array. For constants this is
        0, 1, 2, ...
    """

    tensor: Tensor
    shape: tuple[Dim, ...]
    axes: tuple[int, ...]

    @classmethod
    def constant(cls, array: np.ndarray) -> "Value":
        """Creates the value of an array that is known during the export."""
        return cls(array, array.shape, tuple(range(array.ndim)))

    @property
    def array(self) -> np.ndarray | None:
        """The constant, or None."""
        return None if isinstance(self.tensor, str) else self.tensor

    def tensor_axes(self, axes: Iterable[int]) -> list[int]:
        """Returns the tensor's axes for these axes of the array, in ascending order."""
        return sorted(self.axes.index(axis) for axis in axes)


class Graph:
    """Nodes and weights of an ONNX graph with one input; axis 0 of the input is the batch."""

    def __init__(self, name: str, shape: Sequence[Dim], dtype: np.dtype, axes: Sequence[int]):
        self.input = Value(name, tuple(shape), tuple(axes))
        self._input_dtype = dtype
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, np.ndarray] = {}
        self._outputs: list[onnx.ValueInfoProto] = []

    def op(self, op_type: str, *inputs: Tensor | None, **attributes: Any) -> str:
        """Adds a node and returns the name of its output.

        Arrays among the inputs become weights; None omits an optional input.
        """
        names = [self._name(tensor) for tensor in inputs]
        output = f"{op_type.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, names, [output], output, **attributes))
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
        """Returns a tensor of `value` with its axes in the given order.

        Args:
          value: the array.
          axes: axes of the array, in the order that the tensor must have.
          shape: sizes of the array's axes, to expand a broadcast array. By default it is not
            expanded.

        Raises:
          UserError: the array would be expanded along a symbolic axis other than the batch.
        """
        order = [value.axes.index(axis) for axis in axes]
        tensor = value.tensor
        if not isinstance(tensor, str):
            tensor = tensor.transpose(order)
        elif order != list(range(len(order))):
            tensor = self.op("Transpose", tensor, perm=order)
        if shape is None:
            return tensor
        expanded = [is_int(value.shape[a], 1) and not is_int(shape[a], 1) for a in axes]
        if not any(expanded):
            return tensor
        sizes = [shape[a] if e else 1 for a, e in zip(axes, expanded, strict=True)]
        return self._expand(tensor, sizes)

    def _expand(self, tensor: Tensor, shape: list[Dim]) -> Tensor:
        if all(is_int(n) for n in shape):
            if not isinstance(tensor, str):
                return np.broadcast_to(tensor, np.broadcast_shapes(tensor.shape, tuple(shape)))
            return self.op("Expand", tensor, int64s(*shape))
        sizes = [int64s(n) if is_int(n) else self._batch_size(n) for n in shape]
        return self.op("Expand", tensor, self.op("Concat", *sizes, axis=0))

    def _batch_size(self, dim: Dim) -> str:
        if dim != self.input.shape[0]:
            raise UserError(
                f"to ONNX: the symbolic dimension {dim} is not supported; only the batch is"
            )
        batch_axis = int64s(self.input.axes.index(0))
        return self.op("Gather", self.op("Shape", self.input.tensor), batch_axis)

    def output(
        self,
        name: str,
        value: Value,
        shape: Sequence[Dim],
        dtype: np.dtype,
        axes: Sequence[int],
    ) -> None:
        """Makes `value` an output of the graph, with its axes in the given order."""
        tensor = self._name(self.tensor(value, axes, shape))
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name))
        self._outputs.append(self._info(name, shape, dtype, axes))

    def _info(
        self, name: str, shape: Sequence[Dim], dtype: np.dtype, axes: Sequence[int]
    ) -> onnx.ValueInfoProto:
        dims = [shape[axis] if is_int(shape[axis]) else BATCH for axis in axes]
        return helper.make_tensor_value_info(name, onnx_type(dtype), dims)

    def model(self, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """Returns the checked model, without nodes and weights that no output depends on."""
        nodes, required = [], {info.name for info in self._outputs}
        for node in reversed(self._nodes):
            if node.output[0] in required:
                nodes.append(node)
                required.update(node.input)
        weights = [
            numpy_helper.from_array(array, key)
            for key, array in self._weights.items()
            if key in required
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
    """Whether a dimension is not symbolic, and equal to `value` if that is given."""
    return isinstance(dim, int | np.integer) and (value is None or dim == value)


def int64s(*values: Any) -> Int64[np.ndarray, " n"]:
    """Returns a vector of ONNX's type for sizes, axes and indices."""
    return np.array(values, np.int64)


def onnx_type(dtype: DTypeLike) -> int:
    """Returns ONNX's number for a NumPy dtype."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
