"""The flags of commands that several processes can run together."""

from absl import flags

from rmpe_jax.errors import UserError

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, if several processes work together."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Index of this process, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Find the other processes without the three flags above: by Slurm, Open MPI or a TPU pod.",
)


def join_by_flags() -> None:
    """Joins the other processes, if the parsed flags name any.

    Raises:
      UserError: the flags do not say which of how many processes this is, or nothing else does.
    """
    given = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if _DISTRIBUTED.value:
        from rmpe_jax.processes import join_cluster

        if given != (None, None, None):
            raise UserError(
                "--distributed finds the other processes by itself: leave it out, or "
                "--coordinator, --num-processes and --process-id"
            )
        join_cluster()
    elif given != (None, None, None):
        from rmpe_jax.processes import join_processes

        join_processes(*given)
