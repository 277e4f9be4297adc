"""CLEAR MOT: misses, false positives and identity switches of tracks, and their sum, MOTA.

Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT
Metrics", EURASIP Journal on Image and Video Processing, 2008. In each frame a person keeps the
track that was matched to them last, if the two may still match. The others are matched so that as
many as possible match, at the lowest total cost. A person who is matched to another track than
before is a switch, also after a time without a match.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int


class FramePairs(NamedTuple):
    """The annotated people and the tracks in one frame, and what it costs to match each pair.

    Attributes:
      gt_ids: identities of the annotated people, all different.
      ids: of the tracks, all different.
      costs: at least 0; infinite for pairs that cannot match.
    """

    gt_ids: Int[np.ndarray, " n"]
    ids: Int[np.ndarray, " m"]
    costs: Float[np.ndarray, "n m"]


class ClearCounts(NamedTuple):
    """Counts over frames, to be summed over videos.

    Attributes:
      people: annotated people.
      matches: people who are matched, switches included.
      false_positives: people in tracks who are not matched.
      switches: matches with another track than before.
    """

    people: int = 0
    matches: int = 0
    false_positives: int = 0
    switches: int = 0

    @property
    def mota(self) -> float:
        """1 minus misses, false positives and switches per annotated person; NaN for nobody."""
        if not self.people:
            return float("nan")
        return (self.matches - self.false_positives - self.switches) / self.people


def count_clear(frames: Iterable[FramePairs]) -> ClearCounts:
    """The counts of one video, whose frames are in the order of time."""
    partners: dict[int, int] = {}
    people = matches = false_positives = switches = 0
    for gt_ids, ids, costs in frames:
        kept = _kept_pairs(gt_ids, ids, costs, partners)
        free = costs.copy()
        free[list(kept)] = np.inf
        free[:, list(kept.values())] = np.inf
        rows, columns = _assign(free)
        pairs = zip(gt_ids[rows].tolist(), ids[columns].tolist(), strict=True)
        for gt_id, track in pairs:
            switches += partners.get(gt_id, track) != track
            partners[gt_id] = track
        count = len(kept) + len(rows)
        people, matches = people + len(gt_ids), matches + count
        false_positives += len(ids) - count
    return ClearCounts(people, matches, false_positives, switches)


def _kept_pairs(
    gt_ids: Int[np.ndarray, " n"],
    ids: Int[np.ndarray, " m"],
    costs: Float[np.ndarray, "n m"],
    partners: dict[int, int],
) -> dict[int, int]:
    """Rows of people and columns of tracks that are matched as before."""
    column_of = {track: column for column, track in enumerate(ids.tolist())}
    kept: dict[int, int] = {}
    for row, gt_id in enumerate(gt_ids.tolist()):
        column = column_of.get(partners.get(gt_id, -1))
        # Two people may have had the same track, one after the other: the first one keeps it.
        if column is not None and np.isfinite(costs[row, column]):
            del column_of[int(ids[column])]
            kept[row] = column
    return kept


def _assign(
    costs: Float[np.ndarray, "n m"],
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Rows and columns of as many pairs of finite costs as possible, at the lowest total cost."""
    finite = np.isfinite(costs)
    if not finite.any():
        return np.zeros(0, int), np.zeros(0, int)
    # One pair that cannot match costs more than all that can.
    too_much = 1 + min(costs.shape) * costs[finite].max()
    rows, columns = scipy.optimize.linear_sum_assignment(np.where(finite, costs, too_much))
    match = finite[rows, columns]
    return rows[match], columns[match]
