"""Writing a run's checkpoints: atomically, keeping the latest two and the best.

A checkpoint that is no longer kept stays on the disk until the next save is over.

What a checkpoint holds is described in `model_io.checkpoints`, which reads the model of it.
"""

import errno
import logging
import os
from typing import Any

import jax
import orbax.checkpoint as ocp

from rmpe_jax.config import (
    RunConfig,
    config_changes,
    model_spec,
    require_same_network,
    spec_from_dict,
)
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.checkpoints import OUTDATED, open_manager, read_meta, steps_of
from rmpe_jax.object_store import is_address, one_line, open_path
from rmpe_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints in one folder; use as a context manager."""

    def __init__(self, folder: str | os.PathLike, keep: int = 2, read_only: bool = False):
        """Opens the folder.

        Args:
          folder: or an address in an object store; made if needed, unless `read_only`.
          keep: how many of the latest checkpoints stay.
          read_only: nothing in the folder changes.
        """
        self._folder = open_path(folder)
        self._deletes = not read_only and not is_address(folder)
        try:
            self._manager = open_manager(self._folder, keep=keep, read_only=read_only)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written to ({error.strerror}); choose another"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            try:
                self._finish()
            finally:
                self._manager.close()
        except Exception as error:
            if kind is None:  # else the error that ends the block is reported
                raise self._save_failed(None, error) from error

    def steps(self) -> list[int]:
        """Complete steps, newest first."""
        return steps_of(self._manager)

    def save(self, state: TrainState, meta: dict[str, Any], *, wait: bool = False) -> None:
        """Starts to write `state`; returns once it is copied, or with `wait` once it is written.

        An existing checkpoint of the same step, such as a damaged one, is replaced.

        Raises:
          UserError: this save or the one before it failed, for example because the disk is full.
            Complete checkpoints are not touched.
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
                self._finish()
        except Exception as error:  # Orbax wraps what its writing threads raise
            raise self._save_failed(step, error) from error

    def wait(self) -> None:
        """Waits for a save in the background. Raises as `save` does."""
        try:
            self._finish()
        except Exception as error:
            raise self._save_failed(None, error) from error

    def _finish(self) -> None:
        """Waits for a save in the background, and deletes the steps that it has outdated."""
        self._manager.wait_until_finished()
        if self._deletes and jax.process_index() == 0:
            try:
                (self._folder / OUTDATED).rmtree(missing_ok=True)
            except OSError as error:  # such as a file on NFS that somebody reads; tried again later
                logging.warning("%s: cannot be deleted: %s", self._folder / OUTDATED, error)

    def _save_failed(self, step: int | None, error: Exception) -> UserError:
        full = errno.errorcode[errno.ENOSPC] in repr(error) or "No space left" in str(error)
        why = "the disk is full" if full else f"{type(error).__name__}: {one_line(error)}"
        kept = [s for s in self.steps() if s != step]
        kept = f"step {kept[0]} is intact" if kept else "there is no earlier one"
        what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        return UserError(
            f"{self._folder}: {what} could not be written, {why}; {kept}: "
            "make room and run the same command again"
        )

    def restore(
        self, template: TrainState, run: RunConfig
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest readable state with its meta data, or None if there is none.

        Args:
          template: a state of the right structure and sharding; its values are not used.
          run: the config that continues from the state.

        Raises:
          UserError: all steps are damaged, or they are of another network or optimizer.
        """
        items = {"model": _model_item(template), "optimizer": {"opt_state": template.opt_state}}
        wanted = ocp.args.Composite(
            **{name: ocp.args.StandardRestore(_abstract(item)) for name, item in items.items()}
        )
        failures = []
        for step in self.steps():
            try:
                meta = read_meta(self._manager, step)
                require_same_network(self._folder, spec_from_dict(meta["config"]), model_spec(run))
                self._require_same_structure(step, items, meta["config"], run)
                found = self._manager.restore(step, args=wanted)
            except UserError:
                raise
            except Exception as error:  # whatever a damaged file makes Orbax raise
                failures.append(f"step {step}: {one_line(error)}")
                logging.warning("%s: step %d cannot be read", self._folder, step)
                continue
            return _state_of(step, found["model"], found["optimizer"], template), meta
        if failures:
            raise UserError(
                f"{self._folder}: no checkpoint can be read ({'; '.join(failures)}); "
                "start in another workdir"
            )
        return None

    def _require_same_structure(
        self, step: int, wanted: dict[str, Any], config: dict[str, Any], run: RunConfig
    ) -> None:
        """Raises a UserError if the state of a step has other arrays than `wanted`."""
        found = self._manager.item_metadata(step)
        for name, item in wanted.items():
            theirs, ours = _shapes(found[name].tree), _shapes(item)
            if theirs == ours:
                continue
            changes = [str(change) for change in config_changes(config, run) if not change.exact]
            different = [key for key in sorted(theirs | ours) if theirs.get(key) != ours.get(key)]
            why = ", ".join(changes) or f"{different[0]} differs"
            raise UserError(
                f"{self._folder}: the {name} at step {step} does not fit the config ({why}); use "
                "the config it was trained with, or another workdir"
            )

    def scores(self) -> dict[str, float]:
        """The scores of the newest readable checkpoint; empty if there is none."""
        for step in self.steps():
            try:
                return read_meta(self._manager, step)["scores"]
            except Exception as error:
                logging.warning("%s: step %d: %s", self._folder, step, one_line(error))
        return {}


def _model_item(state: TrainState) -> dict[str, Any]:
    averages = {f"ema_{name}": tree for name, tree in (state.ema or {}).items()}
    return state.latest | averages


def _shapes(tree: Any) -> dict[str, Any]:
    """The shapes of arrays by their path; nodes without arrays are kept, as Orbax keeps them."""
    flat = ocp.tree.to_flat_dict(tree, sep="/", keep_empty_nodes=True)
    return {path: getattr(leaf, "shape", None) for path, leaf in flat.items()}


def _state_of(step: int, model: dict, optimizer: dict, template: TrainState) -> TrainState:
    ema = {name: model[f"ema_{name}"] for name in template.ema or {}}
    return TrainState(
        step=jax.device_put(jax.numpy.int32(step), template.step.sharding),
        params=model["params"],
        batch_stats=model["batch_stats"],
        ema=ema or None,
        opt_state=optimizer["opt_state"],
    )


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
