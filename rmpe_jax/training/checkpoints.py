"""Checkpoints of a run, by Orbax: written whole or not at all, the latest two and the best kept.

A run's folder has `checkpoints/` (to go on from) and `best/` (by the evaluation's first metric).
Each step is stored as three items: `model` (parameters, statistics, averages), `optimizer`, and
`meta` (a JSON with step, config and scores), so that the model can be read without the optimiser.
"""

import errno
import logging
import os
import pathlib
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath

from rmpe_jax.config import default_config
from rmpe_jax.errors import UserError
from rmpe_jax.training.state import TrainState

# Keys of a config that say which network it is and what its outputs mean.
IDENTITY = (
    ("model", "task"),
    ("model", "name"),
    ("model", "skeleton"),
    ("codec", "loss"),
    ("sstn", "enabled"),
    ("sstn", "localization"),
)
_POLICY = ocp.checkpoint_managers.preservation_policy


class Checkpoints:
    """The checkpoints in one folder; use as a context manager.

    With `read_only` nothing in the folder changes, so that a run may be writing to it meanwhile.
    """

    def __init__(self, folder: pathlib.Path | str, keep: int = 2, *, read_only: bool = False):
        self._folder = epath.Path(folder).absolute()
        try:
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=_POLICY.LatestN(keep),
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                ),
                item_handlers={
                    "model": ocp.StandardCheckpointHandler(),
                    "optimizer": ocp.StandardCheckpointHandler(),
                    "meta": ocp.JsonCheckpointHandler(),
                },
            )
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written to ({error.strerror}); choose another"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:  # else it has been said
                raise self._save_failed(None, error) from error

    def steps(self) -> list[int]:
        """Complete steps, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, state: TrainState, meta: dict[str, Any], *, wait: bool = False) -> None:
        """Begins to write `state`; returns once it has been copied, or with `wait` once written.

        A checkpoint of the same step, as a damaged one leaves behind, gives way to it.

        Raises:
          UserError: this save or the one before it did not fit on the disk. Complete checkpoints
            are not touched.
        """
        step = int(state.step)
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(_model_item(state)),
            optimizer=ocp.args.StandardSave({"opt_state": state.opt_state}),
            meta=ocp.args.JsonSave({"step": step, **meta}),
        )
        self.wait()
        try:
            if step in self.steps():
                self._manager.delete(step)
            self._manager.save(step, args=items, force=True)
            if wait:
                self._manager.wait_until_finished()
        except Exception as error:  # Orbax wraps what its writing threads raise
            raise self._save_failed(step, error) from error

    def wait(self) -> None:
        """Waits for a save in the background; raises as `save` does."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._save_failed(None, error) from error

    def _save_failed(self, step: int | None, error: Exception) -> UserError:
        full = errno.errorcode[errno.ENOSPC] in repr(error) or "No space left" in str(error)
        why = "the disk is full" if full else f"{type(error).__name__}: {_one_line(error)}"
        kept = [s for s in self.steps() if s != step]
        kept = f"step {kept[0]} is intact" if kept else "there is no earlier one"
        what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        return UserError(
            f"{self._folder}: {what} could not be written, {why}; {kept}: "
            "make room and run the same command again"
        )

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON stored with `step`."""
        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))[
            "meta"
        ]

    def restore(
        self, template: TrainState, config: ml_collections.ConfigDict
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state that can be read, with its meta data, or None if there is none.

        Args:
          template: a state of the right structure and sharding; its values do not matter.
          config: of the run.

        Raises:
          UserError: all steps are damaged, or belong to another network.
        """
        wanted = ocp.args.Composite(
            model=ocp.args.StandardRestore(_abstract(_model_item(template))),
            optimizer=ocp.args.StandardRestore(_abstract({"opt_state": template.opt_state})),
        )
        failures = []
        for step in self.steps():
            try:
                meta = self.meta(step)
                check_same_model(self._folder, meta, config)
                found = self._manager.restore(step, args=wanted)
            except UserError:
                raise
            except Exception as error:  # whatever a damaged file makes Orbax raise
                failures.append(f"step {step}: {_one_line(error)}")
                logging.warning("%s: step %d cannot be read", self._folder, step)
                continue
            return _state_of(step, found["model"], found["optimizer"], template), meta
        if failures:
            raise UserError(
                f"{self._folder}: no checkpoint can be read ({'; '.join(failures)}); "
                "if the config has changed go back to it, else start in another workdir"
            )
        return None

    def best_score(self) -> float | None:
        """The score of the newest checkpoint that can be read, or None if there is none."""
        for step in self.steps():
            try:
                return self.meta(step)["best_score"]
            except Exception as error:
                logging.warning("%s: step %d: %s", self._folder, step, _one_line(error))
        return None

    def variables(self, step: int) -> dict[str, Any]:
        """The model item of `step` on this process's first device, wherever it was trained."""
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        leaves = self._manager.item_metadata(step)["model"].tree
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), leaves
        )
        args = ocp.args.Composite(model=ocp.args.StandardRestore(abstract))
        model = self._manager.restore(step, args=args)["model"]
        params = model.get("ema_params") or model["params"]
        return {"params": params, "batch_stats": model.get("batch_stats") or {}}


def load_variables(folder: pathlib.Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest model of a folder: its variables for evaluation (averages if any) and meta data.

    Raises:
      UserError: there is none that can be read.
    """
    if not epath.Path(folder).is_dir():
        raise UserError(f"{folder}: no checkpoints there; train first, or name another workdir")
    with Checkpoints(folder, read_only=True) as checkpoints:
        for step in checkpoints.steps():
            try:
                return checkpoints.variables(step), checkpoints.meta(step)
            except Exception as error:
                logging.warning("%s: step %d: %s", folder, step, _one_line(error))
    raise UserError(f"{folder}: no checkpoint there can be read; train first, or name another")


def check_same_model(
    folder: os.PathLike | str, meta: dict[str, Any], config: ml_collections.ConfigDict
) -> None:
    """Raises a UserError if the checkpoint was made by a network that differs from the config's."""
    for part, key in IDENTITY:
        # Runs of before there was a key had its default.
        default = default_config()[part][key]
        theirs, ours = meta["config"].get(part, {}).get(key, default), config[part][key]
        if theirs != ours:
            raise UserError(
                f"{folder}: the checkpoint is of config.{part}.{key}={theirs!r}, the config says "
                f"{ours!r}; use the config it was trained with, or another workdir"
            )


def _model_item(state: TrainState) -> dict[str, Any]:
    item = {"params": state.params, "batch_stats": state.batch_stats}
    return item if state.ema_params is None else item | {"ema_params": state.ema_params}


def _state_of(step: int, model: dict, optimizer: dict, template: TrainState) -> TrainState:
    return TrainState(
        step=jax.device_put(jax.numpy.int32(step), template.step.sharding),
        params=model["params"],
        batch_stats=model["batch_stats"],
        ema_params=model.get("ema_params"),
        opt_state=optimizer["opt_state"],
    )


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
