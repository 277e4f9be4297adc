"""One training step as a pure function: gradient, update, average."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from rmpe_jax.training.mesh import Layout
from rmpe_jax.training.objectives import Batch, Metrics, Objective
from rmpe_jax.training.optimizers import join_frozen, split_frozen
from rmpe_jax.training.state import TrainState

COUNTS = ("correct", "joints", "corrupt")  # metrics that add up; the others are means


def make_train_step(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    frozen: str = "",
    ema_decay: float = 0.0,
    grad_accumulation: int = 1,
    seed: int = 0,
    layout: Layout | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """(state, batch) -> (state, metrics); to be compiled with the state donated.

    Metrics are means over the batch, or `COUNTS`. Only trainable parameters are differentiated, so
    frozen ones cost no backward pass.

    Args:
      model: `model.apply(variables, objective.inputs(batch), train=True)` gives its outputs.
      objective: the loss of these outputs; the batch also has "corrupt", see `data.pipeline`.
      optimizer: of the trainable parameters.
      frozen: as in `split_frozen`.
      ema_decay: of the averages, if the state has them.
      grad_accumulation: number of parts that the batch is processed in, one after the other, with
        averaged gradients; batch norms see one part at a time.
      seed: of the random numbers that networks draw in training, which also depend on the step.
      layout: of the state over devices. Parameters that it divides are gathered once a step, and
        their gradients are divided again; optimizer and averages see only shards. None: the
        compiler decides.
    """

    def loss_fn(trainable, frozen_params, batch_stats, batch, key):
        variables = {"params": join_frozen(trainable, frozen_params), "batch_stats": batch_stats}
        inputs = objective.inputs(batch)
        outputs, moved = model.apply(
            variables, inputs, train=True, mutable=["batch_stats"], rngs={"drop_path": key}
        )
        loss, metrics = objective.loss(outputs, batch)
        return loss, (moved.get("batch_stats", {}), metrics | {"loss": loss})

    def part(trainable, frozen_params, batch_stats, batch, key):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (_, (batch_stats, metrics)), grads = grad_fn(
            trainable, frozen_params, batch_stats, batch, key
        )
        return layout.scatter(grads) if layout else grads, batch_stats, metrics

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        trainable, frozen_params = split_frozen(state.params, frozen)
        used, used_frozen = trainable, frozen_params
        if layout:
            used, used_frozen = layout.gather((trainable, frozen_params))
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if grad_accumulation == 1:
            grads, batch_stats, metrics = part(used, used_frozen, state.batch_stats, batch, key)
        else:
            grads, batch_stats, metrics = _accumulate(
                lambda stats, piece, key: part(used, used_frozen, stats, piece, key),
                state.batch_stats,
                batch,
                jax.random.split(key, grad_accumulation),
            )
        updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
        moved: Any = optax.apply_updates(trainable, updates)
        params = join_frozen(moved, frozen_params)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            ema=_average(state, params, batch_stats, ema_decay),
            opt_state=opt_state,
        )
        return new_state, metrics | {"corrupt": batch["corrupt"].sum(dtype=jnp.float32)}

    return train_step


def _accumulate(part: Callable, batch_stats: Any, batch: Batch, keys: Key[Array, " parts"]):
    """Mean gradient and loss over as many pieces of the batch as there are keys, in sequence."""
    parts = len(keys)
    # Piece j takes rows j, j + parts, ...: each device's part of the batch stays on the device.
    pieces = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)

    def body(carried, piece_and_key):
        batch_stats, sums = carried
        grads, batch_stats, metrics = part(batch_stats, *piece_and_key)
        return (batch_stats, jax.tree.map(jnp.add, sums, grads)), metrics

    # The gradients are summed on the way, so that those of one piece are in memory at a time.
    first = jax.tree.map(lambda x: x[0], (pieces, keys))
    shapes, *_ = jax.eval_shape(part, batch_stats, *first)
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    (batch_stats, sums), metrics = jax.lax.scan(body, (batch_stats, zeros), (pieces, keys))
    grads = jax.tree.map(lambda g: g / parts, sums)
    metrics = {name: v.sum(0) if name in COUNTS else v.mean(0) for name, v in metrics.items()}
    return grads, batch_stats, metrics


def _average(state: TrainState, params: Any, batch_stats: Any, decay: float) -> Any:
    """The moving averages; they decay faster at first, so that the initial values fade soon.

    The statistics of batch norms are averaged like the parameters. Those of the last steps would
    belong to the last parameters, not to their average.
    """
    if state.ema is None:
        return None
    rate = 1 - jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    # In this form the average of a constant parameter equals it to the last bit.
    latest = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(lambda ema, new: ema + rate * (new - ema), state.ema, latest)
