"""The devices of this process: batches are divided among them, variables are copied to each.

What is computed on them waits for no other process.
"""

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")


def local_mesh() -> Mesh:
    """The devices of this process along one axis, `data`."""
    return Mesh(np.array(jax.local_devices()), ("data",), axis_types=(AxisType.Auto,))


def put_rows(batch: T, mesh: Mesh) -> T:
    """Arrays whose rows are divided among the devices of a local mesh.

    Args:
      batch: a tree of arrays whose number of rows is a multiple of that of the devices.
      mesh: of `local_mesh`.
    """
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def local_copies(variables: T, mesh: Mesh) -> T:
    """Whole copies of arrays on each device of a local mesh.

    Args:
      variables: a tree of arrays, which this process has, or which are whole on every device of all
        processes, as those of a training are. The latter are not copied again.
      mesh: of `local_mesh`.
    """
    here = NamedSharding(mesh, PartitionSpec())

    def copies(leaf: Any) -> jax.Array:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return jax.device_put(leaf, here)
        shards = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, here, shards)

    return jax.tree.map(copies, variables)
