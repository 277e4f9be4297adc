"""Several processes that work together: joining them, dividing the work, gathering its results.

A process that runs alone is the first of one. It divides and gathers nothing.
"""

import contextlib
import itertools
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int

from rmpe_jax.errors import UserError

T = TypeVar("T")

_WAIT_MS = 7 * 24 * 3600 * 1000  # a process that dies ends the wait of the others much earlier
_LOST = re.compile(r"Gloo|NCCL.*remote|UNAVAILABLE|DEADLINE_EXCEEDED|CoordinationService|heartbeat")
_BARRIERS = itertools.count()  # numbers them; all processes meet at the same ones


def join_processes(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins several processes that work together.

    Args:
      coordinator: host:port of process 0.
      num_processes: number of processes.
      process_id: which of them this is, from 0.

    Raises:
      UserError: the numbers are missing or inconsistent.
    """
    numbered = num_processes is not None and process_id is not None
    if not coordinator or not numbered or not 0 <= process_id < num_processes:
        raise UserError(
            f"--coordinator={coordinator} with --num-processes={num_processes} and "
            f"--process-id={process_id}: give the address of process 0, the number of processes, "
            "and to each of them a number from 0"
        )
    jax.distributed.initialize(coordinator, num_processes, process_id)


def join_cluster() -> None:
    """Joins the processes that Slurm, Open MPI or a TPU pod has started, found by JAX.

    Under Slurm and Open MPI each process uses one GPU, that of its number on the node.

    Raises:
      UserError: nothing was found, or what was found is incomplete.
    """
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise UserError(
            f"--distributed: this process was not started by Slurm (srun), Open MPI (mpirun) or on "
            f"a TPU pod, or not completely ({error}); use one of them, or give --coordinator, "
            "--num-processes and --process-id"
        ) from error


@contextlib.contextmanager
def ending_with_the_others() -> Iterator[None]:
    """Ends this process at once, with a line and status 1, if the block fails for want of another.

    On CPUs and in general where communication fails when its other end is gone. An orderly end
    would wait for the lost process, until JAX aborts this one after 100 seconds without heartbeat.
    Where communication only waits, that abort is the end.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or not _LOST.search(str(error)):
            raise
        print(
            f"process {jax.process_index()}: another process has ended or cannot be reached: "
            f"stopped; start all again with the same command ({str(error).splitlines()[0]})",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def is_first_process() -> bool:
    """Does this process write files and print?"""
    return jax.process_index() == 0


def share_of(groups: Int[np.ndarray, " m"]) -> slice:
    """The rows that this process works on; each row is in the share of one process.

    Args:
      groups: the group of each row, ascending, such as the image of each box. Rows of one group
        stay together.
    """
    cuts = share_ends(groups, jax.process_count())
    return slice(cuts[jax.process_index()], cuts[jax.process_index() + 1])


def share_ends(groups: Int[np.ndarray, " m"], num_shares: int) -> list[int]:
    """Where the shares of the rows begin, and the number of rows at the end.

    Shares follow each other and are about equally large; some may be empty.

    Args:
      groups: as of `share_of`.
      num_shares: into how many the rows are divided.
    """
    even = [len(groups) * i // num_shares for i in range(num_shares)]
    # The group on a cut goes to the share that begins there.
    starts = [int(np.searchsorted(groups, groups[i])) if i < len(groups) else i for i in even]
    return [*starts, len(groups)]


def in_every_process(work: Callable[[], T]) -> list[T]:
    """The results of `work` of all processes, in their order.

    Every process must call this at the same place. It waits for the slowest of them.

    Args:
      work: called once in each process; its result can be pickled.

    Raises:
      UserError: `work` raised it in one of the processes. All raise that of the first of them.
    """
    if jax.process_count() == 1:
        return [work()]
    outcome: Any
    try:
        outcome = work()
    except UserError as error:
        outcome = error
    outcomes = _gather(outcome)
    for other in outcomes:
        if isinstance(other, UserError):
            raise other
    return outcomes


def in_first_process(work: Callable[[], T]) -> T:
    """The result of `work` of process 0, in all processes; the others do not do it.

    Args:
      work: as of `in_every_process`.

    Raises:
      UserError: `work` raised it; all processes do.
    """
    results: list[Any] = in_every_process(work if is_first_process() else lambda: None)
    return results[0]


def agreed(work: Callable[[], T]) -> T:
    """The result of `work` of this process, after all processes have theirs.

    Args:
      work: called once in each process, such as to read what each needs.

    Raises:
      UserError: `work` raised it in one of the processes. All raise that of the first of them.
    """
    result: list[T] = []
    in_every_process(lambda: result.append(work()))
    return result[0]


def _gather(value: Any) -> list[Any]:
    """The values of all processes, pickled on the way: not a bit changes."""
    mine = np.frombuffer(pickle.dumps(value), np.uint8)
    with ending_with_the_others():
        _meet()
        sizes = multihost_utils.process_allgather(np.int32(len(mine)))
        padded = np.zeros(sizes.max(), np.uint8)
        padded[: len(mine)] = mine
        rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _meet() -> None:
    """Waits for all processes: Gloo, the network of CPUs, waits for 30 seconds only."""
    import orbax.checkpoint as ocp  # takes a second

    wait = ocp.multihost.get_barrier_sync_fn()
    wait(key=f"rmpe_jax_{next(_BARRIERS)}", timeout_ms=_WAIT_MS)
