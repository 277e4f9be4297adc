"""Translation of primitives that change shapes or move entries to ONNX."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from rmpe_jax.interop.onnx_elementwise import Rule, unsupported
from rmpe_jax.interop.onnx_graph import Dim, Graph, Tensor, Value, int64s, is_int, onnx_type


def broadcast(graph: Graph, eqn: Any, x: Value, *sizes: Value) -> Value:
    """Inserts axes of size 1; they are only expanded where a later operation requires it."""
    kept = [int(axis) for axis in eqn.params["broadcast_dimensions"]]
    return insert_axes(graph, x, kept, len(eqn.params["shape"]))


def insert_axes(graph: Graph, x: Value, kept: Sequence[int], rank: int) -> Value:
    """Makes axis i of `x` axis `kept[i]` of `rank` axes; the other axes have size 1."""
    shape: list[Dim] = [1] * rank
    for axis, size in zip(kept, x.shape, strict=True):
        shape[axis] = size
    if x.array is not None:
        return Value.constant(x.array.reshape(shape))
    new = [axis for axis in range(rank) if axis not in kept]
    axes = [kept[axis] for axis in x.axes]
    for axis in new:  # directly after the previous axis, so a reshape can merge the two in place
        axes.insert(axes.index(axis - 1) + 1 if axis else 0, axis)
    tensor_axes = int64s(*sorted(axes.index(axis) for axis in new))
    tensor = graph.op("Unsqueeze", x.tensor, tensor_axes) if new else x.tensor
    return Value(tensor, tuple(shape), tuple(axes))


def remove_axes(x: Value, axes: Sequence[int], tensor: Tensor) -> Value:
    """Returns the value of `tensor`, which has the axes of `x` except `axes`."""
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    new_axes = tuple(kept.index(axis) for axis in x.axes if axis in kept)
    return Value(tensor, tuple(x.shape[axis] for axis in kept), new_axes)


def squeeze(graph: Graph, eqn: Any, x: Value) -> Value:
    """Removes axes of size 1."""
    return squeeze_axes(graph, x, eqn.params["dimensions"])


def squeeze_axes(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
    """Removes these axes, which must have size 1."""
    if x.array is not None:
        return Value.constant(x.array.squeeze(tuple(axes)))
    tensor = graph.op("Squeeze", x.tensor, int64s(*x.tensor_axes(axes))) if axes else x.tensor
    return remove_axes(x, axes, tensor)


def transpose(graph: Graph, eqn: Any, x: Value) -> Value:
    """Renumbers the axes; no data is moved."""
    order = [int(axis) for axis in eqn.params["permutation"]]
    if x.array is not None:
        return Value.constant(x.array.transpose(order))
    axes = tuple(order.index(axis) for axis in x.axes)
    return Value(x.tensor, tuple(x.shape[axis] for axis in order), axes)


def reshape(graph: Graph, eqn: Any, x: Value, *sizes: Value) -> Value:
    """Splits and merges axes; a transpose is only added if merged axes are not adjacent."""
    old, new = tuple(eqn.invars[0].aval.shape), tuple(eqn.params["new_sizes"])
    if x.array is not None and all(is_int(n) for n in new):
        return Value.constant(np.broadcast_to(x.array, old).reshape(new))
    groups = _axis_groups(old, new)
    group_of = {axis: group for group in groups for axis in group[0]}
    order = []
    for group in [group_of[axis] for axis in x.axes] + [group for group in groups if not group[0]]:
        if group not in order:
            order.append(group)
    tensor = graph.tensor(x, [axis for group in order for axis in group[0]], old)
    axes = tuple(axis for group in order for axis in group[1])
    if sum(not is_int(new[axis]) for axis in axes) > 1:
        raise unsupported(eqn, f"to {new}")
    shape = int64s(*(new[axis] if is_int(new[axis]) else -1 for axis in axes))
    return Value(graph.op("Reshape", tensor, shape), new, axes)


def _axis_groups(old: Sequence[Dim], new: Sequence[Dim]) -> list[tuple[range, range]]:
    """Splits a reshape into the smallest groups (old axes, new axes) of equal total size."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        before, after = min(i + 1, len(old)), min(j + 1, len(new))
        while (a := math.prod(old[i:before])) != (b := math.prod(new[j:after])):
            if after == len(new) or (before < len(old) and a < b):
                before += 1
            else:
                after += 1
        groups.append((range(i, before), range(j, after)))
        i, j = before, after
    return groups


def iota(graph: Graph, eqn: Any, *sizes: Value) -> Value:
    """0, 1, 2, ... along one axis, constant along the others."""
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    if not is_int(shape[axis]):
        raise unsupported(eqn, "along the batch")
    new_shape = [n if other == axis else 1 for other, n in enumerate(shape)]
    return Value.constant(np.arange(shape[axis], dtype=eqn.params["dtype"]).reshape(new_shape))


def concatenate(graph: Graph, eqn: Any, *values: Value) -> Value:
    """Concatenation along an existing axis."""
    shapes = [var.aval.shape for var in eqn.invars]
    return _concatenate(graph, values, shapes, eqn.params["dimension"], eqn.outvars[0].aval.shape)


def stack(graph: Graph, eqn: Any, *values: Value) -> Value:
    """Concatenation along a new axis."""
    shape = eqn.outvars[0].aval.shape
    axis = eqn.params["axis"] % len(shape)
    kept = [other for other in range(len(shape)) if other != axis]
    slices = [insert_axes(graph, value, kept, len(shape)) for value in values]
    slice_shape = tuple(1 if other == axis else n for other, n in enumerate(shape))
    return _concatenate(graph, slices, [slice_shape] * len(slices), axis, shape)


def _concatenate(
    graph: Graph, values: Sequence[Value], shapes: Sequence, axis: int, shape: tuple[Dim, ...]
) -> Value:
    axes = next((value.axes for value in values if value.array is None), values[0].axes)
    tensors = [graph.tensor(v, axes, s) for v, s in zip(values, shapes, strict=True)]
    return Value(graph.op("Concat", *tensors, axis=axes.index(axis)), shape, axes)


def slice_(graph: Graph, eqn: Any, x: Value) -> Value:
    """A strided slice."""
    old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    cut = [axis for axis in range(len(old)) if old[axis] != new[axis]]
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(old)
    if not all(is_int(limits[axis]) for axis in cut):
        raise unsupported(eqn, "of the batch")
    if x.array is not None and all(is_int(n) for n in old):
        slices = tuple(map(slice, starts, limits, strides))
        return Value.constant(np.broadcast_to(x.array, old)[slices])
    tensor = graph.tensor(x, x.axes, old)
    if cut:
        cut_starts, cut_limits, steps = (
            int64s(*(values[axis] for axis in cut)) for values in (starts, limits, strides)
        )
        tensor_axes = int64s(*(x.axes.index(axis) for axis in cut))
        tensor = graph.op("Slice", tensor, cut_starts, cut_limits, tensor_axes, steps)
    return Value(tensor, new, x.axes)


def pad(graph: Graph, eqn: Any, x: Value, padding_value: Value) -> Value:
    """Padding with a constant around an array."""
    low, high, inner = zip(*eqn.params["padding_config"], strict=True)
    if min(low + high) < 0 or max(inner) > 0 or padding_value.array is None:
        raise unsupported(eqn, "with negative, interior or computed padding")
    tensor = graph.tensor(x, x.axes, eqn.invars[0].aval.shape)
    pads = int64s(*(low[axis] for axis in x.axes), *(high[axis] for axis in x.axes))
    tensor = graph.op("Pad", tensor, pads, padding_value.array)
    return Value(tensor, eqn.outvars[0].aval.shape, x.axes)


def gather(graph: Graph, eqn: Any, x: Value, indices: Value) -> Value:
    """Gathers entries or full slices along some axes; indices are clipped to the array."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    old, shape = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
    batch, indexed = numbers.operand_batching_dims, [int(a) for a in numbers.start_index_map]
    if "FILL" in str(eqn.params["mode"]):
        raise unsupported(eqn, "with a fill value")
    if indices.array is not None and len(shape) == 1:
        return _constant_slice(graph, eqn, x, indexed, indices.array)
    sliced = [axis for axis in range(len(old)) if axis not in (*batch, *indexed)]
    collapsed = sorted(indexed) == sorted(map(int, numbers.collapsed_slice_dims))
    if not collapsed or any(sizes[axis] != old[axis] for axis in sliced):
        raise unsupported(eqn, "of partial slices")
    index_batch = numbers.start_indices_batching_dims
    order = [*index_batch, *(a for a in range(len(shape) - 1) if a not in index_batch)]
    positions = graph.tensor(indices, [*order, len(shape) - 1], shape)
    if isinstance(positions, str):
        positions = graph.op("Cast", positions, to=onnx_type(np.int64))
    else:
        positions = positions.astype(np.int64)
    last = int64s(*(old[axis] - 1 for axis in indexed))
    positions = graph.op("Min", graph.op("Max", positions, int64s(0)), last)
    data = graph.tensor(x, [*batch, *indexed, *sliced], old)
    tensor = graph.op("GatherND", data, positions, batch_dims=len(batch))
    result, offset = eqn.outvars[0].aval.shape, [int(a) for a in numbers.offset_dims]
    index_axes = [axis for axis in range(len(result)) if axis not in offset]
    return Value(tensor, result, (*(index_axes[axis] for axis in order), *offset))


def _constant_slice(
    graph: Graph, eqn: Any, x: Value, axes: Sequence[int], start: Integer[np.ndarray, " n"]
) -> Value:
    """The slice of `gather` with one constant start."""
    old, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    start = np.clip(start, 0, [old[axis] - sizes[axis] for axis in axes])
    limit = start + [sizes[axis] for axis in axes]
    tensor_axes = int64s(*(x.axes.index(axis) for axis in axes))
    tensor = graph.tensor(x, x.axes, old)
    tensor = graph.op("Slice", tensor, int64s(*start), int64s(*limit), tensor_axes)
    collapsed = [int(axis) for axis in eqn.params["dimension_numbers"].collapsed_slice_dims]
    return squeeze_axes(graph, Value(tensor, sizes, x.axes), collapsed)


SHAPES: dict[str, Rule] = {
    "broadcast_in_dim": broadcast,
    "concatenate": concatenate,
    "gather": gather,
    "iota": iota,
    "pad": pad,
    "reshape": reshape,
    "slice": slice_,
    "squeeze": squeeze,
    "stack": stack,
    "transpose": transpose,
}
# Rules that also handle constants, without expanding broadcast ones.
LAZY_SHAPES = ("broadcast_in_dim", "iota", "reshape", "slice", "squeeze", "transpose")
