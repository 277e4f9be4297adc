"""HOTA: one number for finding people and for telling who is who.

Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021, as
computed by the authors' TrackEval. For each of 19 thresholds of the similarity, DetA is the Jaccard
index of the people who are found, and AssA is the mean over matched people of the Jaccard index of
the person's identity with the track. HOTA is the mean over the thresholds of their geometric mean.

People and tracks are matched frame by frame, at the highest sum of similarity times the pair's
alignment over the whole video; the thresholds then drop pairs that are not similar enough.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float

from rmpe_jax.evaluation.identity import FrameSimilarities, index_ids

THRESHOLDS = np.arange(1, 20) / 20


class HotaCounts(NamedTuple):
    """Sums over frames at each of `THRESHOLDS`, to be summed over videos.

    Attributes:
      matches: pairs of a person and a track.
      misses: people without a track.
      false_positives: people in tracks who are not matched.
      association: sum over the matches of the Jaccard index of the identity and the track.
    """

    matches: Float[np.ndarray, " a"]
    misses: Float[np.ndarray, " a"]
    false_positives: Float[np.ndarray, " a"]
    association: Float[np.ndarray, " a"]

    @property
    def by_threshold(self) -> tuple[Float[np.ndarray, " a"], Float[np.ndarray, " a"]]:
        """DetA and AssA at each threshold, as fractions; NaN for DetA if there is nobody."""
        total = self.matches + self.misses + self.false_positives
        det = self.matches / np.where(total > 0, total, np.nan)
        return det, self.association / np.maximum(self.matches, 1)

    @property
    def hota(self) -> float:
        """The mean over the thresholds of the geometric mean of DetA and AssA."""
        det, ass = self.by_threshold
        return float(np.sqrt(det * ass).mean())

    @property
    def deta(self) -> float:
        """The mean of DetA."""
        return float(self.by_threshold[0].mean())

    @property
    def assa(self) -> float:
        """The mean of AssA."""
        return float(self.by_threshold[1].mean())


def count_hota(frames: Sequence[FrameSimilarities]) -> HotaCounts:
    """The sums of one video, whose frames are in any order."""
    index = index_ids(frames)
    people, tracks = index.people[:, None], index.tracks
    shared = index.sum_pairs([_jaccard(frame.similarities) for frame in frames])
    alignment = shared / np.maximum(people + tracks - shared, 1e-12)
    matches = np.zeros((len(THRESHOLDS), *shared.shape))
    for frame, rows, columns in zip(frames, index.rows, index.columns, strict=True):
        weight = alignment[np.ix_(rows, columns)] * frame.similarities
        pairs = scipy.optimize.linear_sum_assignment(-weight)
        enough = frame.similarities[pairs] >= THRESHOLDS[:, None] - np.finfo(float).eps
        matches[:, rows[pairs[0]], columns[pairs[1]]] += enough
    jaccard = matches / np.maximum(people + tracks - matches, 1)
    count = matches.sum((1, 2))
    association = (matches * jaccard).sum((1, 2))
    return HotaCounts(count, people.sum() - count, tracks.sum() - count, association)


def _jaccard(similarities: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """The similarity of each pair as a fraction of all similarities of its person and its track."""
    total = similarities.sum(0) + similarities.sum(1, keepdims=True) - similarities
    return similarities / np.maximum(total, 1e-12)
