"""Primitives that change shapes or move entries, in ONNX."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rmpe_jax.interop.onnx_elementwise import Rule, refusal
from rmpe_jax.interop.onnx_graph import Dim, Graph, Tensor, Value, integers, is_int, onnx_type


def broadcast(graph: Graph, eqn: Any, x: Value, *sizes: Value) -> Value:
    """Inserts axes of size 1; whatever needs more of them repeats."""
    kept = [int(axis) for axis in eqn.params["broadcast_dimensions"]]
    return insert(graph, x, kept, len(eqn.params["shape"]))


def insert(graph: Graph, x: Value, kept: Sequence[int], rank: int) -> Value:
    """Axis i of `x` becomes axis `kept[i]` of `rank`; the others have size 1."""
    shape: list[Dim] = [1] * rank
    for axis, size in zip(kept, x.shape, strict=True):
        shape[axis] = size
    if x.array is not None:
        return Value.constant(x.array.reshape(shape))
    new = [axis for axis in range(rank) if axis not in kept]
    axes = [kept[axis] for axis in x.axes]
    for axis in new:  # behind the axis before it, so that a reshape can merge the two in place
        axes.insert(axes.index(axis - 1) + 1 if axis else 0, axis)
    places = integers(*sorted(axes.index(axis) for axis in new))
    tensor = graph.op("Unsqueeze", x.tensor, places) if new else x.tensor
    return Value(tensor, tuple(shape), tuple(axes))


def without(x: Value, axes: Sequence[int], tensor: Tensor) -> Value:
    """The value of `tensor`, which has the axes of `x` except these."""
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    left = tuple(kept.index(axis) for axis in x.axes if axis in kept)
    return Value(tensor, tuple(x.shape[axis] for axis in kept), left)


def squeeze(graph: Graph, eqn: Any, x: Value) -> Value:
    """Without some axes of size 1."""
    return drop(graph, x, eqn.params["dimensions"])


def drop(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
    """Without these axes, which have size 1."""
    if x.array is not None:
        return Value.constant(x.array.squeeze(tuple(axes)))
    tensor = graph.op("Squeeze", x.tensor, integers(*x.places(axes))) if axes else x.tensor
    return without(x, axes, tensor)


def transpose(graph: Graph, eqn: Any, x: Value) -> Value:
    """Other names for the axes; nothing moves."""
    order = [int(axis) for axis in eqn.params["permutation"]]
    if x.array is not None:
        return Value.constant(x.array.transpose(order))
    axes = tuple(order.index(axis) for axis in x.axes)
    return Value(x.tensor, tuple(x.shape[axis] for axis in order), axes)


def reshape(graph: Graph, eqn: Any, x: Value, *sizes: Value) -> Value:
    """Splits axes where they lie, and moves only those that merge."""
    old, new = tuple(eqn.invars[0].aval.shape), tuple(eqn.params["new_sizes"])
    if x.array is not None and all(is_int(n) for n in new):
        return Value.constant(np.broadcast_to(x.array, old).reshape(new))
    parts = _parts(old, new)
    part_of = {axis: part for part in parts for axis in part[0]}
    order = []
    for part in [part_of[axis] for axis in x.axes] + [part for part in parts if not part[0]]:
        if part not in order:
            order.append(part)
    tensor = graph.tensor(x, [axis for part in order for axis in part[0]], old)
    axes = tuple(axis for part in order for axis in part[1])
    if sum(not is_int(new[axis]) for axis in axes) > 1:
        raise refusal(eqn, f"to {new}")
    shape = integers(*(new[axis] if is_int(new[axis]) else -1 for axis in axes))
    return Value(graph.op("Reshape", tensor, shape), new, axes)


def _parts(old: Sequence[Dim], new: Sequence[Dim]) -> list[tuple[range, range]]:
    """The finest parts of a reshape: runs of old axes that become runs of new ones."""
    parts, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        before, after = min(i + 1, len(old)), min(j + 1, len(new))
        while (a := math.prod(old[i:before])) != (b := math.prod(new[j:after])):
            if after == len(new) or (before < len(old) and a < b):
                before += 1
            else:
                after += 1
        parts.append((range(i, before), range(j, after)))
        i, j = before, after
    return parts


def iota(graph: Graph, eqn: Any, *sizes: Value) -> Value:
    """0, 1, 2 ... along an axis, the same along the others."""
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    if not is_int(shape[axis]):
        raise refusal(eqn, "along the batch")
    sizes_ = [n if place == axis else 1 for place, n in enumerate(shape)]
    return Value.constant(np.arange(shape[axis], dtype=eqn.params["dtype"]).reshape(sizes_))


def concatenate(graph: Graph, eqn: Any, *values: Value) -> Value:
    """One after the other along an axis."""
    shapes = [var.aval.shape for var in eqn.invars]
    return _concatenate(graph, values, shapes, eqn.params["dimension"], eqn.outvars[0].aval.shape)


def stack(graph: Graph, eqn: Any, *values: Value) -> Value:
    """One after the other along a new axis."""
    shape = eqn.outvars[0].aval.shape
    axis = eqn.params["axis"] % len(shape)
    kept = [other for other in range(len(shape)) if other != axis]
    slices = [insert(graph, value, kept, len(shape)) for value in values]
    one = tuple(1 if other == axis else n for other, n in enumerate(shape))
    return _concatenate(graph, slices, [one] * len(slices), axis, shape)


def _concatenate(
    graph: Graph, values: Sequence[Value], shapes: Sequence, axis: int, shape: tuple[Dim, ...]
) -> Value:
    axes = next((value.axes for value in values if value.array is None), values[0].axes)
    tensors = [graph.tensor(v, axes, s) for v, s in zip(values, shapes, strict=True)]
    return Value(graph.op("Concat", *tensors, axis=axes.index(axis)), shape, axes)


def slice_(graph: Graph, eqn: Any, x: Value) -> Value:
    """A part of an array, or every n-th entry of it."""
    old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    cut = [axis for axis in range(len(old)) if old[axis] != new[axis]]
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(old)
    if not all(is_int(limits[axis]) for axis in cut):
        raise refusal(eqn, "of the batch")
    if x.array is not None and all(is_int(n) for n in old):
        part = tuple(map(slice, starts, limits, strides))
        return Value.constant(np.broadcast_to(x.array, old)[part])
    tensor = graph.tensor(x, x.axes, old)
    if cut:
        ends = [integers(*(row[axis] for axis in cut)) for row in (starts, limits)]
        places = integers(*(x.axes.index(axis) for axis in cut))
        steps = integers(*(strides[axis] for axis in cut))
        tensor = graph.op("Slice", tensor, *ends, places, steps)
    return Value(tensor, new, x.axes)


def pad(graph: Graph, eqn: Any, x: Value, filling: Value) -> Value:
    """A constant around an array."""
    low, high, inner = zip(*eqn.params["padding_config"], strict=True)
    if min(low + high) < 0 or max(inner) > 0 or filling.array is None:
        raise refusal(eqn, "that cuts, or fills gaps")
    tensor = graph.tensor(x, x.axes, eqn.invars[0].aval.shape)
    pads = integers(*(low[axis] for axis in x.axes), *(high[axis] for axis in x.axes))
    return Value(graph.op("Pad", tensor, pads, filling.array), eqn.outvars[0].aval.shape, x.axes)


def gather(graph: Graph, eqn: Any, x: Value, indices: Value) -> Value:
    """Entries, or whole rows of some axes, at given places; places outside are moved inside."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    old, shape = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
    batch, found = numbers.operand_batching_dims, [int(a) for a in numbers.start_index_map]
    if "FILL" in str(eqn.params["mode"]):
        raise refusal(eqn, "with a filling")
    if indices.array is not None and len(shape) == 1:
        return _part(graph, eqn, x, found, indices.array)
    rows = [axis for axis in range(len(old)) if axis not in (*batch, *found)]
    taken = sorted(found) == sorted(map(int, numbers.collapsed_slice_dims))
    if not taken or any(sizes[axis] != old[axis] for axis in rows):
        raise refusal(eqn, "of slices")
    index_batch = numbers.start_indices_batching_dims
    order = [*index_batch, *(a for a in range(len(shape) - 1) if a not in index_batch)]
    places = graph.tensor(indices, [*order, len(shape) - 1], shape)
    if isinstance(places, str):
        places = graph.op("Cast", places, to=onnx_type(np.dtype(np.int64)))
    else:
        places = places.astype(np.int64)
    last = integers(*(old[axis] - 1 for axis in found))
    places = graph.op("Min", graph.op("Max", places, integers(0)), last)
    data = graph.tensor(x, [*batch, *found, *rows], old)
    tensor = graph.op("GatherND", data, places, batch_dims=len(batch))
    result, offset = eqn.outvars[0].aval.shape, [int(a) for a in numbers.offset_dims]
    of_indices = [axis for axis in range(len(result)) if axis not in offset]
    return Value(tensor, result, (*(of_indices[axis] for axis in order), *offset))


def _part(graph: Graph, eqn: Any, x: Value, axes: Sequence[int], start: np.ndarray) -> Value:
    """The one slice that begins at a known place."""
    old, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    start = np.clip(start, 0, [old[axis] - sizes[axis] for axis in axes])
    limit = start + [sizes[axis] for axis in axes]
    places = integers(*(x.axes.index(axis) for axis in axes))
    tensor = graph.tensor(x, x.axes, old)
    tensor = graph.op("Slice", tensor, integers(*start), integers(*limit), places)
    dropped = [int(axis) for axis in eqn.params["dimension_numbers"].collapsed_slice_dims]
    return drop(graph, Value(tensor, sizes, x.axes), dropped)


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
# Their rules do with a constant what they do with a tensor, without repeating it.
LAZY_SHAPES = ("broadcast_in_dim", "iota", "reshape", "slice", "squeeze", "transpose")
