"""From the `ConfigDict` that users change to the frozen dataclasses that functions take."""

import dataclasses
from typing import Any, cast

import ml_collections

from rmpe_jax.config import renamed
from rmpe_jax.config.sections import RunConfig
from rmpe_jax.config.validation import validate


def default_config() -> ml_collections.ConfigDict:
    """All keys with their defaults. Lists are tuples, which the command line can change."""
    values = dataclasses.asdict(RunConfig())
    sections = {
        name: renamed.Section(cast(Any, value)) if name in renamed.SECTIONS else value
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
    complete = _over_defaults(config)
    validate(complete)
    return _parse(RunConfig, complete)


def _over_defaults(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The defaults with the values of `config`, old names replaced and other keys left out.

    Keys that `config` lacks, as a config of an earlier version may, have their defaults.
    """
    given = config.copy_and_resolve_references().to_dict()
    for (name, old), new in renamed.VALUES.items():
        section, _, key = name.partition(".")
        if given.get(section, {}).get(key) == old:
            renamed.warn(f"config.{name}={old!r}", repr(new))
    given = renamed.renamed(given)
    complete = default_config()
    for key, default in complete.items():
        value = given.get(key, default)
        if isinstance(default, ml_collections.ConfigDict):
            for name, known in default.items():
                if name in value:
                    is_tuple = isinstance(known, tuple)
                    complete[key][name] = tuple(value[name]) if is_tuple else value[name]
        else:
            complete[key] = tuple(value) if isinstance(default, tuple) else value
    return complete


def _parse(kind: Any, values: Any) -> Any:
    """An instance of the dataclass `kind`, with its sections, from values of the same names."""
    fields = {field.name: (field.type, values[field.name]) for field in dataclasses.fields(kind)}
    return kind(
        **{
            name: _parse(of, value) if dataclasses.is_dataclass(of) else value
            for name, (of, value) in fields.items()
        }
    )
