"""Reading the checkpoints of a training run, by Orbax.

A run's folder has `checkpoints/` (to resume from) and `best/` (by the evaluation's first metric).
Each step is stored as three items: `model` (parameters, statistics, averages), `optimizer`, and
`meta` (a JSON with step, config and scores), so that the model can be read without the optimizer.
Beside the steps there may be `outdated/`, with steps that are about to be deleted.
`training.checkpoints` writes them.
"""

import logging
import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from rmpe_jax.errors import UserError
from rmpe_jax.object_store import is_address, one_line, open_path

Variables = dict[str, Any]  # "params" and "batch_stats"
# In a folder of checkpoints: steps that are no longer kept. One rename brings them there, then they
# are deleted. So a process that is killed leaves no half of a step under its name. Object stores
# cannot rename folders: there Orbax deletes file by file.
OUTDATED = "outdated"
_POLICY = ocp.checkpoint_managers.preservation_policy


def open_manager(
    folder: str | os.PathLike, *, keep: int | None = None, read_only: bool = False
) -> ocp.CheckpointManager:
    """Orbax's manager of the checkpoints in a folder; to be closed.

    Args:
      folder: made if needed, unless `read_only`.
      keep: how many of the latest checkpoints stay; None: all.
      read_only: nothing in the folder changes, so that a run may be writing to it meanwhile.
    """
    policy = None if keep is None else _POLICY.LatestN(keep)
    return ocp.CheckpointManager(
        open_path(folder),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            todelete_subdir=None if read_only or is_address(folder) else OUTDATED,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        ),
        item_handlers={
            "model": ocp.StandardCheckpointHandler(),
            "optimizer": ocp.StandardCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        },
    )


def steps_of(manager: ocp.CheckpointManager) -> list[int]:
    """Complete steps, newest first."""
    return sorted(manager.all_steps(), reverse=True)


def read_meta(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The JSON stored with a step."""
    return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]


def read_variables(manager: ocp.CheckpointManager, step: int) -> Variables:
    """The variables for evaluation: the averages if there are any.

    They are put on this process's first device, wherever they were trained.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    leaves = manager.item_metadata(step)["model"].tree
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), leaves
    )
    args = ocp.args.Composite(model=ocp.args.StandardRestore(abstract))
    model = manager.restore(step, args=args)["model"]
    params = model.get("ema_params") or model["params"]
    batch_stats = model.get("ema_batch_stats") or model.get("batch_stats")
    return {"params": params, "batch_stats": batch_stats or {}}


def load_variables(folder: str | os.PathLike) -> tuple[Variables, dict[str, Any]]:
    """The newest readable model of a folder of checkpoints: variables for evaluation, meta data.

    Raises:
      UserError: there is none.
    """
    if not open_path(folder).is_dir():
        raise UserError(f"{folder}: no checkpoints there; train first, or name another workdir")
    with open_manager(folder, read_only=True) as manager:
        for step in steps_of(manager):
            try:
                return read_variables(manager, step), read_meta(manager, step)
            except Exception as error:  # whatever a damaged file makes Orbax raise
                logging.warning("%s: step %d: %s", folder, step, one_line(error))
    raise UserError(f"{folder}: no checkpoint there can be read; train first, or name another")


def checkpoints_in(folder: epath.Path, checkpoint: str | None) -> epath.Path:
    """The folder of checkpoints of a workdir, or the folder itself.

    Args:
      folder: a workdir, or a folder of checkpoints.
      checkpoint: "best" or "last" of a workdir; None: the best if there is one, else the last.
    """
    if checkpoint:
        part = folder / {"best": "best", "last": "checkpoints"}[checkpoint]
        return part if part.is_dir() else folder
    for name in ("best", "checkpoints"):
        part = folder / name
        if part.is_dir() and any(path.name != OUTDATED for path in part.iterdir()):
            return part
    return folder
