"""One mesh over all devices: batches are split over it, states are replicated.

The compiler does the rest under one `jit`: gradients are summed over devices, and batch norms use
the whole batch (synchronized batch norm; AlphaPose's statistics are those of one GPU's part).
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rmpe_jax.errors import UserError


def join_processes(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    """Joins several processes that train together.

    Args:
      coordinator: host:port of process 0.
      num_processes: number of processes.
      process_id: which of them this is, from 0.

    Raises:
      UserError: the numbers are missing or inconsistent.
    """
    if num_processes is None or process_id is None or not 0 <= process_id < num_processes:
        raise UserError(
            f"--coordinator={coordinator} with --num_processes={num_processes} and "
            f"--process_id={process_id}: give the number of processes, and to each of them a "
            "number from 0"
        )
    jax.distributed.initialize(coordinator, num_processes, process_id)


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
