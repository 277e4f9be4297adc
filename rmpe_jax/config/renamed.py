"""Old names of config keys and values: they keep working, and a warning gives the new name."""

import logging
from typing import Any

import ml_collections

KEYS = {"codec.integer_centre": "codec.integer_center"}
SECTIONS = {name.partition(".")[0] for name in KEYS}
VALUES = {("codec.alignment", "centre"): "center"}


class Section(ml_collections.ConfigDict):
    """A part of a config that also answers to the old names of its keys."""

    def __getattr__(self, attribute: str) -> Any:
        return super().__getattr__(_new_name(attribute))

    def __setattr__(self, attribute: str, value: Any) -> None:
        super().__setattr__(_new_name(attribute), value)

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(_new_name(key))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(_new_name(key), value)


_SHORT = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in KEYS.items()}


def _new_name(key: str) -> str:
    if key in _SHORT:
        warn(key, _SHORT[key])
    return _SHORT.get(key, key)


def warn(old: str, new: str) -> None:
    """One line on stderr that gives the new name."""
    logging.getLogger(__name__).warning("%s is now called %s; the old name still works", old, new)


def renamed(content: dict[str, Any]) -> dict[str, Any]:
    """The stored config of a checkpoint or a model file, with today's keys and values.

    Args:
      content: sections, each a dict; other entries are kept as they are.
    """
    found = {
        name: dict(section) if isinstance(section, dict) else section
        for name, section in content.items()
    }
    for old, new in KEYS.items():
        section, _, key = old.partition(".")
        if isinstance(found.get(section), dict) and key in found[section]:
            found[section][new.rpartition(".")[2]] = found[section].pop(key)
    for (name, old), new in VALUES.items():
        section, _, key = name.partition(".")
        if isinstance(found.get(section), dict) and found[section].get(key) == old:
            found[section][key] = new
    return found
