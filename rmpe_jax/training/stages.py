"""Starting from the weights of a trained network: the stages of RMPE's training, and fine-tuning.

The first stage trains an SPPE alone. The second trains it inside the spatial transformer, guided by
a frozen copy of itself or by another trained SPPE. Each stage is a run of its own.
"""

import dataclasses
import logging
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rmpe_jax.config.spec import Spec
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.checkpoints import Variables
from rmpe_jax.model_io.read import read_network
from rmpe_jax.models import build_sppe
from rmpe_jax.models.spec import DetectorSpec, ModelSpec
from rmpe_jax.models.vitpose import PATCH, resample_positions
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.training.state import TrainState

_OTHER_SHAPES = (
    "the weights there have other shapes than this network's; make config.model and config.sstn "
    "those of that network, or name another"
)


def start_from(state: TrainState, spec: Spec, source: str, parallel_from: str = "") -> TrainState:
    """`state` with the weights of a trained network.

    Of a run, the last checkpoint is taken, with averaged parameters where it has them. An SPPE
    fills the SPPE of `RMPE` and the parallel one, unless `parallel_from` names a network for that;
    the localization network then stays as it is. Of an earlier `RMPE`, each part goes to the part
    of that name. Outputs of joints are matched by the joints' names. Joints that the trained
    network lacks keep their initial outputs, and the log names them.

    Args:
      state: of the new run.
      spec: of its network.
      source: what `model_io.read.read_network` reads: a workdir, a model file, "builtin" or
        "builtin-small", a folder of Hugging Face or an "hf:" name.
      parallel_from: likewise, of the parallel SPPE.

    Raises:
      UserError: a network cannot be read, or does not fit.
    """
    ours = state.latest
    earlier = _load(source, spec, _sppe(ours))
    sppe = _sppe(earlier)
    if isinstance(spec, DetectorSpec) or not spec.sstn:
        return _replaced(state, sppe, source)
    parts = {"sppe": sppe}
    if "localization" in earlier["params"]:
        parts["localization"] = _part(earlier, "localization")
    if parallel_from:
        parallel_spec = dataclasses.replace(spec, network=spec.parallel)
        parallel = _load(parallel_from, parallel_spec, _part(ours, "parallel_sppe"))
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
    return _replaced(state, filled, source)


def _load(source: str, spec: Spec, ours: Variables) -> Variables:
    """The weights of a network like that of `spec`, for its joints.

    `ours` are the initial variables of the SPPE, which joints that `source` lacks keep.
    """
    what = "detector" if isinstance(spec, DetectorSpec) else "pose network"
    found, variables, _ = read_network(source, what, "last", keep_parallel=True)
    for key, attribute in (("model.name", "network"), ("codec.loss", "loss")):
        theirs, wanted = getattr(found, attribute, None), getattr(spec, attribute, None)
        if theirs != wanted:
            raise UserError(
                f"{source}: a network of config.{key}={theirs!r} cannot start one of {wanted!r}; "
                "name another, or change the config"
            )
    # Those of files are NumPy arrays, without "batch_stats" where there are none.
    variables = jax.tree.map(jnp.asarray, {"params": {}, "batch_stats": {}} | variables)
    if isinstance(found, ModelSpec) and isinstance(spec, ModelSpec):
        if found.input_size != spec.input_size and not spec.has_heatmaps:
            raise UserError(
                f"{source}: {spec.network} works only at the input size of its training: set "
                f"config.model.input_size to {found.input_size}"
            )
        _warn_of_other_inputs(source, found, spec)
        variables = _for_input_size(spec.view_size, variables, found.view_size)
        return _with_joints_of(spec, ours, variables, found.skeleton, source)
    return variables


def _warn_of_other_inputs(source: str, found: ModelSpec, spec: ModelSpec) -> None:
    """Weights go on working with other inputs, but not as well."""
    differing = []
    for key, name in (
        ("model.mean", "mean"),
        ("model.std", "std"),
        ("codec.alignment", "alignment"),
        ("transformer.norm_epsilon", "transformer.norm_epsilon"),
        ("transformer.expert", "transformer.expert"),
    ):
        theirs, ours = map(operator.attrgetter(name), (found, spec))
        if theirs != ours:
            differing.append(f"{key} {theirs} there, {ours} here")
    # Of what the SPPE sees, which is the STN's view.
    theirs, ours = found.view_padding, spec.view_padding
    if not math.isclose(theirs, ours, rel_tol=1e-6):
        differing.append(f"data.padding {theirs:.6g} there, {ours:.6g} here")
    if differing:
        line = "%s was trained with other settings: %s; training has to make up for that"
        logging.getLogger(__name__).warning(line, source, "; ".join(differing))


def _for_input_size(
    size: tuple[int, int], variables: Variables, trained_at: tuple[int, int]
) -> Variables:
    """Interpolates the position embeddings of vision transformers, if there are any."""
    if size == trained_at:
        return variables
    grids = [(height // PATCH, width // PATCH) for height, width in (trained_at, size)]

    def resize(path: tuple, leaf: Array) -> Array:
        is_positions = path[-1].key == "pos_embed"
        return resample_positions(leaf, *grids) if is_positions else leaf

    return jax.tree.map_with_path(resize, variables)


def _with_joints_of(
    spec: ModelSpec, ours: Variables, variables: Variables, theirs: Skeleton, source: str
) -> Variables:
    """Weights of a network for the joints `theirs` as those of one for the joints of `spec`."""
    if spec.skeleton == theirs:
        return variables
    indices = spec.skeleton.indices_in(theirs)
    known = indices >= 0
    if not known.all():
        missing = [
            j for j, is_known in zip(spec.skeleton.joints, known, strict=True) if not is_known
        ]
        line = "%s, for %s joints, lacks %d of %d joints, which start anew: %s"
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        log = logging.getLogger(__name__)
        log.warning(line, source, theirs.name, len(missing), len(known), names)

    def pick(theirs: Array, ours: Array, is_output: bool) -> Array:
        if not is_output:
            return theirs
        if theirs.shape[:-1] != ours.shape[:-1]:
            raise UserError(f"{source}: {_OTHER_SHAPES}")
        return jnp.asarray(ours).at[..., known].set(theirs[..., indices[known]])

    sppe, outputs = _sppe(variables), _outputs(spec)
    if not jax.tree.structure(sppe) == jax.tree.structure(ours) == jax.tree.structure(outputs):
        raise UserError(f"{source}: {_OTHER_SHAPES}")
    return jax.tree.map(pick, sppe, ours, outputs)


def _outputs(spec: ModelSpec) -> Variables:
    """Which variables of the SPPE have one entry for each joint, along their last axis."""
    image = jax.ShapeDtypeStruct((1, *spec.view_size, 3), jnp.float32)
    fewer, more = (
        jax.eval_shape(build_sppe(spec.network, count).init, jax.random.key(0), image)
        for count in (spec.skeleton.num_keypoints, spec.skeleton.num_keypoints + 1)
    )
    differ = jax.tree.map(lambda a, b: a.shape != b.shape, fewer, more)
    return {"params": {}, "batch_stats": {}} | dict(differ)


def _part(variables: Variables, name: str) -> Variables:
    return {kind: tree.get(name, {}) for kind, tree in variables.items()}


def _sppe(variables: Variables) -> Variables:
    """The variables of the SPPE alone, also of one inside `RMPE`."""
    return _part(variables, "sppe") if "sppe" in variables["params"] else variables


def _replaced(state: TrainState, variables: Variables, source: str) -> TrainState:
    """`state` with copies of `variables`, which must have the same shapes."""
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, state.latest):
        raise UserError(f"{source}: {_OTHER_SHAPES}")
    ema = None if state.ema is None else _copy(variables)
    return state.replace(**_copy(variables), ema=ema)


def _copy(tree: Any) -> Any:
    """Copies: a buffer that occurs twice in the state could not be donated to the training step."""
    return jax.tree.map(jnp.copy, tree)
