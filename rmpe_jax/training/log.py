"""Progress of a run: metrics summed on the device, and a line at regular steps."""

import contextlib
import math
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from rmpe_jax.errors import UserError
from rmpe_jax.progress import duration
from rmpe_jax.training.state import TrainState
from rmpe_jax.training.step import COUNTS

_ZERO_STEPS = 10  # so many in a row are no accident of small batches


class Log:
    """Sums metrics on the device and reads them only when a line is due."""

    def __init__(self, start: int, total_steps: int, batch_size: int) -> None:
        """Begin after step `start` of a run."""
        self._total_steps, self._batch_size = total_steps, batch_size
        self._sums: list[dict[str, jax.Array]] = []
        self._start = self._since = start
        self._corrupt = 0
        self._zero_steps = 0
        self._begin = self._run_begin = time.monotonic()
        self._run_start = start
        self._waited = 0.0
        self._compiled = False

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time in this block as waiting for the data pipeline."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    @contextlib.contextmanager
    def paused(self):
        """Excludes the time in this block from the training rates."""
        jax.block_until_ready([metrics["loss"] for metrics in self._sums[-1:]])
        begin = time.monotonic()
        yield
        spent = time.monotonic() - begin
        self._begin += spent
        self._run_begin += spent

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of a step, which may still be computing."""
        self._sums.append(metrics)
        if not self._compiled:
            # The first step compiles; rates and the time left are those of the steps after it.
            jax.block_until_ready(metrics["loss"])
            self._compiled = True
            self._begin = self._run_begin = time.monotonic()
            self._run_start += 1
            self._waited = 0.0

    def require_finite(self, step: int, state: TrainState | None = None) -> None:
        """Raises a UserError if a recent loss, or a value in `state`, is not finite."""
        losses = [float(metrics["loss"]) for metrics in self._sums]
        if not all(map(math.isfinite, losses)):
            bad = f"the loss is not finite between steps {self._since + 1} and {step}"
        elif state is not None and not _all_finite(state):
            bad = f"the network is not finite after step {step}"
        else:
            return
        raise UserError(
            f"{bad}: stopped, nothing of it was saved; lower config.optim.learning_rate or set "
            "config.optim.clip_norm, and run the same command to resume from the checkpoint"
        )

    def _require_loss(self, losses: list[float], step: int) -> None:
        """Raises a UserError if the losses were exactly 0 for some time or in the whole run."""
        self._zero_steps = 0 if any(losses) else self._zero_steps + len(losses)
        whole_run = step == self._total_steps and self._zero_steps == step - self._start
        if self._zero_steps >= _ZERO_STEPS or whole_run:
            raise UserError(
                f"the loss was exactly 0 for {self._zero_steps} steps, up to step {step}: no label "
                "contributes to it; check the labels (rmpe prepare reports them)"
            )

    def flush(self, step: int) -> dict[str, float]:
        """Prints the progress line of the steps since the last line and returns its numbers."""
        self.require_finite(step)
        sums = jax.device_get(self._sums)
        self._require_loss([float(m["loss"]) for m in sums], step)
        now = time.monotonic()
        seconds = max(now - self._begin, 1e-9)
        done = step - max(self._since, self._run_start)
        rate = done / seconds
        self._corrupt += int(sum(m["corrupt"] for m in sums))
        means = {
            name: float(np.mean([m[name] for m in sums])) for name in sums[0] if name not in COUNTS
        }
        if "joints" in sums[0]:
            joints = sum(m["joints"] for m in sums)
            means["accuracy"] = float(sum(m["correct"] for m in sums) / max(joints, 1))
        values = {f"train/{name}": value for name, value in means.items()} | {
            "train/samples_per_second": rate * self._batch_size,
            "train/data_wait": min(self._waited / seconds, 1.0),
            "train/corrupt": float(self._corrupt),
        }
        overall = (step - self._run_start) / max(now - self._run_begin, 1e-9)
        left = round((self._total_steps - step) / overall) if overall else 0
        corrupt = f"  {self._corrupt} unreadable" if self._corrupt else ""
        accuracy = f"accuracy {means['accuracy']:.3f}  " if "accuracy" in means else ""
        say(
            f"step {step}/{self._total_steps}  loss {values['train/loss']:.4g}  "
            f"{accuracy}{values['train/samples_per_second']:.0f} samples/s  "
            f"data wait {values['train/data_wait']:.0%}{corrupt}  {duration(left)} left\n"
        )
        self._sums, self._since, self._waited, self._begin = [], step, 0.0, now
        return values


@jax.jit
def _all_finite(state: TrainState) -> Bool[Array, ""]:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def say(text: str) -> None:
    """Writes to stderr; with several processes only the first one writes."""
    if jax.process_index() == 0:
        sys.stderr.write(text)
        sys.stderr.flush()
