"""One mesh over all devices: batches are split over it, states are replicated or split too.

The compiler does the rest under one `jit`: gradients are summed over devices, and batch norms use
the whole batch (synchronized batch norm; AlphaPose's statistics are those of one GPU's part).
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SMALLEST_SHARDED = 2**16  # elements; gathering fewer costs more than the 256 KB of float32 save


def device_mesh() -> Mesh:
    """All devices of all processes along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """Rows divided among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the arrays of a state lie; the methods take any tree of arrays of a state.

    Attributes:
      mesh: of `device_mesh`.
      sharding: "replicated": each device has all. "fsdp": each has a part of every large array
        (fully sharded data parallelism; ZeRO of Rajbhandari et al., SC 2020), see `fsdp_spec`.
    """

    mesh: Mesh
    sharding: str = "replicated"

    def shardings(self, tree: Any) -> Any:
        """The sharding of each array."""

        def of(leaf: Any) -> NamedSharding:
            divided = self.sharding == "fsdp"
            spec = fsdp_spec(leaf.shape, self.mesh.size) if divided else PartitionSpec()
            return NamedSharding(self.mesh, spec)

        return jax.tree.map(of, tree)

    def abstract(self, tree: Any) -> Any:
        """Shapes, types and shardings without values."""

        def of(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(of, tree, self.shardings(tree))

    def put(self, tree: Any) -> Any:
        """Arrays that every process has, laid out."""
        return jax.device_put(tree, self.shardings(tree))

    def gather(self, tree: Any) -> Any:
        """Whole arrays on every device; within `jit`."""
        return jax.lax.with_sharding_constraint(tree, replicated(self.mesh))

    def scatter(self, tree: Any) -> Any:
        """Arrays laid out as those of the state are; within `jit`."""
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))

    def whole(self, tree: Any) -> Any:
        """Copies of laid out arrays that are whole on every device; the same arrays if they are."""
        if self.sharding == "replicated":
            return tree
        return jax.jit(lambda arrays: arrays, out_shardings=replicated(self.mesh))(tree)


def fsdp_spec(
    shape: tuple[int, ...], num_devices: int, smallest: int = SMALLEST_SHARDED
) -> PartitionSpec:
    """How an array of a state is divided over the axis `data`.

    Args:
      shape: of the array.
      num_devices: along the axis.
      smallest: number of elements below which an array is replicated.

    Returns:
      The largest dimension that `num_devices` divides is split, the first of equals. Without such a
      dimension the array is replicated.
    """
    divisible = [size for size in shape if size and size % num_devices == 0]
    if num_devices == 1 or math.prod(shape) < smallest or not divisible:
        return PartitionSpec()
    axis = shape.index(max(divisible))
    return PartitionSpec(*[None] * axis, "data")


def put_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows of a batch, as part of the arrays that span all processes."""
    return {
        name: jax.make_array_from_process_local_data(sharding, np.ascontiguousarray(value))
        for name, value in batch.items()
    }
