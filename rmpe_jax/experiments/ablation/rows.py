"""The rows of the table: systems to evaluate, and their scores."""

import dataclasses

import numpy as np
from jaxtyping import Float

from rmpe_jax.experiments.ablation.trainings import CONTEXT, Training

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Row:
    """A system to evaluate.

    Attributes:
      name: of its file.
      title: in the table.
      training: how it was trained.
      nms: a name for `nms.open_nms`, or `learned`: parameters learned on a split of their own.
      boxes: `detector`, `gt`, or `oracle`: the detector's, with the theta of the well-placed crop;
        `oracle_context`: the same, sampled from a crop that is `CONTEXT` times as large.
      decode: as `config.sstn.decode`.
      paper_map: mAP in the paper's Table 3, on MPII's validation set; None if it has no such row.
    """

    name: str
    title: str
    training: Training
    nms: str = "learned"
    boxes: str = "detector"
    decode: str = "crop"
    paper_map: float | None = None


@dataclasses.dataclass(frozen=True)
class ScoredRow:
    """A row with its scores on one dataset, over seeds; all values in percent.

    Attributes:
      row: the system.
      reference: the system that it is compared to.
      metric: `AP` or `mAP`.
      values: one per seed.
      deltas: one per seed: the value minus that of the reference of the same seed.
      interval: 95 % of the resamples of images and seeds have a mean in it, see
        `evaluation.bootstrap`; None if it is not known.
      delta_interval: likewise, of the difference.
    """

    row: Row
    reference: Row
    metric: str
    values: Float[np.ndarray, " s"]
    deltas: Float[np.ndarray, " s"]
    interval: Interval | None = None
    delta_interval: Interval | None = None

    @property
    def paper_delta(self) -> float | None:
        """The same difference in the paper; None if the paper has no such row."""
        ours, theirs = self.row.paper_map, self.reference.paper_map
        return None if ours is None or theirs is None else ours - theirs


FULL = Training("atomic", sstn=True, parallel=True)
LARGER = Training("atomic", True, True, "differences", CONTEXT)
NO_SSTN = Row(
    "no_sstn",
    "without SSTN and parallel SPPE",
    Training("atomic", sstn=False, parallel=False),
    paper_map=78.2,
)

ROWS = (
    Row("full", "RMPE: SSTN, parallel SPPE, PGPG, pose NMS learned", FULL, paper_map=80.8),
    NO_SSTN,
    Row("no_parallel", "without parallel SPPE", Training("atomic", True, False), paper_map=79.1),
    Row("differences", "guided by differences", Training("atomic", True, True, "differences")),
    Row(
        "no_parallel_differences",
        "guided by differences, without parallel SPPE",
        Training("atomic", True, False, "differences"),
    ),
    Row("no_sstn_no_pgpg", "without SSTN and PGPG", Training("none", False, False)),
    Row(
        "no_sstn_jitter",
        "without SSTN, random jittering of the detector's median IoU instead of PGPG",
        Training("jitter", False, False),
    ),
    Row(
        "no_sstn_global",
        "without SSTN, PGPG with one Gaussian, the author's",
        Training("global", False, False),
    ),
    Row(
        "no_sstn_mixture",
        "without SSTN, PGPG without atoms",
        Training("mixture", False, False),
    ),
    Row("full_view", "decoded in the view", FULL, decode="view"),
    Row(
        "differences_view",
        "guided by differences, decoded in the view",
        Training("atomic", True, True, "differences"),
        decode="view",
    ),
    Row("differences_context", "guided by differences, larger crop", LARGER),
    Row(
        "differences_context_view",
        "guided by differences, larger crop, decoded in the view",
        LARGER,
        decode="view",
    ),
    Row("oracle", "ideal theta before the SPPE without SSTN", NO_SSTN.training, boxes="oracle"),
    Row(
        "oracle_own",
        "ideal theta before an SPPE of people's own boxes",
        Training("none", False, False),
        boxes="oracle",
    ),
    Row(
        "oracle_own_context",
        "ideal theta in a larger crop, before an SPPE of people's own boxes",
        Training("none", False, False),
        boxes="oracle_context",
    ),
    Row("pgpg_none", "without PGPG", Training("none", True, True), paper_map=73.0),
    Row(
        "pgpg_jitter",
        "random jittering instead, of the detector's median IoU",
        Training("jitter", True, True),
        paper_map=77.9,
    ),
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


# Rows that differ from `NO_SSTN` in the spatial transformer or in PGPG alone, and the ceilings.
SSTN_ROWS = (
    "no_sstn_no_pgpg",
    "no_sstn_jitter",
    "no_sstn_global",
    "no_sstn_mixture",
    "full",
    "no_parallel",
    "differences",
    "no_parallel_differences",
    "full_view",
    "differences_view",
    "differences_context",
    "differences_context_view",
    "oracle",
    "oracle_own",
    "oracle_own_context",
)


def select_rows(trainings: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows with one of these trainings, given by name; all rows if `trainings` is empty."""
    return tuple(row for row in ROWS if not trainings or row.training.name in trainings)


def unique_trainings(rows: tuple[Row, ...]) -> list[Training]:
    """The trainings of the rows, each once, in the order of the rows."""
    return list(dict.fromkeys(row.training for row in rows))
