"""The configuration of a run: the keys, checks of their values, and the model that they define.

`default_config` gives the `ConfigDict` that files in `configs/` and the command line change;
`parse_config` checks it and turns it into frozen dataclasses, of which functions take the section
that they need.
"""

from rmpe_jax.config.changes import Change, config_changes
from rmpe_jax.config.configdict import default_config, parse_config
from rmpe_jax.config.sections import (
    CodecConfig,
    DataConfig,
    DetectionConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SstnConfig,
)
from rmpe_jax.config.spec import (
    model_spec,
    require_same_network,
    spec_from_dict,
    spec_to_dict,
)

__all__ = [
    "Change",
    "CodecConfig",
    "DataConfig",
    "DetectionConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "SstnConfig",
    "config_changes",
    "default_config",
    "model_spec",
    "parse_config",
    "require_same_network",
    "spec_from_dict",
    "spec_to_dict",
]
