"""The trainings of the ablation: a first stage for each way to draw boxes, and second stages of it.

Both stages of every training have the same number of steps, with a spatial transformer or without:
what a row leaves out is not made up for by less training.
"""

import dataclasses
import pathlib

import ml_collections


@dataclasses.dataclass(frozen=True)
class Training:
    """What a system is trained with.

    Attributes:
      proposals: boxes that people are cropped by, as `config.data.proposals`.
      sstn: the second stage has the symmetric spatial transformer.
      parallel: and the parallel SPPE beside it.
    """

    proposals: str
    sstn: bool
    parallel: bool

    @property
    def name(self) -> str:
        """Such as `atomic_sstn_parallel`, also the folder's name."""
        parts = [self.proposals, "sstn" * self.sstn, "parallel" * self.parallel]
        return "_".join(filter(None, parts))


def first_stage(
    config: ml_collections.ConfigDict, training: Training, seed: int, folder: pathlib.Path
) -> tuple[ml_collections.ConfigDict, pathlib.Path]:
    """Config and workdir of the SPPE alone.

    Args:
      config: of the ablation.
      training: to which it is the start.
      seed: of initial weights and of the order of the data.
      folder: of the ablation.
    """
    stage = _without_ablation(config)
    stage.seed = seed
    stage.data.proposals = training.proposals
    if training.proposals == "atomic":
        stage.data.pgpg_model = str(pgpg_folder(folder) / "pgpg.npz")
    return stage, folder / f"seed{seed}" / f"first_{training.proposals}"


def second_stage(
    config: ml_collections.ConfigDict, training: Training, seed: int, folder: pathlib.Path
) -> tuple[ml_collections.ConfigDict, pathlib.Path]:
    """Config and workdir of the stage that makes the system; arguments as of `first_stage`."""
    stage, before = first_stage(config, training, seed, folder)
    stage.update(config.ablation.second.to_dict())
    stage.model.init_from = config.ablation.first or str(before)
    stage.sstn.enabled = training.sstn
    stage.sstn.parallel = stage.model.name if training.parallel else ""
    return stage, folder / f"seed{seed}" / training.name


def stages(
    config: ml_collections.ConfigDict, training: Training, seed: int, folder: pathlib.Path
) -> list[tuple[ml_collections.ConfigDict, pathlib.Path]]:
    """Config and workdir of each stage to be trained, in order; arguments as of `first_stage`.

    With `config.ablation.first`, a finished run, there is only the second.
    """
    second = second_stage(config, training, seed, folder)
    if config.ablation.first:
        return [second]
    return [first_stage(config, training, seed, folder), second]


def pgpg_folder(folder: pathlib.Path) -> pathlib.Path:
    """Where `rmpe fit-pgpg` writes to, for all seeds."""
    return folder / "pgpg"


def _without_ablation(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    plain = config.copy_and_resolve_references()
    with plain.unlocked():
        del plain["ablation"]
    return plain
