"""Everything a training step changes, and how it starts."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Int

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.codecs.poses import Codec
from rmpe_jax.errors import UserError
from rmpe_jax.models import build_sppe
from rmpe_jax.models.detector import build_detector
from rmpe_jax.models.localization import build_localization
from rmpe_jax.models.rmpe import RMPE
from rmpe_jax.skeletons import get_skeleton
from rmpe_jax.training.optimizers import split_frozen
from rmpe_jax.training.pretrained import load_backbone, load_localization


class TrainState(flax.struct.PyTreeNode):
    """The state of a run.

    Attributes:
      step: how many optimiser steps have been done.
      params: the network's parameters.
      batch_stats: running statistics of the batch norms.
      ema_params: their moving average, or None.
      opt_state: of the trainable parameters.
    """

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    ema_params: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What is evaluated: averaged parameters where there are any."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def build_network(config: ml_collections.ConfigDict) -> tuple[nn.Module, Codec | BoxCodec]:
    """The network of a config and the codec that fits its output.

    That is a detector with a `BoxCodec` if this is the config's task, else an SPPE or one within
    `RMPE`.

    Raises:
      UserError: the network cannot work at this input size.
    """
    if config.model.task == "detection":
        return build_detector(
            config.model.name,
            input_size=tuple(config.model.input_size),
            mean=tuple(config.model.mean),
            std=tuple(config.model.std),
            dtype=jnp.dtype(config.model.dtype),
            bbox_weight=config.detection.bbox_weight,
        )
    num_keypoints = get_skeleton(config.model.skeleton).num_keypoints
    dtype = jnp.dtype(config.model.dtype)
    model = build_sppe(config.model.name, num_keypoints, dtype)
    if config.sstn.enabled:
        parallel = config.sstn.parallel
        model = RMPE(
            sppe=model,
            localization=build_localization(config.sstn.localization, dtype),
            parallel_sppe=build_sppe(parallel, num_keypoints, dtype) if parallel else None,
            logits=config.codec.loss != "mse",
        )
    codec = Codec(
        loss=config.codec.loss,
        input_size=tuple(config.model.input_size),
        heatmap_size=_heatmap_size(config, model),
        sigma=config.codec.sigma,
        integer_centre=config.codec.integer_centre,
        decode=config.codec.decode,
        mean=tuple(config.model.mean),
        std=tuple(config.model.std),
        alignment=config.codec.alignment,
    )
    return model, codec


def _heatmap_size(config: ml_collections.ConfigDict, model: nn.Module) -> tuple[int, int]:
    shapes = jax.eval_shape(model.init, jax.random.key(0), _crops(config))
    output = jax.eval_shape(model.apply, shapes, _crops(config))
    last = output[-1] if isinstance(output, list) else output
    return tuple(last.shape[1:3])


def init_state(
    config: ml_collections.ConfigDict, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state at step 0, a pure function of the config's seed and backbone weights."""
    variables = jax.jit(model.init)(jax.random.key(config.seed), _crops(config))
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if config.model.backbone_weights:
        load_backbone(config, _sppe(config, params), _sppe(config, batch_stats))
    if config.sstn.localization_weights:
        load_localization(config, params, batch_stats)
    if config.optim.backbone_factor != 1 and "backbone" not in _sppe(config, params):
        raise UserError(
            f"config.optim.backbone_factor: {config.model.name} has no part called backbone; "
            "leave it at 1, or use a model of the small family"
        )
    trainable, _ = split_frozen(params, config.optim.frozen)
    if not trainable:
        raise UserError(f"config.optim.frozen={config.optim.frozen!r} freezes all parameters")
    ema_params = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        ema_params=ema_params,
        opt_state=optimizer.init(trainable),
    )


def _crops(config: ml_collections.ConfigDict) -> jax.Array:
    return jnp.zeros((1, *config.model.input_size, 3), jnp.float32)


def _sppe(config: ml_collections.ConfigDict, tree: dict) -> dict:
    """The part of parameters or statistics that is the SPPE's."""
    return tree["sppe"] if config.sstn.enabled else tree
