"""Optax optimizers and learning-rate schedules."""

import functools
import re

import optax
from flax import traverse_util

from rmpe_jax.config import OptimConfig, SstnConfig

Params = dict


def learning_rate(optim: OptimConfig, total_steps: int) -> optax.Schedule:
    """The schedule over steps: warm-up from 0, then constant, cosine to 1 %, or steps of ten."""
    peak, warmup = optim.learning_rate, optim.warmup_steps
    after = max(total_steps - warmup, 1)
    match optim.schedule:
        case "constant":
            schedule = optax.constant_schedule(peak)
        case "cosine":
            schedule = optax.cosine_decay_schedule(peak, after, alpha=0.01)
        case _:
            drops = {step - warmup: 0.1 for step in optim.milestones}
            schedule = optax.piecewise_constant_schedule(peak, drops)
    if not warmup:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), schedule], [warmup])


def build_optimizer(
    optim: OptimConfig, total_steps: int, sstn: SstnConfig
) -> optax.GradientTransformation:
    """The optimizer of the trainable parameters, a flat dict by path (see `split_frozen`).

    Args:
      optim: which optimizer and schedule.
      total_steps: length of the run, at which the schedule ends.
      sstn: factor on the learning rate of the submodule "localization", and its warm-up.
    """
    schedule = learning_rate(optim, total_steps)
    match optim.name:
        case "adam":
            update = optax.scale_by_adam()
        case "adamw":
            decay = optax.add_decayed_weights(optim.weight_decay, mask=_decays)
            update = optax.chain(optax.scale_by_adam(), decay)
        case _:
            # Torch7's RMSprop, as in the RMPE code: alpha 0.99, epsilon 1e-8, no momentum.
            update = optax.scale_by_rms(decay=0.99, eps=1e-8, eps_in_sqrt=False)
    parts = [update, optax.scale_by_learning_rate(schedule)]
    if optim.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(optim.clip_norm))
    factors = {"backbone": optim.backbone_factor, "localization": sstn.localization_factor}
    for name, factor in factors.items():
        if factor != 1:
            parts.append(optax.masked(optax.scale(factor), functools.partial(_is_in, name)))
    if sstn.localization_warmup:
        rise = optax.linear_schedule(0.0, 1.0, sstn.localization_warmup)
        is_localization = functools.partial(_is_in, "localization")
        parts.append(optax.masked(optax.scale_by_schedule(rise), is_localization))
    if optim.layer_decay != 1:
        parts.append(optax.stateless(functools.partial(_decay_by_layer, optim.layer_decay)))
    return optax.chain(*parts)


def _decays(params: Params) -> dict[str, bool]:
    """Biases, the scales of norms and position embeddings have no weight decay."""
    return {
        path: value.ndim > 1 and not path.endswith("pos_embed") for path, value in params.items()
    }


def _decay_by_layer(rate: float, updates: Params, params: Params) -> Params:
    """Updates times `rate` to the power of the layers between a parameter and the end.

    Layer 0 of a vision transformer is the embedding, layers 1 to n are its blocks, and layer n + 1,
    whose updates stay as they are, is the rest: the last norm and the head (BEiT, ICLR 2022).
    """
    layers = {path: layer for path in updates if (layer := layer_of(path)) is not None}
    last = max(layers.values(), default=0) + 1
    return {
        path: update * rate ** (last - layers.get(path, last)) for path, update in updates.items()
    }


def layer_of(path: str) -> int | None:
    """The layer of a vision transformer's parameter: 0 for embeddings, i + 1 for block i.

    Args:
      path: such as `backbone/blocks_3/attn/qkv/kernel`.

    Returns:
      None if it is in neither.
    """
    if block := re.search(r"(?:^|/)backbone/blocks_(\d+)/", path):
        return int(block[1]) + 1
    return 0 if re.search(r"(?:^|/)backbone/(pos_embed$|patch_embed/)", path) else None


def _is_in(name: str, params: Params) -> dict[str, bool]:
    """Which parameters belong to a submodule called `name`, at any depth."""
    return {path: name in path.split("/") for path in params}


def split_frozen(params: Params, frozen: str) -> tuple[Params, Params]:
    """(trainable, frozen) parameters, as flat dicts keyed by path, such as `head/conv_out/kernel`.

    RMPE's parallel SPPE is always frozen.

    Args:
      params: the nested tree.
      frozen: a regular expression that is searched in each path; empty: nothing else is frozen.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    kept = {path for path in flat if frozen and re.search(frozen, path)}
    kept |= {path for path in flat if path.startswith("parallel_sppe/")}
    trainable = {path: value for path, value in flat.items() if path not in kept}
    return trainable, {path: flat[path] for path in flat if path in kept}


def join_frozen(trainable: Params, frozen: Params) -> Params:
    """The nested tree of the two parts of `split_frozen`."""
    return traverse_util.unflatten_dict({**trainable, **frozen}, sep="/")
