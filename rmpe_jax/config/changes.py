"""What differs between the config of a checkpoint and that of the run that continues it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from rmpe_jax.config.renamed import renamed
from rmpe_jax.config.sections import RunConfig

# Keys that neither the trained parameters nor what is computed with them depend on.
WITHOUT_EFFECT = frozenset(
    {
        "log_every",
        "checkpoint_every",
        "evaluate_every",
        "profile_steps",
        "sharding",  # it changes only rounding, as the number of devices does
        "data.evaluate",
        "data.strict",
        "data.max_suspicious",
        "data.num_threads",
        "data.num_workers",
        "data.prefetch",
    }
)
# Keys that the trained parameters do not depend on.
_EXACT = WITHOUT_EFFECT | {"codec.decode", "codec.blur_sigma", "sstn.decode", "detection.test_size"}


class Change(NamedTuple):
    """A config key whose value has changed.

    Attributes:
      key: such as `optim.learning_rate`.
      old: its value before.
      new: its value now.
      exact: the continued run still gives the parameters that a single training gives.
    """

    key: str
    old: Any
    new: Any
    exact: bool

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} -> {self.new!r}"


def config_changes(old: Mapping[str, Any], new: RunConfig) -> list[Change]:
    """The keys whose values differ, in the order of `RunConfig`.

    Args:
      old: the stored config of a checkpoint. Keys that older versions did not have get their
        defaults, which are what these versions did.
      new: the config of the run.
    """
    before = _flat(dataclasses.asdict(RunConfig())) | _flat(renamed(dict(old)))
    after = _flat(dataclasses.asdict(new))
    exact = set(_EXACT)
    if "cosine" not in (before["optim.schedule"], after["optim.schedule"]):
        exact.add("total_steps")  # no other schedule depends on it
    return [
        Change(key, before[key], value, key in exact)
        for key, value in after.items()
        if before[key] != value
    ]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values by keys such as `optim.name`, with tuples instead of JSON's lists."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in _flat(value).items()}
        else:
            flat[key] = tuple(value) if isinstance(value, list) else value
    return flat
