"""Smoothed poses of a tracked run, made from the results of its journal.

Each track of each video is smoothed for itself; people without a track stay as they are. Joints
with a score under .3 are not sure: they are not smoothed, and do not pull on others.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from rmpe_jax.predict.formats import ImagePoses, as_written
from rmpe_jax.predict.sequences import Place, Sequences
from rmpe_jax.tracking.smoothing import (
    OneEuroParams,
    OneEuroState,
    one_euro_step,
    smooth_offline,
    start_one_euro,
)

Smoothing = Literal["none", "one-euro", "offline"]

_MIN_SCORE = 0.3  # of a sure joint, as in drawings


class OneEuroSmoother:
    """The One-Euro filter on the results of a run, one by one and in their order."""

    def __init__(self, sequences: Sequences) -> None:
        """Start before the first result."""
        self._sequences, self._params = sequences, OneEuroParams()
        self._video: Hashable = None
        self._tracks: dict[int, tuple[float, OneEuroState]] = {}  # with the time of the last frame

    def add(self, result: ImagePoses) -> ImagePoses:
        """The next result, smoothed from those before it."""
        place, rows = _tracked(self._sequences, result)
        if place is None or not rows.any():
            return result
        time = _time(place, result)
        if place.video.key != self._video:
            self._video, self._tracks = place.video.key, {}
        assert result.track_ids is not None
        ids, poses = result.track_ids[rows].tolist(), result.poses
        start = start_one_euro(poses.keypoints.shape[1])
        states = [self._tracks[i][1] if i in self._tracks else start for i in ids]
        state, keypoints = one_euro_step(
            OneEuroState(*(np.stack(values) for values in zip(*states, strict=True))),
            poses.keypoints[rows],
            _is_sure(result)[rows],
            time,
            _sizes(result)[rows],
            self._params,
        )
        oldest = time - self._params.max_gap
        self._tracks = {i: known for i, known in self._tracks.items() if known[0] >= oldest}
        for row, i in enumerate(ids):
            self._tracks[i] = (time, OneEuroState(*(values[row] for values in state)))
        return _with_keypoints(result, rows, keypoints)


def smoothed(
    results: Iterable[ImagePoses], sequences: Sequences, smoothing: Smoothing
) -> Iterator[ImagePoses]:
    """The results of a journal with smoothed keypoints.

    Args:
      results: in the order of the journal.
      sequences: of the run's inputs.
      smoothing: "one-euro" uses earlier frames only; "offline" the whole video, whose poses are
        held in memory.
    """
    if smoothing == "one-euro":
        yield from map(OneEuroSmoother(sequences).add, results)
        return
    video: list[ImagePoses] = []
    key = None
    for result in results:
        place, rows = _tracked(sequences, result)
        # A frame without tracks may have been appended later, amid the frames of another video.
        if place is not None and rows.any() and place.video.key != key:
            yield from _smoothed_video(video, sequences)
            video, key = [], place.video.key
        video.append(result)
    yield from _smoothed_video(video, sequences)


def _smoothed_video(results: list[ImagePoses], sequences: Sequences) -> list[ImagePoses]:
    """The results of a video, each track smoothed as a whole."""
    tracks: dict[int, list[tuple[int, int, float]]] = {}
    for number, result in enumerate(results):
        place, rows = _tracked(sequences, result)
        if place is not None and result.track_ids is not None:
            for row in np.flatnonzero(rows).tolist():
                track = tracks.setdefault(int(result.track_ids[row]), [])
                track.append((number, row, _time(place, result)))
    keypoints = [result.poses.keypoints.copy() for result in results]
    sure = [_is_sure(result) for result in results]
    for track in tracks.values():
        smooth = smooth_offline(
            np.stack([keypoints[number][row] for number, row, _ in track]).astype(np.float64),
            np.stack([sure[number][row] for number, row, _ in track]),
            np.array([time for *_, time in track]),
        )
        for (number, row, _), pose in zip(track, smooth, strict=True):
            keypoints[number][row] = pose
    everybody = [np.ones(len(each), bool) for each in keypoints]
    pieces = zip(results, everybody, keypoints, strict=True)
    return [_with_keypoints(*piece) for piece in pieces]


def _tracked(
    sequences: Sequences, result: ImagePoses
) -> tuple[Place | None, Bool[np.ndarray, " n"]]:
    """The place of a result, and which of its people have a track."""
    none = np.zeros(len(result.poses.scores), bool)
    rows = none if result.track_ids is None else result.track_ids > 0
    return sequences.place(result.name), rows


def _time(place: Place, result: ImagePoses) -> float:
    """Seconds: of a webcam as measured, since frames are as far apart as the network is slow."""
    return place.time if result.time is None else result.time


def _is_sure(result: ImagePoses) -> Bool[np.ndarray, "n k"]:
    return result.poses.keypoint_scores >= _MIN_SCORE


def _sizes(result: ImagePoses) -> Float[np.ndarray, " n"]:
    """The square root of each box's area, at least a pixel."""
    sides = result.poses.bboxes[:, 2:] - result.poses.bboxes[:, :2]
    return np.sqrt(np.maximum(sides.prod(-1), 1))


def _with_keypoints(
    result: ImagePoses, rows: Bool[np.ndarray, " n"], keypoints: Float[np.ndarray, "m k 2"]
) -> ImagePoses:
    changed = result.poses.keypoints.copy()
    changed[rows] = keypoints
    return result._replace(poses=as_written(result.poses._replace(keypoints=changed)))
