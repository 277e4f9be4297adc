"""The model that a config defines, and its form in checkpoints and model files."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

from rmpe_jax.config.configdict import default_config, parse_config
from rmpe_jax.config.renamed import renamed
from rmpe_jax.config.sections import RunConfig
from rmpe_jax.errors import UserError
from rmpe_jax.models.spec import DetectorSpec, ModelSpec
from rmpe_jax.models.vitpose import TransformerOptions
from rmpe_jax.skeletons import Skeleton, get_skeleton

Spec = ModelSpec | DetectorSpec

_KINDS = {"pose": ModelSpec, "detection": DetectorSpec}  # by `config.model.task`
# The config keys that define a model, and the attribute of a spec that holds each. Keys that a spec
# of its kind lacks do not concern it.
_ATTRIBUTES = {
    "model.name": "network",
    "model.skeleton": "skeleton",
    "codec.loss": "loss",
    "sstn.enabled": "sstn",
    "sstn.localization": "localization",
    "sstn.decode": "sstn_decode",
    "sstn.context": "context",
    "model.input_size": "input_size",
    "model.dtype": "dtype",
    "model.mean": "mean",
    "model.std": "std",
    "codec.sigma": "sigma",
    "codec.integer_center": "integer_center",
    "codec.decode": "decode",
    "codec.alignment": "alignment",
    "codec.blur_sigma": "blur_sigma",
    "data.padding": "padding",
    "detection.test_size": "test_size",
}
# Options of a transformer that are stored with it; what computes its attention depends on the
# machine.
_TRANSFORMER_NAMES = tuple(
    field.name for field in dataclasses.fields(TransformerOptions) if field.name != "attention"
)
# Those that weights depend on: with another value they are another network's.
_IDENTITY = (
    "model.task",
    "model.name",
    "model.skeleton",
    "codec.loss",
    "sstn.enabled",
    "sstn.localization",
    "sstn.context",
)


def model_spec(run: RunConfig) -> Spec:
    """The model of a run, with what training adds to it: the parallel SPPE and its guidance."""
    kind = _KINDS[run.model.task]
    names = {field.name for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {
        name: functools.reduce(getattr, key.split("."), run)
        for key, name in _ATTRIBUTES.items()
        if name in names
    }
    if kind is ModelSpec:
        differences = run.sstn.guidance == "differences"
        values |= {
            "skeleton": get_skeleton(run.model.skeleton),
            "parallel": run.sstn.parallel,
            "difference_step": run.sstn.difference_step if differences else None,
            "transformer": run.transformer,
        }
    return kind(**values)


def spec_to_dict(spec: Spec) -> dict[str, dict[str, Any]]:
    """The config of a model, for JSON: sections of the keys that define it; no parallel SPPE."""
    task = next(task for task, kind in _KINDS.items() if isinstance(spec, kind))
    content: dict[str, dict[str, Any]] = {"model": {"task": task}}
    for key, name in _ATTRIBUTES.items():
        if hasattr(spec, name):
            section, _, short = key.partition(".")
            value = getattr(spec, name)
            value = value.name if isinstance(value, Skeleton) else value
            content.setdefault(section, {})[short] = value
    if isinstance(spec, ModelSpec):
        stored, default = map(_stored_options, (spec.transformer, TransformerOptions()))
        if stored != default:
            content["transformer"] = stored
    return content


def _stored_options(options: TransformerOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in _TRANSFORMER_NAMES}


def spec_from_dict(content: Mapping[str, Any]) -> Spec:
    """The model of a stored config, a part of it or a whole one.

    Keys that older versions did not have get their defaults, which are what these versions did.

    Raises:
      UserError: a value is invalid.
      AttributeError, KeyError, TypeError, ValueError: it is not a config.
    """
    content = renamed(dict(content))
    config = default_config()
    transformer = (f"transformer.{name}" for name in _TRANSFORMER_NAMES)
    for key in ("model.task", *_ATTRIBUTES, *transformer):
        section, _, short = key.partition(".")
        value = content.get(section, {}).get(short, config[section][short])
        config[section][short] = tuple(value) if isinstance(value, list) else value
    if config.model.task == "detection" and "test_size" not in content["detection"]:
        raise KeyError("detection.test_size")
    return model_spec(parse_config(config))


def require_same_network(source: str | os.PathLike, found: Spec, wanted: Spec) -> None:
    """Checks that weights of one network can be used in another.

    Args:
      source: of the weights, for messages.
      found: the network that they are of.
      wanted: the network that they are wanted for.

    Raises:
      UserError: names the first key whose values differ.
    """
    contents = spec_to_dict(found), spec_to_dict(wanted)
    for key in _IDENTITY:
        section, _, short = key.partition(".")
        theirs, ours = (content.get(section, {}).get(short) for content in contents)
        if theirs != ours:
            raise UserError(
                f"{source}: the checkpoint is of config.{key}={theirs!r}, the config says "
                f"{ours!r}; use the config it was trained with, or another workdir"
            )
