"""One training step as a pure function: gradient, update, average."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.codecs.poses import Codec
from rmpe_jax.models.rmpe import TrainingOutputs
from rmpe_jax.ops import geometry
from rmpe_jax.ops.losses import heatmap_accuracy
from rmpe_jax.ops.spatial_transformer import placement_error, theta_size
from rmpe_jax.training.optimizers import join_frozen, split_frozen
from rmpe_jax.training.state import TrainState

Batch = dict[str, Array]
Metrics = dict[str, Array]

COUNTS = ("right", "joints", "corrupt")  # metrics that add up, the others are means


def make_train_step(
    config: ml_collections.ConfigDict,
    model: nn.Module,
    codec: Codec | BoxCodec,
    optimizer: optax.GradientTransformation,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """(state, batch) -> (state, metrics); to be compiled with the state donated.

    Metrics are means over the batch, or `COUNTS`. What is learned
    follows from the codec: poses or boxes.

    Only trainable parameters are differentiated, so frozen ones cost no backward pass. With
    `grad_accumulation` the batch is worked through in parts whose gradients are averaged, and batch
    norms see one part at a time.
    """

    def loss_fn(trainable, frozen, batch_stats, batch):
        variables = {"params": join_frozen(trainable, frozen), "batch_stats": batch_stats}
        inputs = codec.inputs(batch["image"])
        outputs, moved = model.apply(variables, inputs, train=True, mutable=["batch_stats"])
        if isinstance(codec, BoxCodec):
            loss, metrics = boxes_loss(codec, outputs, batch)
        else:
            loss, metrics = pose_loss(config, codec, outputs, batch)
        return loss, (moved.get("batch_stats", {}), metrics | {"loss": loss})

    def part(trainable, frozen, batch_stats, batch):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (_, (batch_stats, metrics)), grads = grad_fn(trainable, frozen, batch_stats, batch)
        return grads, batch_stats, metrics

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        trainable, frozen = split_frozen(state.params, config.optim.frozen)
        parts = config.grad_accumulation
        if parts == 1:
            grads, batch_stats, metrics = part(trainable, frozen, state.batch_stats, batch)
        else:
            grads, batch_stats, metrics = _accumulate(
                lambda stats, piece: part(trainable, frozen, stats, piece),
                state.batch_stats,
                batch,
                parts,
            )
        updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
        moved: Any = optax.apply_updates(trainable, updates)
        params = join_frozen(moved, frozen)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            ema_params=_average(state, params, config.optim.ema_decay),
            opt_state=opt_state,
        )
        return new_state, metrics | {"corrupt": batch["corrupt"].sum(dtype=jnp.float32)}

    return train_step


def pose_loss(
    config: ml_collections.ConfigDict, codec: Codec, outputs: Any, batch: Batch
) -> tuple[Array, Metrics]:
    """The loss of an SPPE's or `RMPE`'s outputs, and metrics."""
    loss, metrics = 0.0, {}
    if isinstance(outputs, TrainingOutputs):
        loss, metrics = sstn_loss(config, codec, outputs, batch)
        outputs = outputs.heatmaps
    loss += codec.loss_of(outputs, batch["keypoints"], batch["weights"])
    predicted, _ = codec.keypoints(codec.heatmaps(jax.lax.stop_gradient(outputs)))
    right, counted = heatmap_accuracy(
        predicted, batch["keypoints"], batch["weights"], codec.input_size
    )
    return loss, metrics | {"right": right, "joints": counted}


def boxes_loss(codec: BoxCodec, outputs: Array, batch: Batch) -> tuple[Array, Metrics]:
    """The loss of a detector's outputs, and its two parts."""
    heat, boxes = codec.losses_of(outputs, batch["bboxes"], batch["weights"], batch["ignored"])
    return heat + boxes, {"heat_loss": heat, "bbox_loss": boxes}


def sstn_loss(
    config: ml_collections.ConfigDict, codec: Codec, outputs: TrainingOutputs, batch: Batch
) -> tuple[Array | float, Metrics]:
    """The loss of what guides the STN, and metrics of the spatial transformer.

    The parallel SPPE's target is the pose in the frame of the well-placed crop, wherever the STN
    looks; joints outside of the crop, which it cannot bring in, do not count (RMPE, §3.1).
    `placement_weight`, which is ours, tells the STN outright where that crop is.
    """
    centred_from_crop = batch["centred_from_crop"]
    metrics = {"placement": placement_error(outputs.theta, centred_from_crop, codec.input_size)}
    metrics |= theta_size(outputs.theta)
    told = config.sstn.placement_weight * metrics["placement"]
    if outputs.parallel_heatmaps is None:
        return told, metrics
    keypoints = geometry.transform_points(centred_from_crop, batch["keypoints"])
    loss = codec.loss_of(outputs.parallel_heatmaps, keypoints, batch["weights"])
    return told + config.sstn.parallel_weight * loss, metrics | {"parallel_loss": loss}


def _accumulate(part: Callable, batch_stats: Any, batch: Batch, parts: int):
    """Mean gradient and loss over `parts` pieces of the batch, in sequence."""
    # Piece j takes rows j, j + parts, ...: each device's share of the batch stays on the device.
    pieces = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)

    def body(batch_stats, piece):
        grads, batch_stats, metrics = part(batch_stats, piece)
        return batch_stats, (grads, metrics)

    batch_stats, (grads, metrics) = jax.lax.scan(body, batch_stats, pieces)
    grads = jax.tree.map(lambda g: g.mean(0), grads)
    metrics = {name: v.sum(0) if name in COUNTS else v.mean(0) for name, v in metrics.items()}
    return grads, batch_stats, metrics


def _average(state: TrainState, params: Any, decay: float) -> Any:
    """The moving average; it forgets faster at first, so that the start does not linger."""
    if state.ema_params is None:
        return None
    share = 1 - jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    # In this form a parameter that stays as it is has itself as its average, to the last bit.
    return jax.tree.map(lambda ema, new: ema + share * (new - ema), state.ema_params, params)
