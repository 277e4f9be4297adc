"""The rows of the table: systems to evaluate, and their scores."""

import dataclasses

import numpy as np
from jaxtyping import Float

from rmpe_jax.experiments.ablation.trainings import Training

PAPER_FULL = 80.8  # mAP of the paper's full system


@dataclasses.dataclass(frozen=True)
class Row:
    """A system to evaluate.

    Attributes:
      name: of its file.
      title: in the table.
      training: how it was trained.
      nms: a name for `nms.open_nms`, or `learned`: parameters learned on a split of their own.
      boxes: `detector` or `gt`.
      paper_map: mAP in the paper's Table 3, on MPII's validation set; None if it has no such row.
    """

    name: str
    title: str
    training: Training
    nms: str = "learned"
    boxes: str = "detector"
    paper_map: float | None = None


@dataclasses.dataclass(frozen=True)
class ScoredRow:
    """A row with its scores on one dataset, over seeds; all values in percent.

    Attributes:
      row: the system.
      metric: `AP` or `mAP`.
      values: one per seed.
      deltas: one per seed: the value minus that of the full system of the same seed.
    """

    row: Row
    metric: str
    values: Float[np.ndarray, " s"]
    deltas: Float[np.ndarray, " s"]

    @property
    def paper_delta(self) -> float | None:
        """The same difference in the paper; None if the paper has no such row."""
        return None if self.row.paper_map is None else self.row.paper_map - PAPER_FULL


FULL = Training("atomic", sstn=True, parallel=True)

ROWS = (
    Row("full", "RMPE: SSTN, parallel SPPE, PGPG, pose NMS learned", FULL, paper_map=PAPER_FULL),
    Row(
        "no_sstn",
        "without SSTN and parallel SPPE",
        Training("atomic", False, False),
        paper_map=78.2,
    ),
    Row("no_parallel", "without parallel SPPE", Training("atomic", True, False), paper_map=79.1),
    Row("pgpg_none", "without PGPG", Training("none", True, True), paper_map=73.0),
    Row("pgpg_jitter", "random jittering instead", Training("jitter", True, True), paper_map=77.9),
    Row("pgpg_global", "PGPG with one Gaussian, the author's", Training("global", True, True)),
    Row("nms_none", "without pose NMS", FULL, "none", paper_map=75.7),
    Row("nms_box", "NMS of boxes instead", FULL, "box"),
    Row("nms_oks", "NMS by OKS instead", FULL, "oks"),
    Row("nms_paper", "pose NMS, preset paper", FULL, "paper"),
    Row("nms_rmpe", "pose NMS, preset rmpe", FULL, "rmpe"),
    Row("nms_alphapose", "pose NMS, preset alphapose", FULL, "alphapose"),
    Row(
        "two_step",
        "plain two steps: no SSTN, no PGPG, NMS of boxes",
        Training("none", False, False),
        "box",
        paper_map=71.7,
    ),
    Row("gt", "RMPE on ground-truth boxes", FULL, "none", boxes="gt", paper_map=84.2),
)


def select_rows(trainings: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows with one of these trainings, given by name; all rows if `trainings` is empty."""
    return tuple(row for row in ROWS if not trainings or row.training.name in trainings)


def unique_trainings(rows: tuple[Row, ...]) -> list[Training]:
    """The trainings of the rows, each once, in the order of the rows."""
    return list(dict.fromkeys(row.training for row in rows))
