"""From the `ConfigDict` that users change to the frozen dataclasses that functions take."""

import dataclasses
from typing import Any

import ml_collections

from rmpe_jax.config import renamed
from rmpe_jax.config.sections import RunConfig
from rmpe_jax.config.validation import validate


def default_config() -> ml_collections.ConfigDict:
    """All keys with their defaults. Lists are tuples, which the command line can change."""
    values = dataclasses.asdict(RunConfig())
    sections = {
        name: renamed.Section(value) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    return ml_collections.ConfigDict(sections).lock()


def parse_config(config: ml_collections.ConfigDict) -> RunConfig:
    """The checked config.

    Args:
      config: of `default_config`, changed. Keys that it has in addition are not read.

    Raises:
      UserError: names the first key whose value is invalid.
    """
    config = _with_new_values(config)
    validate(config)
    return _parse(RunConfig, config)


def _with_new_values(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    config = config.copy_and_resolve_references()
    for (name, old), new in renamed.VALUES.items():
        section, _, key = name.partition(".")
        if config[section][key] == old:
            renamed.warn(f"config.{name}={old!r}", repr(new))
            config[section][key] = new
    return config


def _parse(kind: Any, values: Any) -> Any:
    """An instance of the dataclass `kind`, with its sections, from values of the same names."""
    fields = {field.name: (field.type, values[field.name]) for field in dataclasses.fields(kind)}
    return kind(
        **{
            name: _parse(of, value) if dataclasses.is_dataclass(of) else value
            for name, (of, value) in fields.items()
        }
    )
