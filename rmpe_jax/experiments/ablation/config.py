"""The settings of an ablation: the section `config.ablation`, and the config of the first stage."""

import dataclasses
import json
import logging
import pathlib
from typing import Any

import ml_collections

from rmpe_jax.config import config_changes, parse_config
from rmpe_jax.config.changes import WITHOUT_EFFECT
from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json, to_json, write_json


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """A dataset to report results on, and another one to learn pose NMS on.

    Attributes:
      data: the dataset, such as `coco:FOLDER:val2017`.
      boxes: its detections file.
      fit_data: the dataset to learn pose NMS on.
      fit_boxes: its detections file.
    """

    data: str
    boxes: str
    fit_data: str
    fit_boxes: str


@dataclasses.dataclass(frozen=True)
class AblationConfig:
    """An ablation.

    Attributes:
      first_stage: config of the first stage; `second` changes it for second stages.
      seeds: of the trainings.
      trainings: names of the trainings to run; empty: all that the rows need.
      first: workdir of a finished first stage; empty: each seed trains one.
      second: keys of the config that second stages change, in sections.
      scenes_folder: folder of the synthetic scenes.
      scenes: synthetic scenes to draw: subfolder, and (first seed, number of scenes).
      pgpg: data to fit PGPG to: for each dataset its spec, then detections files.
      nms_steps: values of each parameter of pose NMS per search.
      sets: datasets to report results on, by name.
      localization: keys of the config that localization stages change, in sections, after `second`.
        Each training with SSTN has such a stage before its second one, which trains the
        localization network alone. Empty: there is none.
      teacher: keys of the config that change the first stage into that of the parallel SPPE, in
        sections. Empty: the SPPE of the first stage is also the parallel one.
    """

    first_stage: ml_collections.ConfigDict
    seeds: tuple[int, ...]
    trainings: tuple[str, ...]
    first: str
    second: dict[str, Any]
    scenes_folder: str
    scenes: dict[str, tuple[int, int]]
    pgpg: tuple[tuple[str, ...], ...]
    nms_steps: int
    sets: dict[str, EvaluationSet]
    localization: dict[str, Any] = dataclasses.field(default_factory=dict)
    teacher: dict[str, Any] = dataclasses.field(default_factory=dict)


def parse_ablation(config: ml_collections.ConfigDict) -> AblationConfig:
    """The settings of a config with a section `ablation`.

    Args:
      config: such as that of configs/ablation_synthetic.py. Additional keys are not read.

    Raises:
      UserError: the section or one of its keys is missing.
    """
    if "ablation" not in config:
        raise UserError("it has no config.ablation; name configs/ablation_synthetic.py")
    first_stage = config.copy_and_resolve_references()
    section = _values("config.ablation", first_stage.ablation.to_dict(), AblationConfig)
    with first_stage.unlocked():
        del first_stage["ablation"]
    sets = {
        name: EvaluationSet(**_values(f"config.ablation.sets.{name}", values, EvaluationSet))
        for name, values in section["sets"].items()
    }
    return AblationConfig(**section | {"first_stage": first_stage, "sets": sets})


def require_same_settings(ablation: AblationConfig, folder: pathlib.Path) -> None:
    """Checks that earlier results in a folder have the same settings; they are not made again.

    Without results, the settings are written to `settings.json`. Seeds and trainings may differ
    later. Changes of the first stage that do not change results, such as `log_every`, are logged.

    Args:
      ablation: its settings.
      folder: of the ablation.

    Raises:
      UserError: the settings differ, or the folder cannot be used.
    """
    path = folder / "settings.json"
    run = parse_config(ablation.first_stage)
    settings = dataclasses.asdict(ablation) | {"first_stage": dataclasses.asdict(run)}
    del settings["seeds"], settings["trainings"]
    settings = json.loads(to_json(settings, path))  # as they are read again
    has_results = any(folder.glob("seed*")) or any(folder.glob("pgpg/*"))
    if has_results and not path.exists():
        line = "%s has results but no settings.json: they are taken for results of this config"
        logging.getLogger(__name__).warning(line, folder)
    if not has_results or not path.exists():
        write_json(path, settings)
        return
    earlier = {"localization": {}, "teacher": {}} | read_json(path, "settings file")
    try:
        changes = config_changes(earlier.pop("first_stage"), run)
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path} has no settings of an ablation: use another workdir") from None
    differing = [str(change) for change in changes if change.key not in WITHOUT_EFFECT] + [
        f"ablation.{key}: {earlier[key]!r} -> {settings[key]!r}"
        for key in sorted(earlier.keys() & settings.keys())
        if earlier[key] != settings[key]
    ]
    if differing:
        raise UserError(
            f"{folder} has results of other settings ({differing[0]}): "
            "use the same config, or another workdir"
        )
    for change in changes:
        logging.getLogger(__name__).warning("config changed: %s", change)


def _values(name: str, content: dict[str, Any], kind: Any) -> dict[str, Any]:
    """The values of the fields of a dataclass, except `first_stage`; lists become tuples."""
    fields = [field for field in dataclasses.fields(kind) if field.name != "first_stage"]
    names = [f.name for f in fields if f.default_factory is dataclasses.MISSING]
    if missing := [key for key in names if key not in content]:
        raise UserError(f"{name} has no {missing[0]!r}: add it; it must have {', '.join(names)}")
    return {
        field.name: tuple(value) if isinstance(value, list) else value
        for field in fields
        if (value := content.get(field.name)) is not None
    }
