"""The trainings of the ablation: one first stage, and second stages that start from it.

The first stage is the SPPE alone on people's own boxes, like the trained hourglass that the paper
starts from. It is also the frozen parallel SPPE. The second stages differ in the ablated parts.
All have the same number of steps, with or without a spatial transformer, so that no system is
trained for fewer steps than another.
"""

import dataclasses
import pathlib

import ml_collections

from rmpe_jax.experiments.ablation.config import AblationConfig


@dataclasses.dataclass(frozen=True)
class Training:
    """How a system is trained.

    Attributes:
      proposals: boxes to crop people by, as `config.data.proposals`.
      sstn: the second stage has the symmetric spatial transformer.
      parallel: the second stage has the parallel SPPE.
    """

    proposals: str
    sstn: bool
    parallel: bool

    @property
    def name(self) -> str:
        """Such as `atomic_sstn_parallel`; also the name of the folder."""
        parts = [self.proposals, "sstn" * self.sstn, "parallel" * self.parallel]
        return "_".join(filter(None, parts))


Stage = tuple[ml_collections.ConfigDict, pathlib.Path]  # config and workdir


def first_stage(ablation: AblationConfig, seed: int, folder: pathlib.Path) -> Stage:
    """The SPPE alone, the same for all trainings of a seed.

    Args:
      ablation: its settings.
      seed: of initial weights and of the order of the data.
      folder: of the ablation.
    """
    stage = ablation.first_stage.copy_and_resolve_references()
    stage.seed = seed
    return stage, folder / f"seed{seed}" / "first"


def second_stage(
    ablation: AblationConfig, training: Training, seed: int, folder: pathlib.Path
) -> Stage:
    """The second stage of a training; other arguments as of `first_stage`."""
    stage, before = first_stage(ablation, seed, folder)
    stage.update(ablation.second)
    stage.model.init_from = ablation.first or str(before)
    stage.data.proposals = training.proposals
    if training.proposals == "atomic":
        stage.data.pgpg_model = str(pgpg_folder(folder) / "pgpg.npz")
    stage.sstn.enabled = training.sstn
    stage.sstn.parallel = stage.model.name if training.parallel else ""
    return stage, folder / f"seed{seed}" / training.name


def stages(
    ablation: AblationConfig, training: Training, seed: int, folder: pathlib.Path
) -> list[Stage]:
    """The stages to train, in order; other arguments as of `first_stage`.

    If `ablation.first` names a finished run, there is only the second stage.
    """
    second = second_stage(ablation, training, seed, folder)
    return [second] if ablation.first else [first_stage(ablation, seed, folder), second]


def pgpg_folder(folder: pathlib.Path) -> pathlib.Path:
    """The output folder of `rmpe fit-pgpg`, for all seeds."""
    return folder / "pgpg"
