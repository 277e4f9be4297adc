"""The rows of the table: which training, on which boxes, with which pose NMS."""

import dataclasses

from rmpe_jax.experiments.ablation.trainings import Training


@dataclasses.dataclass(frozen=True)
class Row:
    """A system that is scored.

    Attributes:
      name: of its file.
      title: in the table.
      training: what it was trained with.
      nms: a name that `nms.open_nms` knows, or `learned`: on a split of its own.
      boxes: `detector` or `gt`.
      paper: mAP in the paper's Table 3, on MPII's validation set; None where it has no such row.
    """

    name: str
    title: str
    training: Training
    nms: str = "learned"
    boxes: str = "detector"
    paper: float | None = None


FULL = Training("atomic", sstn=True, parallel=True)

ROWS = (
    Row("full", "RMPE: SSTN, parallel SPPE, PGPG, pose NMS learned", FULL, paper=80.8),
    Row("no_sstn", "without SSTN and parallel SPPE", Training("atomic", False, False), paper=78.2),
    Row("no_parallel", "without parallel SPPE", Training("atomic", True, False), paper=79.1),
    Row("pgpg_none", "without PGPG", Training("none", True, True), paper=73.0),
    Row("pgpg_jitter", "random jittering instead", Training("jitter", True, True), paper=77.9),
    Row("pgpg_global", "PGPG with one Gaussian, the author's", Training("global", True, True)),
    Row("nms_none", "without pose NMS", FULL, "none", paper=75.7),
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
        paper=71.7,
    ),
    Row("gt", "RMPE on ground-truth boxes", FULL, "none", boxes="gt", paper=84.2),
)


def rows_of(trainings: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows of these trainings, by name; all rows if none is named."""
    return tuple(row for row in ROWS if not trainings or row.training.name in trainings)


def trainings_of(rows: tuple[Row, ...]) -> list[Training]:
    """Every training once, in the order of the rows."""
    return list(dict.fromkeys(row.training for row in rows))
