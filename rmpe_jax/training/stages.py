"""Starting from an earlier run's weights: the stages of RMPE's training.

First an SPPE alone, then the SPPE within the spatial transformer, guided by a frozen copy of itself
or by another trained SPPE; each stage is a run of its own.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from rmpe_jax.errors import UserError
from rmpe_jax.training.checkpoints import load_variables
from rmpe_jax.training.state import TrainState

Variables = dict[str, Any]  # "params" and "batch_stats"


def start_from(config: ml_collections.ConfigDict, state: TrainState) -> TrainState:
    """`state` with the weights of the run that `config.model.init_from` names.

    Averaged parameters are taken where the earlier run has them. An SPPE fills the SPPE of `RMPE`
    and the parallel one, unless `config.sstn.parallel_from` names a run for that; the localisation
    network then stays as it is. Of an earlier `RMPE` its parts go to the parts of that name.

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
    """The weights of a run of the network `name` that speaks the config's skeleton and codec."""
    variables, meta = load_variables(pathlib.Path(workdir) / "checkpoints")
    theirs = meta["config"]
    wanted = {
        "model.name": (theirs["model"]["name"], name),
        "model.skeleton": (theirs["model"]["skeleton"], config.model.skeleton),
        "codec.loss": (theirs["codec"]["loss"], config.codec.loss),
    }
    for key, (found, needed) in wanted.items():
        if found != needed:
            raise UserError(
                f"{workdir}: a run of config.{key}={found!r} cannot start one of {needed!r}; "
                "name another workdir, or change the config"
            )
    return variables


def _part(variables: Variables, name: str) -> Variables:
    return {kind: tree.get(name, {}) for kind, tree in variables.items()}


def _sppe(variables: Variables) -> Variables:
    """The SPPE's own, also of a network that has it within `RMPE`."""
    return _part(variables, "sppe") if "sppe" in variables["params"] else variables


def _replaced(state: TrainState, variables: Variables, workdir: str) -> TrainState:
    """`state` with copies of `variables`, which must have its shapes."""
    ours = {"params": state.params, "batch_stats": state.batch_stats}
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, ours):
        raise UserError(
            f"{workdir}: the weights there have other shapes than this network's; make "
            "config.model and config.sstn those of that run, or name another workdir"
        )
    average = None if state.ema_params is None else _copy(variables["params"])
    return state.replace(**_copy(variables), ema_params=average)


def _copy(tree: Any) -> Any:
    """A buffer that stood in the state twice could not be donated to the training step."""
    return jax.tree.map(jnp.copy, tree)
