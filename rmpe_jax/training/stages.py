"""Starting from the weights of an earlier run: the stages of RMPE's training.

The first stage trains an SPPE alone. The second trains it inside the spatial transformer, guided by
a frozen copy of itself or by another trained SPPE. Each stage is a run of its own.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rmpe_jax.config import spec_from_dict
from rmpe_jax.config.spec import Spec
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.checkpoints import Variables, load_variables
from rmpe_jax.models import build_sppe
from rmpe_jax.models.spec import DetectorSpec, ModelSpec
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.training.state import TrainState

_OTHER_SHAPES = (
    "the weights there have other shapes than this network's; make config.model and config.sstn "
    "those of that run, or name another workdir"
)


def start_from(state: TrainState, spec: Spec, workdir: str, parallel_from: str = "") -> TrainState:
    """`state` with the weights of an earlier run.

    Averaged parameters are taken where the earlier run has them. An SPPE fills the SPPE of `RMPE`
    and the parallel one, unless `parallel_from` names a run for that; the localization network then
    stays as it is. Of an earlier `RMPE`, each part goes to the part of that name. A run whose
    skeleton has more joints gives the outputs for ours, by their names.

    Args:
      state: of the new run.
      spec: of its network.
      workdir: of the earlier run.
      parallel_from: workdir of a run of the parallel SPPE.

    Raises:
      UserError: a run cannot be read, or its network does not fit.
    """
    earlier = _load(workdir, spec)
    sppe = _sppe(earlier)
    if isinstance(spec, DetectorSpec) or not spec.sstn:
        return _replaced(state, sppe, workdir)
    parts = {"sppe": sppe}
    if "localization" in earlier["params"]:
        parts["localization"] = _part(earlier, "localization")
    if parallel_from:
        parallel = _load(parallel_from, dataclasses.replace(spec, network=spec.parallel))
        parts["parallel_sppe"] = _sppe(parallel)
    elif spec.parallel:
        # A branch that was frozen before stays as it was.
        frozen = "parallel_sppe" in earlier["params"]
        parts["parallel_sppe"] = _part(earlier, "parallel_sppe") if frozen else sppe
    filled = {
        kind: getattr(state, kind)
        | {name: part[kind] for name, part in parts.items() if part[kind]}
        for kind in ("params", "batch_stats")
    }
    return _replaced(state, filled, workdir)


def _load(workdir: str, spec: Spec) -> Variables:
    """The weights of a run of the network of `spec`, for its joints."""
    variables, meta = load_variables(pathlib.Path(workdir) / "checkpoints")
    try:
        found = spec_from_dict(meta["config"])
    except UserError as error:
        raise UserError(f"{workdir}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{workdir}: it has no config of a network; name another") from None
    for key, attribute in (("model.name", "network"), ("codec.loss", "loss")):
        theirs, ours = getattr(found, attribute, None), getattr(spec, attribute, None)
        if theirs != ours:
            raise UserError(
                f"{workdir}: a run of config.{key}={theirs!r} cannot start one of {ours!r}; "
                "name another workdir, or change the config"
            )
    if isinstance(found, ModelSpec) and isinstance(spec, ModelSpec):
        return _with_joints_of(spec, variables, found.skeleton, workdir)
    return variables


def _with_joints_of(
    spec: ModelSpec, variables: Variables, theirs: Skeleton, workdir: str
) -> Variables:
    """Weights of a network for the joints `theirs` as those of one for the joints of `spec`."""
    ours = spec.skeleton
    if ours == theirs:
        return variables
    indices = ours.indices_in(theirs)
    if (indices < 0).any():
        missing = ", ".join(j for j, i in zip(ours.joints, indices, strict=True) if i < 0)
        raise UserError(
            f"{workdir}: a run for {theirs.name} joints lacks {missing}; "
            "name another workdir, or train without model.init_from"
        )

    def pick(theirs: Array, ours: jax.ShapeDtypeStruct) -> Array:
        return theirs if theirs.shape == ours.shape else theirs[..., indices]

    model = build_sppe(spec.network, ours.num_keypoints)
    crops = jnp.zeros((1, *spec.input_size, 3))
    expected = jax.eval_shape(model.init, jax.random.key(0), crops)
    sppe = _sppe(variables)
    if jax.tree.structure(sppe) != jax.tree.structure(dict(expected)):
        raise UserError(f"{workdir}: {_OTHER_SHAPES}")
    return jax.tree.map(pick, sppe, dict(expected))


def _part(variables: Variables, name: str) -> Variables:
    return {kind: tree.get(name, {}) for kind, tree in variables.items()}


def _sppe(variables: Variables) -> Variables:
    """The variables of the SPPE alone, also of one inside `RMPE`."""
    return _part(variables, "sppe") if "sppe" in variables["params"] else variables


def _replaced(state: TrainState, variables: Variables, workdir: str) -> TrainState:
    """`state` with copies of `variables`, which must have the same shapes."""
    ours = {"params": state.params, "batch_stats": state.batch_stats}
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, ours):
        raise UserError(f"{workdir}: {_OTHER_SHAPES}")
    average = None if state.ema_params is None else _copy(variables["params"])
    return state.replace(**_copy(variables), ema_params=average)


def _copy(tree: Any) -> Any:
    """Copies: a buffer that occurs twice in the state could not be donated to the training step."""
    return jax.tree.map(jnp.copy, tree)
