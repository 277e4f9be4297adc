"""The state of a run, and its value at step 0."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from rmpe_jax.config import OptimConfig
from rmpe_jax.config.spec import Spec
from rmpe_jax.errors import UserError
from rmpe_jax.models.spec import ModelSpec
from rmpe_jax.training.optimizers import split_frozen
from rmpe_jax.training.pretrained import load_backbone, load_localization


class TrainState(flax.struct.PyTreeNode):
    """The state of a run.

    Attributes:
      step: number of optimizer steps done.
      params: the network's parameters.
      batch_stats: running statistics of the batch norms.
      ema: moving averages of "params" and "batch_stats", or None.
      opt_state: of the trainable parameters.
    """

    step: Any  # an int32 scalar; `jax.tree.map` may put anything here
    params: Any
    batch_stats: Any
    ema: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables to evaluate: the averages if there are any."""
        return self.latest if self.ema is None else self.ema

    @property
    def latest(self) -> dict[str, Any]:
        """The variables of the last step."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_variables(
    spec: Spec,
    model: nn.Module,
    seed: int,
    *,
    backbone_weights: str = "",
    localization_weights: str = "",
) -> dict[str, Any]:
    """Initial "params" and "batch_stats", a pure function of the seed and of weight files.

    Args:
      spec: of the network.
      model: built from it.
      seed: of the random values.
      backbone_weights: of a backbone for the SPPE, of ImageNet, MAE, MoveNet; empty: random values.
      localization_weights: file of torchvision's ResNet-18 for the localization network, likewise.

    Raises:
      UserError: a file cannot be used for this network.
    """
    images = jnp.zeros((1, *spec.input_size, 3), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(seed), images)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if backbone_weights:
        sppe = params.get("sppe", params), batch_stats.get("sppe", batch_stats)
        is_pose = isinstance(spec, ModelSpec)
        size = spec.view_size if is_pose else spec.input_size
        joints = spec.skeleton.joints if is_pose else ()
        load_backbone(backbone_weights, spec.network, size, *sppe, joints)
    if localization_weights:
        load_localization(localization_weights, params, batch_stats)
    return {"params": params, "batch_stats": batch_stats}


def init_state(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, optim: OptimConfig
) -> TrainState:
    """The state at step 0.

    Args:
      variables: of `init_variables`.
      optimizer: of `build_optimizer`.
      optim: what is frozen, and whether there are averages.

    Raises:
      UserError: no parameters are left to train, or there is no backbone for `backbone_factor`.
    """
    params = variables["params"]
    if optim.backbone_factor != 1 and "backbone" not in params.get("sppe", params):
        raise UserError(
            "config.optim.backbone_factor: this network has no part called backbone; leave it at "
            "1, or use a model of the small family"
        )
    trainable, _ = split_frozen(params, optim.frozen)
    if not trainable:
        raise UserError(f"config.optim.frozen={optim.frozen!r} freezes all parameters")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        ema=jax.tree.map(jnp.copy, dict(variables)) if optim.ema_decay else None,
        opt_state=optimizer.init(trainable),
    )
