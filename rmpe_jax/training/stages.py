"""Starting from an earlier run's weights: the stages of RMPE's training.

First an SPPE alone, then the SPPE within the spatial transformer, guided by a frozen copy of itself
or by another trained SPPE; each stage is a run of its own.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from rmpe_jax.errors import UserError
from rmpe_jax.models import build_sppe
from rmpe_jax.skeletons import get_skeleton
from rmpe_jax.training.checkpoints import load_variables
from rmpe_jax.training.state import TrainState

Variables = dict[str, Any]  # "params" and "batch_stats"

_OTHER_SHAPES = (
    "the weights there have other shapes than this network's; make config.model and config.sstn "
    "those of that run, or name another workdir"
)


def start_from(config: ml_collections.ConfigDict, state: TrainState) -> TrainState:
    """`state` with the weights of the run that `config.model.init_from` names.

    Averaged parameters are taken where the earlier run has them. An SPPE fills the SPPE of `RMPE`
    and the parallel one, unless `config.sstn.parallel_from` names a run for that; the localisation
    network then stays as it is. Of an earlier `RMPE` its parts go to the parts of that name. A run
    whose skeleton has more joints gives the outputs of ours, by their names.

    Raises:
      UserError: a run cannot be read, or its network does not fit.
    """
    workdir = config.model.init_from
    earlier = _load(workdir, config.model.name, config)
    sppe = _sppe(earlier)
    if not config.sstn.enabled:
        return _replaced(state, sppe, workdir)
    parts = {"sppe": sppe}
    if "localization" in earlier["params"]:
        parts["localization"] = _part(earlier, "localization")
    if config.sstn.parallel_from:
        parallel = _load(config.sstn.parallel_from, config.sstn.parallel, config)
        parts["parallel_sppe"] = _sppe(parallel)
    elif config.sstn.parallel:
        # A branch that was frozen before goes on as it was.
        frozen = "parallel_sppe" in earlier["params"]
        parts["parallel_sppe"] = _part(earlier, "parallel_sppe") if frozen else sppe
    filled = {
        kind: getattr(state, kind)
        | {name: part[kind] for name, part in parts.items() if part[kind]}
        for kind in ("params", "batch_stats")
    }
    return _replaced(state, filled, workdir)


def _load(workdir: str, name: str, config: ml_collections.ConfigDict) -> Variables:
    """The weights of a run of the network `name` that speaks the config's codec, for our joints."""
    variables, meta = load_variables(pathlib.Path(workdir) / "checkpoints")
    theirs = meta["config"]
    wanted = {
        "model.name": (theirs["model"]["name"], name),
        "codec.loss": (theirs["codec"]["loss"], config.codec.loss),
    }
    for key, (found, needed) in wanted.items():
        if found != needed:
            raise UserError(
                f"{workdir}: a run of config.{key}={found!r} cannot start one of {needed!r}; "
                "name another workdir, or change the config"
            )
    if theirs["model"]["skeleton"] != config.model.skeleton:
        return _with_our_joints(variables, theirs["model"]["skeleton"], config, workdir)
    return variables


def _with_our_joints(
    variables: Variables, skeleton: str, config: ml_collections.ConfigDict, workdir: str
) -> Variables:
    """Weights of a network for `skeleton` as those of one for the config's joints."""
    ours, theirs = get_skeleton(config.model.skeleton), get_skeleton(skeleton)
    indices = ours.indices_in(theirs)
    if (indices < 0).any():
        missing = ", ".join(j for j, i in zip(ours.joints, indices, strict=True) if i < 0)
        raise UserError(
            f"{workdir}: a run for {skeleton} joints lacks {missing}; "
            "name another workdir, or train without model.init_from"
        )

    def pick(theirs: Array, ours: jax.ShapeDtypeStruct) -> Array:
        return theirs if theirs.shape == ours.shape else theirs[..., indices]

    model = build_sppe(config.model.name, ours.num_keypoints)
    crops = jnp.zeros((1, *config.model.input_size, 3))
    expected = jax.eval_shape(model.init, jax.random.key(0), crops)
    sppe = _sppe(variables)
    if jax.tree.structure(sppe) != jax.tree.structure(dict(expected)):
        raise UserError(f"{workdir}: {_OTHER_SHAPES}")
    return jax.tree.map(pick, sppe, dict(expected))


def _part(variables: Variables, name: str) -> Variables:
    return {kind: tree.get(name, {}) for kind, tree in variables.items()}


def _sppe(variables: Variables) -> Variables:
    """The SPPE's own, also of a network that has it within `RMPE`."""
    return _part(variables, "sppe") if "sppe" in variables["params"] else variables


def _replaced(state: TrainState, variables: Variables, workdir: str) -> TrainState:
    """`state` with copies of `variables`, which must have its shapes."""
    ours = {"params": state.params, "batch_stats": state.batch_stats}
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, ours):
        raise UserError(f"{workdir}: {_OTHER_SHAPES}")
    average = None if state.ema_params is None else _copy(variables["params"])
    return state.replace(**_copy(variables), ema_params=average)


def _copy(tree: Any) -> Any:
    """A buffer that stood in the state twice could not be donated to the training step."""
    return jax.tree.map(jnp.copy, tree)
