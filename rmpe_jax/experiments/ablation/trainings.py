"""The trainings of the ablation: one first stage, and the second stages that start from it.

The first is the SPPE alone on people's own boxes, like the trained hourglass that the paper starts
from; it also is the frozen parallel SPPE. What is ablated happens in the second. All second stages
have the same number of steps, with a spatial transformer or without, so that nothing that is left
out is trained less.
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


Stage = tuple[ml_collections.ConfigDict, pathlib.Path]  # config and workdir


def first_stage(config: ml_collections.ConfigDict, seed: int, folder: pathlib.Path) -> Stage:
    """The SPPE alone, the same for all trainings of a seed.

    Args:
      config: of the ablation.
      seed: of initial weights and of the order of the data.
      folder: of the ablation.
    """
    stage = _without_ablation(config)
    stage.seed = seed
    return stage, folder / f"seed{seed}" / "first"


def second_stage(
    config: ml_collections.ConfigDict, training: Training, seed: int, folder: pathlib.Path
) -> Stage:
    """The stage that makes the system; arguments as of `first_stage`."""
    stage, before = first_stage(config, seed, folder)
    stage.update(config.ablation.second.to_dict())
    stage.model.init_from = config.ablation.first or str(before)
    stage.data.proposals = training.proposals
    if training.proposals == "atomic":
        stage.data.pgpg_model = str(pgpg_folder(folder) / "pgpg.npz")
    stage.sstn.enabled = training.sstn
    stage.sstn.parallel = stage.model.name if training.parallel else ""
    return stage, folder / f"seed{seed}" / training.name


def stages(
    config: ml_collections.ConfigDict, training: Training, seed: int, folder: pathlib.Path
) -> list[Stage]:
    """Each stage to be trained, in order; arguments as of `first_stage`.

    With `config.ablation.first`, a finished run, there is only the second.
    """
    second = second_stage(config, training, seed, folder)
    return [second] if config.ablation.first else [first_stage(config, seed, folder), second]


def pgpg_folder(folder: pathlib.Path) -> pathlib.Path:
    """Where `rmpe fit-pgpg` writes to, for all seeds."""
    return folder / "pgpg"


def _without_ablation(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    plain = config.copy_and_resolve_references()
    with plain.unlocked():
        del plain["ablation"]
    return plain
