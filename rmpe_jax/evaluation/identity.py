"""IDF1: how well the tracks of a whole video agree with the people's identities.

Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", ECCV
2016 Workshops. Each annotated person is assigned to at most one track of the video, so that the
number of frames in which the two match is as high as possible. IDF1 is the harmonic mean of the
fraction of the annotated people and of the fraction of the people in tracks that agree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int


class FrameSimilarities(NamedTuple):
    """The annotated people and the tracks in one frame, and how similar they are.

    Attributes:
      gt_ids: identities of the annotated people, all different.
      ids: of the tracks, all different.
      similarities: 0 to 1.
    """

    gt_ids: Int[np.ndarray, " n"]
    ids: Int[np.ndarray, " m"]
    similarities: Float[np.ndarray, "n m"]


class IdentityCounts(NamedTuple):
    """Counts over frames, to be summed over videos.

    Attributes:
      true_positives: people in the track that is assigned to them.
      people: annotated people.
      tracked: people in tracks.
    """

    true_positives: int = 0
    people: int = 0
    tracked: int = 0

    @property
    def idf1(self) -> float:
        """IDF1, a fraction; NaN if there is nobody."""
        total = self.people + self.tracked
        return 2 * self.true_positives / total if total else float("nan")


class IdIndex(NamedTuple):
    """The identities of a video and its tracks, numbered from 0 in the order of their ids.

    Attributes:
      rows: for each frame, the numbers of the annotated people.
      columns: for each frame, the numbers of the tracks.
      people: frames of each identity.
      tracks: frames of each track.
    """

    rows: list[Int[np.ndarray, " _"]]
    columns: list[Int[np.ndarray, " _"]]
    people: Int[np.ndarray, " p"]
    tracks: Int[np.ndarray, " t"]

    def sum_pairs(self, values: Sequence[Float[np.ndarray, "_ _"]]) -> Float[np.ndarray, "p t"]:
        """For each identity and track the sum over frames of the values of this pair."""
        total = np.zeros((len(self.people), len(self.tracks)))
        for rows, columns, value in zip(self.rows, self.columns, values, strict=True):
            total[np.ix_(rows, columns)] += value
        return total


def index_ids(frames: Sequence[FrameSimilarities]) -> IdIndex:
    """Number the identities and tracks of a video."""
    rows, people = _numbered([frame.gt_ids for frame in frames])
    columns, tracks = _numbered([frame.ids for frame in frames])
    return IdIndex(rows, columns, people, tracks)


def count_identities(frames: Sequence[FrameSimilarities], threshold: float = 0.5) -> IdentityCounts:
    """The counts of one video.

    Args:
      frames: of the video, in any order.
      threshold: similarity from which on a person and a track match.
    """
    index = index_ids(frames)
    together = index.sum_pairs([(f.similarities >= threshold).astype(float) for f in frames])
    pairs = scipy.optimize.linear_sum_assignment(-together)
    matched = round(float(together[pairs].sum()))
    return IdentityCounts(matched, int(index.people.sum()), int(index.tracks.sum()))


def _numbered(
    ids: Sequence[Int[np.ndarray, " _"]],
) -> tuple[list[Int[np.ndarray, " _"]], Int[np.ndarray, " p"]]:
    """The number of each id, and how often each occurs."""
    known, counts = np.unique(np.concatenate([np.zeros(0, int), *ids]), return_counts=True)
    return [np.searchsorted(known, of_frame) for of_frame in ids], counts
