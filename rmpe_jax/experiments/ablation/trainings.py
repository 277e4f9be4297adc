"""The trainings of the ablation: one first stage, and stages that start from it.

The first stage is the SPPE alone on people's own boxes, like the trained hourglass that the paper
starts from. It is also the frozen parallel SPPE, unless the ablation has a separate teacher, which
is trained likewise. The second stages differ in the ablated parts.
All have the same number of steps, with or without a spatial transformer, so that no system is
trained for fewer steps than another. If the ablation has localization stages, each training with a
spatial transformer has one between the two, in which its SPPE is frozen: it gets no step more.
"""

import dataclasses
import pathlib
from typing import Any

import ml_collections

from rmpe_jax.experiments.ablation.config import AblationConfig
from rmpe_jax.files import read_json
from rmpe_jax.ops.geometry import CropSpec

CONTEXT = 1.5  # of the trainings with larger crops


@dataclasses.dataclass(frozen=True)
class Training:
    """How a system is trained.

    Attributes:
      proposals: boxes to crop people by, as `config.data.proposals`; or `mixture`: PGPG without
        atoms, one mixture for all poses.
      sstn: the second stage has the symmetric spatial transformer.
      parallel: the second stage has the parallel SPPE.
      guidance: of the spatial transformer, as `config.sstn.guidance`.
      context: as `config.sstn.context`. The views are as large as the crops of the first stage, so
        crops are larger and show more around people.
    """

    proposals: str
    sstn: bool
    parallel: bool
    guidance: str = "autodiff"
    context: float = 1.0

    @property
    def name(self) -> str:
        """Such as `atomic_sstn_parallel`; also the name of the folder."""
        parts = [self.proposals, "sstn" * self.sstn, "parallel" * self.parallel]
        parts.append(self.guidance * (self.guidance != "autodiff"))
        parts.append("context" * (self.context != 1))
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


def teacher_stage(ablation: AblationConfig, seed: int, folder: pathlib.Path) -> Stage:
    """The parallel SPPE alone, where it is a separate network; arguments as of `first_stage`."""
    stage, _ = first_stage(ablation, seed, folder)
    stage.update(ablation.teacher)
    return stage, folder / f"seed{seed}" / "teacher"


def localization_stage(
    ablation: AblationConfig, training: Training, seed: int, folder: pathlib.Path
) -> Stage:
    """The stage of a training with SSTN in which only the localization network learns.

    Other arguments as of `first_stage`.
    """
    stage = _continued(ablation, training, seed, folder)
    stage.update(ablation.localization)
    stage.optim.frozen = "^sppe/"
    return stage, folder / f"seed{seed}" / f"{training.name}_localization"


def second_stage(
    ablation: AblationConfig, training: Training, seed: int, folder: pathlib.Path
) -> Stage:
    """The second stage of a training; other arguments as of `first_stage`."""
    stage = _continued(ablation, training, seed, folder)
    if training.sstn and ablation.localization:
        _, before = localization_stage(ablation, training, seed, folder)
        stage.model.init_from = str(before)
    return stage, folder / f"seed{seed}" / training.name


def stages(
    ablation: AblationConfig, training: Training, seed: int, folder: pathlib.Path
) -> list[Stage]:
    """The stages to train, in order; other arguments as of `first_stage`.

    If `ablation.first` names a finished run, there is no first stage.
    """
    made = [] if ablation.first else [first_stage(ablation, seed, folder)]
    if training.parallel and ablation.teacher:
        made.append(teacher_stage(ablation, seed, folder))
    if training.sstn and ablation.localization:
        made.append(localization_stage(ablation, training, seed, folder))
    return [*made, second_stage(ablation, training, seed, folder)]


def pgpg_folder(folder: pathlib.Path) -> pathlib.Path:
    """The output folder of `rmpe fit-pgpg`, for all seeds."""
    return folder / "pgpg"


def mixture_folder(folder: pathlib.Path) -> pathlib.Path:
    """Likewise, of PGPG without atoms."""
    return pgpg_folder(folder) / "mixture"


def jitter_path(folder: pathlib.Path) -> pathlib.Path:
    """The file with the `strength` of random jitter that matches the detector, for all seeds."""
    return pgpg_folder(folder) / "jitter.json"


def _continued(
    ablation: AblationConfig, training: Training, seed: int, folder: pathlib.Path
) -> Any:
    """The config of a stage after the first."""
    stage, before = first_stage(ablation, seed, folder)
    stage.update(ablation.second)
    stage.model.init_from = ablation.first or str(before)
    stage.data.proposals = training.proposals
    fits = {"atomic": pgpg_folder(folder), "mixture": mixture_folder(folder)}
    if training.proposals in fits:
        stage.data.proposals = "atomic"
        stage.data.pgpg_model = str(fits[training.proposals] / "pgpg.npz")
    # Configs are also checked before there is data, which the strength is found from.
    if training.proposals == "jitter" and jitter_path(folder).exists():
        stage.data.jitter_strength = read_json(jitter_path(folder), "jitter file")["strength"]
    stage.sstn.enabled = training.sstn
    stage.sstn.parallel = stage.model.name if training.parallel else ""
    if training.parallel and ablation.teacher:
        teacher, workdir = teacher_stage(ablation, seed, folder)
        stage.sstn.parallel, stage.sstn.parallel_from = teacher.model.name, str(workdir)
    stage.sstn.guidance = training.guidance
    if training.context != 1:
        crop = CropSpec(stage.model.input_size, stage.data.padding)
        crop = crop.with_context(training.context)
        stage.sstn.context = training.context
        stage.model.input_size, stage.data.padding = crop.input_size, crop.padding
    return stage
