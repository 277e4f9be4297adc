"""One device mesh over everything there is: batches are split over it, states are copied to it.

Under one `jit` the compiler does the rest: gradients are summed over devices, and batch norms see
the whole batch (synchronised batch norm; AlphaPose's statistics are those of one GPU's share).
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def device_mesh() -> Mesh:
    """All devices of all processes along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """Rows divided among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows of a batch, as part of the arrays that span all processes."""
    return {
        name: jax.make_array_from_process_local_data(sharding, np.ascontiguousarray(value))
        for name, value in batch.items()
    }
