"""Track ids for the people of a run: the tracker of `rmpe_jax.tracking`, frame after frame.

Each video has its own ids, from 1. The tracker sees the poses as the journal stores them, so the
journal's frames bring it to the same state again when a run is resumed.
"""

import functools
import logging
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from rmpe_jax.data.tracks import TrackedPeople
from rmpe_jax.inference.poses import Poses
from rmpe_jax.ops.padding import bucket_size
from rmpe_jax.predict.formats import ImagePoses, as_written
from rmpe_jax.predict.sequences import Place, Sequences
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.tracking import Detections, TrackParams, TrackState, start_tracks, track_frame

MAX_TRACKS = 64  # people at a time, those out of sight included
_SMALLEST_BUCKET = 32  # people of a frame are padded to 32, 64, 128, ...


class Track(NamedTuple):
    """One person in one video, for the report of a run.

    Attributes:
      video: name of the video or folder.
      track_id: unique in the video.
      first: number of the first frame.
      last: number of the last frame.
      num_frames: in which the person was found.
      frame_rate: frames per second.
    """

    video: str
    track_id: int
    first: int
    last: int
    num_frames: int
    frame_rate: float


def describe_lengths(lengths: Sequence[int]) -> str:
    """Such as `12 tracks of 3 to 240 frames, median 88`."""
    if not lengths:
        return "no tracks"
    if len(lengths) == 1:
        return f"1 track of {_frames(lengths[0])}"
    if min(lengths) == max(lengths):
        return f"{len(lengths):,} tracks of {_frames(lengths[0])}"
    middle = sorted(lengths)[len(lengths) // 2]
    return (
        f"{len(lengths):,} tracks of {min(lengths):,} to {max(lengths):,} frames, median {middle:,}"
    )


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count:,} frames"


class RunTracker:
    """Gives track ids to the poses of a run, which must come in the order of the frames."""

    def __init__(
        self, sequences: Sequences, skeleton: Skeleton, params: TrackParams | None = None
    ) -> None:
        """Start before the first frame."""
        self._sequences, self._skeleton = sequences, skeleton
        self._params = params or TrackParams()
        self._videos: dict[Hashable, _VideoTracker] = {}
        self._current: _VideoTracker | None = None
        self._tracks: dict[tuple[Hashable, int], Track] = {}

    def replay(self, result: ImagePoses) -> None:
        """Follow a result of an earlier run's journal; all of them, in their order, before `add`.

        People whom the tracker recognizes later get the ids that they have in the journal. People
        before a webcam are others after a pause, and get new ids.
        """
        place, ids = self._sequences.place(result.name), result.track_ids
        if place is None:
            return
        if ids is None:  # nobody is there
            ids = np.full(len(result.poses.scores), -1, np.int32)
        video = self._video_of(place)
        numbers = np.full_like(ids, -1) if place.video.is_live else video.track(place.index, result)
        for number, track_id in zip(numbers.tolist(), ids.tolist(), strict=True):
            video.remember(number, track_id)
        self._count(place, ids)

    def add(self, result: ImagePoses) -> ImagePoses:
        """The result with track ids, and with poses as the journal stores them.

        People who fit no track and are too doubtful to start one get -1. So do all people of a
        frame that comes after a later frame of its video, or after a frame of the next video: a
        frame that failed in an earlier run.
        """
        result = result._replace(poses=as_written(result.poses))
        place = self._sequences.place(result.name)
        if place is None:  # the inputs changed while they were read
            return result._replace(track_ids=np.full(len(result.poses.scores), -1, np.int32))
        video = self._video_of(place)
        ids = video.ids_of(video.track(place.index, result))
        self._count(place, ids)
        return result._replace(track_ids=ids)

    def tracks(self) -> list[Track]:
        """All tracks so far, those of earlier runs included, by video and id."""
        rank = {key: i for i, key in enumerate(self._videos)}
        keys = sorted(self._tracks, key=lambda key: (rank[key[0]], key[1]))
        return [self._tracks[key] for key in keys]

    def warn_of_missing_room(self) -> None:
        """Count in the log who should have started a track, but there were too many."""
        count = sum(video.num_without_room() for video in self._videos.values())
        if count:
            line = "people without a track, because there were %d already in their frame: %d"
            logging.getLogger(__name__).warning(line, MAX_TRACKS, count)

    def _video_of(self, place: Place) -> "_VideoTracker":
        """The tracker of the frame's video. A video that is new ends the one before."""
        key = place.video.key
        if key not in self._videos:
            if self._current is not None:
                self._current.end()
            self._current = self._videos[key] = _VideoTracker(self._skeleton, self._params)
        return self._videos[key]

    def _count(self, place: Place, ids: Int[np.ndarray, " n"]) -> None:
        for track_id in ids[ids > 0].tolist():
            key = (place.video.key, track_id)
            earlier = self._tracks.get(key)
            self._tracks[key] = Track(
                place.video.name,
                track_id,
                place.index if earlier is None else earlier.first,
                place.index,
                1 if earlier is None else earlier.num_frames + 1,
                place.video.frame_rate,
            )


class _VideoTracker:
    """The tracker of one video, and the ids in the files for the tracker's own numbers.

    They are the same, except if the tracker does not give the ids of an earlier run again, because
    lines of the journal are lost or the machine is another.
    """

    def __init__(self, skeleton: Skeleton, params: TrackParams) -> None:
        self._params = params
        self._sigmas, self._num_keypoints = skeleton.sigmas, skeleton.num_keypoints
        self._state: TrackState | None = start_tracks(MAX_TRACKS, self._num_keypoints)
        self._index = -1  # of the last frame
        self._ids: dict[int, int] = {}
        self._next_id = 1
        self._num_without_room = 0

    def track(self, index: int, result: ImagePoses) -> Int[np.ndarray, " n"]:
        """The tracker's numbers for the people of a frame, -1 where there is none."""
        num_people = len(result.poses.scores)
        if self._state is None or index <= self._index:
            return np.full(num_people, -1, np.int32)
        # In frames without a result, such as damaged ones, everybody is missed.
        num_skipped = index - self._index - 1 if self._index >= 0 else 0
        step = functools.partial(track_frame, sigmas=self._sigmas, params=self._params)
        nobody = padded_people(Poses.none(self._num_keypoints), _SMALLEST_BUCKET)
        for _ in range(min(num_skipped, int(self._params.max_missed) + 1)):
            self._state, _ = step(self._state, nobody)
        size = max(_SMALLEST_BUCKET, bucket_size(num_people))  # few programs are compiled
        self._state, numbers = step(self._state, padded_people(result.poses, size))
        self._index = index
        return np.asarray(numbers)[:num_people]

    def remember(self, number: int, track_id: int) -> None:
        """A person in the journal has this id, and the tracker's number, if both are positive."""
        self._next_id = max(self._next_id, track_id + 1)
        if min(number, track_id) > 0 and self._ids.get(number) != track_id:
            self._ids = {key: value for key, value in self._ids.items() if value != track_id}
            self._ids[number] = track_id

    def ids_of(self, numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The ids for the tracker's numbers."""
        ids = np.full_like(numbers, -1)
        for number in sorted(number for number in numbers.tolist() if number > 0):
            if number not in self._ids:
                self.remember(number, self._next_id)
            ids[numbers == number] = self._ids[number]
        return ids

    def num_without_room(self) -> int:
        """People who should have started a track, but there were too many."""
        return self._num_without_room if self._state is None else int(self._state.num_without_room)

    def end(self) -> None:
        """Free the memory: no frames follow."""
        self._num_without_room = self.num_without_room()
        self._state = None


def padded_people(people: Poses | TrackedPeople, size: int) -> Detections:
    """The people of a frame for the tracker, padded; a person's score is the mean of the joints'.

    Args:
      people: of one frame.
      size: number of people after padding, not less than there are.
    """
    columns = people.keypoints, people.keypoint_scores, people.bboxes
    keypoints, keypoint_scores, bboxes = (values.astype(np.float32) for values in columns)
    valid = np.ones(len(bboxes), bool)
    columns = (keypoints, keypoint_scores, bboxes, keypoint_scores.mean(-1), valid)
    return Detections(
        *(
            np.pad(values, [(0, size - len(bboxes))] + [(0, 0)] * (values.ndim - 1))
            for values in columns
        )
    )
