"""The training loop, written to be read from top to bottom."""

import collections
import contextlib
import dataclasses
import math
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

import rmpe_jax
from rmpe_jax.config import Change, DataConfig, RunConfig, config_changes, parse_config
from rmpe_jax.data.pipeline import iterate
from rmpe_jax.errors import UserError
from rmpe_jax.files import atomic_write
from rmpe_jax.lock import FolderLock
from rmpe_jax.object_store import is_address, open_path
from rmpe_jax.processes import ending_with_the_others, is_first_process
from rmpe_jax.training import mesh as meshes
from rmpe_jax.training.checkpoints import Checkpoints
from rmpe_jax.training.detection_task import detection_task
from rmpe_jax.training.huge_pages import huge_pages_advice
from rmpe_jax.training.log import Log, say
from rmpe_jax.training.metrics import MetricWriter
from rmpe_jax.training.optimizers import build_optimizer, learning_rate
from rmpe_jax.training.pose_task import pose_task
from rmpe_jax.training.pretrained import require_weights
from rmpe_jax.training.profile import StepProfiler
from rmpe_jax.training.run_files import RunFiles, open_run_files
from rmpe_jax.training.stages import start_from
from rmpe_jax.training.state import TrainState, init_state, init_variables
from rmpe_jax.training.step import make_train_step
from rmpe_jax.training.tasks import Task

_TASKS = {"pose": pose_task, "detection": detection_task}  # by `config.model.task`
TERMINATED = 128 + signal.SIGTERM  # exit status after a SIGTERM
_STEPS_AHEAD = 2  # that the host may start before the devices are done, each with its batch


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path | str) -> dict[str, float]:
    """Trains until `config.total_steps`, from the last checkpoint in `workdir` if there is one.

    Writes `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` (the last two), `best/`,
    and `profile/` if steps are profiled, to `workdir`, after config, data and checkpoint are
    accepted. On SIGTERM it saves and exits with status 143; the same command resumes. If several
    processes train together and one is lost, the others end too. One run at a time may use a
    workdir.

    Args:
      config: of `default_config`, changed.
      workdir: the run's folder, made if needed; or an address such as gs://BUCKET/RUN. There all
        but checkpoints is written with each of them, and nothing keeps a second run away.

    Returns:
      The metrics of the last evaluation; empty without a dataset to evaluate on.

    Raises:
      UserError: config, data, checkpoint or workdir cannot be used; another process uses the
        workdir; the loss is not finite; the disk is full.
    """
    run = parse_config(config)
    root = open_path(workdir)
    with _locked(root) as lock, open_run_files(root) as files:
        return _train(run, root, files, lock, config.to_json(indent=2))


def _train(
    run: RunConfig, workdir: epath.Path, files: RunFiles, lock: FolderLock | None, config_json: str
) -> dict[str, float]:
    """Trains as `train` does, in a workdir that is locked."""
    mesh = meshes.device_mesh()
    _require_divisible(run, mesh)
    require_weights(run.model, run.sstn)

    # ---- network, objective and data -----------------------------------------------------------
    task = _TASKS[run.model.task](run)

    # ---- optimizer and state -------------------------------------------------------------------
    optimizer = build_optimizer(run.optim, run.total_steps, run.sstn)
    schedule = learning_rate(run.optim, run.total_steps)
    variables = init_variables(
        task.spec,
        task.model,
        run.seed,
        backbone_weights=run.model.backbone_weights,
        localization_weights=run.sstn.localization_weights,
    )
    state = init_state(variables, optimizer, run.optim)
    del variables  # else they stay in the memory of the first device
    layout = meshes.Layout(mesh, run.sharding)
    train_step = make_train_step(
        task.model,
        task.objective,
        optimizer,
        frozen=run.optim.frozen,
        ema_decay=run.optim.ema_decay,
        grad_accumulation=run.grad_accumulation,
        seed=run.seed,
        layout=layout,
    )
    # Pinned, so that the layout of the state stays and every step is the same program.
    pinned = layout.shardings(state), meshes.replicated(mesh)
    train_step = jax.jit(train_step, donate_argnums=0, out_shardings=pinned)

    # ---- resume --------------------------------------------------------------------------------
    with Checkpoints(workdir / "checkpoints", read_only=True) as earlier:
        restored = earlier.restore(layout.abstract(state), run)
    scores: dict[str, float] = {}
    if restored:
        state, meta = restored
        scores = meta["scores"]
        _report_changes(meta["step"], config_changes(meta["config"], run))
    else:
        if run.model.init_from:
            state = start_from(state, task.spec, run.model.init_from, run.sstn.parallel_from)
        state = layout.put(state)
    start = int(state.step)
    if start >= run.total_steps:
        say(f"nothing left to do: the run is at step {start}\n")
        return scores

    with contextlib.ExitStack() as stack:
        # ---- files: nothing is written to the workdir before this point ------------------------
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints"))
        best = stack.enter_context(Checkpoints(workdir / "best", keep=1))
        best_scores = best.scores()
        if is_first_process():
            with atomic_write(files.folder / "config.json") as file:
                file.write(config_json + "\n")
        writer = _writer(files.folder, start)
        if writer:
            stack.callback(writer.close)
        files.publish()
        must_stop = stack.enter_context(_sigterm())
        say(f"{run.model.name}, {_count(state.params):,} parameters, {task.size}, ")
        say(f"steps {start} to {run.total_steps} of {run.batch_size}\n")
        if advice := huge_pages_advice():
            say(f"{advice}\n")

        # ---- the loop --------------------------------------------------------------------------
        batches = stack.enter_context(contextlib.closing(_batches(task.dataset, start, run.data)))
        sharding = meshes.batch_sharded(mesh)
        log = Log(start, run.total_steps, run.batch_size)
        started: collections.deque[Any] = collections.deque()
        profiler = StepProfiler(run.profile_steps, files.folder / "profile")
        stack.callback(profiler.close)
        stack.enter_context(ending_with_the_others())
        for step in range(start + 1, run.total_steps + 1):
            with profiler.step(step):
                with log.waiting():
                    batch = meshes.put_batch(_sent(next(batches), task), sharding)
                state, metrics = train_step(state, task.complete(batch))
            started.append(metrics)
            if len(started) > _STEPS_AHEAD:
                jax.block_until_ready(started.popleft())
            log.add(metrics)
            last, stopping = step == run.total_steps, must_stop(step)
            reporting = last or stopping or _due(step, run.log_every)
            evaluating = task.evaluate is not None and (last or _due(step, run.evaluate_every))
            saving = last or stopping or _due(step, run.checkpoint_every)
            if lock and (reporting or evaluating or saving):
                lock.require_held()
            if reporting:
                values = log.flush(step)
                values["train/learning_rate"] = float(jnp.asarray(schedule(step - 1)))
                if writer:
                    writer.write(step, values)
            if evaluating or saving:
                log.require_finite(step, state)
            if evaluating:
                with log.paused():
                    scores = _evaluate(task, state, layout)
                say(f"step {step}: " + _table(scores) + "\n")
                if writer:
                    writer.write(step, scores)
                name, score = next(iter(scores.items()))
                # An earlier best of another dataset has a score of another name.
                if score > best_scores.get(name, -math.inf):
                    best_scores = scores
                    _save(best, state, run, scores, log, wait=True)
            if saving:
                _save(checkpoints, state, run, scores, log, wait=last or stopping)
            if evaluating or saving:
                files.publish()
            if stopping:
                say(f"SIGTERM: saved step {step}; the same command resumes from there\n")
                sys.exit(TERMINATED)
        checkpoints.wait()
    return scores


@contextlib.contextmanager
def _locked(workdir: epath.Path) -> Iterator[FolderLock | None]:
    """Locks the workdir for all processes of this run; only process 0 gets the lock.

    An object store cannot be locked.
    """
    if is_address(workdir):
        say(f"{workdir}: an object store has no locks: start one run there at a time\n")
        yield None
        return
    with contextlib.ExitStack() as stack:
        lock, refusal = None, None
        if jax.process_index() == 0:
            try:
                lock = stack.enter_context(FolderLock(workdir))
            except UserError as error:
                refusal = error
        if jax.process_count() > 1:
            refused = multihost_utils.broadcast_one_to_all(np.bool_(refusal is not None))
            if refused and refusal is None:
                refusal = UserError(f"{workdir}: process 0 could not lock it and says why")
        if refusal:
            raise refusal
        yield lock


def _report_changes(step: int, changes: list[Change]) -> None:
    """Says what changed since the checkpoint of a step, and what this makes of the run."""
    for change in changes:
        say(f"config changed since step {step}: {change}\n")
    inexact = ", ".join(change.key for change in changes if not change.exact)
    if inexact:
        say(f"not the run that a single training with this config would give, due to {inexact}\n")


def _require_divisible(run: RunConfig, mesh: jax.sharding.Mesh) -> None:
    parts = mesh.size * run.grad_accumulation
    if run.batch_size % parts:
        raise UserError(
            f"config.batch_size={run.batch_size} cannot be split over {mesh.size} devices and "
            f"{run.grad_accumulation} parts: make it a multiple of {parts}"
        )


def _writer(workdir: pathlib.Path, start: int) -> MetricWriter | None:
    return MetricWriter(workdir, start) if jax.process_index() == 0 else None


@contextlib.contextmanager
def _sigterm():
    """A function of the step, called once per step: has any process received SIGTERM?"""
    if jax.process_count() > 1:
        # JAX's own handler makes all processes stop at the same step.
        yield multihost_utils.reached_preemption_sync_point
        return
    received: list[int] = []
    try:
        previous = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    except ValueError:  # not in the main thread: the caller handles signals
        yield lambda step: False
        return
    try:
        yield lambda step: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _batches(dataset: Any, start: int, data: DataConfig):
    return iterate(
        dataset,
        start,
        num_threads=data.num_threads,
        num_workers=data.num_workers,
        prefetch=data.prefetch,
    )


def _due(step: int, every: int) -> bool:
    """Whether `step` is a multiple of `every`; never if that is 0."""
    return every > 0 and step % every == 0


def _sent(batch: dict[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """What a step uses of a batch; the rest stays on the host."""
    return {name: batch[name] for name in (*task.host_keys, "corrupt")}


def _save(
    checkpoints: Checkpoints,
    state: TrainState,
    run: RunConfig,
    scores: dict[str, float],
    log: Log,
    wait: bool,
) -> None:
    meta = {
        "config": dataclasses.asdict(run),
        "scores": scores,
        "version": rmpe_jax.__version__,
    }
    with log.paused():
        checkpoints.save(state, meta, wait=wait)


def _evaluate(task: Task, state: TrainState, layout: meshes.Layout) -> dict[str, float]:
    """Metrics of all datasets to evaluate on; the first is the score of the network."""
    return task.evaluate(layout.whole(state.variables)) if task.evaluate else {}


def _table(scores: dict[str, float]) -> str:
    return "  ".join(
        f"{name.removeprefix('eval/')} {value:.4g}"
        for name, value in scores.items()
        if name.endswith(("/AP", "/AP50", "/PCKh"))
    )


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
