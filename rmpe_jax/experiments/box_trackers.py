"""Trackers that look at boxes alone, to compare ours with: greedy IoU, and ByteTrack's rule.

Plain NumPy and SciPy, frame by frame. Both take the boxes of a video, `bboxes` (f, n, 4) in xyxy
image pixels with `scores` (f, n) from 0 to 1 and `valid` (f, n), and return the identity of each
box, -1 where there is none.
"""

import dataclasses

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float, Int

from rmpe_jax.ops.geometry import box_iou

Boxes = Float[np.ndarray, "f n 4"]
Scores = Float[np.ndarray, "f n"]
Valid = Bool[np.ndarray, "f n"]
Ids = Int[np.ndarray, "f n"]

MAX_MISSED = 30  # frames after which a lost track ends, in both trackers


def track_by_greedy_iou(
    bboxes: Boxes, scores: Scores, valid: Valid, min_score: float = 0.5, min_iou: float = 0.3
) -> Ids:
    """A box joins the track whose last box overlaps it most; pairs in the order of their IoU.

    There is no motion model. A box without a track starts one.

    Args:
      bboxes: of the video, xyxy.
      scores: of the boxes.
      valid: where there is a box.
      min_score: boxes with lower scores are ignored.
      min_iou: of a box and the last box of its track.
    """
    ids = np.full(valid.shape, -1)
    last, track_ids, missed = np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int)
    next_id = 1
    for frame, bboxes_here in enumerate(bboxes):
        places = np.flatnonzero(valid[frame] & (scores[frame] >= min_score))
        iou = box_iou(last, bboxes_here[places].astype(float))
        missed = missed + 1
        while iou.size and iou.max() >= min_iou:
            track, box = np.unravel_index(iou.argmax(), iou.shape)
            last[track], missed[track] = bboxes_here[places[box]], 0
            ids[frame, places[box]] = track_ids[track]
            iou[track], iou[:, box] = -1, -1
        fresh = places[ids[frame, places] < 0]
        ids[frame, fresh] = next_id + np.arange(len(fresh))
        next_id += len(fresh)
        kept = missed <= MAX_MISSED
        last = np.concatenate([last[kept], bboxes_here[fresh]])
        track_ids = np.concatenate([track_ids[kept], ids[frame, fresh]])
        missed = np.concatenate([missed[kept], np.zeros(len(fresh), int)])
    return ids


@dataclasses.dataclass(frozen=True)
class ByteTrackParams:
    """The numbers of ByteTrack, with the defaults of the paper and its code.

    Its code also multiplies the IoU by the score of the box on most datasets; this does not.

    Attributes:
      sure_score: boxes with this score or more are associated first.
      doubtful_score: boxes with lower scores are ignored.
      birth_score: sure boxes with this score or more start a track.
      min_iou: of a sure box and the predicted box of its track.
      min_doubtful_iou: of a doubtful box and the predicted box of its track.
      min_trial_iou: of a sure box and a track that was found in one frame only.
    """

    sure_score: float = 0.6
    doubtful_score: float = 0.1
    birth_score: float = 0.7
    min_iou: float = 0.2
    min_doubtful_iou: float = 0.5
    min_trial_iou: float = 0.3


def track_by_byte_track(
    bboxes: Boxes, scores: Scores, valid: Valid, params: ByteTrackParams | None = None
) -> Ids:
    """ByteTrack's rule (Zhang et al., ECCV 2022).

    Sure boxes are assigned to the predicted boxes of all tracks, lost ones included; then doubtful
    boxes to what is left of the tracks of the last frame. A track counts from its second frame on,
    except those of the first frame, and ends if it is missed in the second.

    Args:
      bboxes: of the video, xyxy.
      scores: of the boxes.
      valid: where there is a box.
      params: thresholds.
    """
    params = params or ByteTrackParams()
    ids = np.full(valid.shape, -1)
    tracks: list[_Track] = []
    next_id = 1
    for frame, found in enumerate(bboxes.astype(float)):
        for track in tracks:
            track.predict()
        is_sure = valid[frame] & (scores[frame] >= params.sure_score)
        is_doubtful = valid[frame] & ~is_sure & (scores[frame] >= params.doubtful_score)
        sure, doubtful = np.flatnonzero(is_sure), np.flatnonzero(is_doubtful)
        known = [track for track in tracks if track.is_confirmed]
        owners = _assign(known, found, sure, params.min_iou)
        waiting = [t for t in known if t not in owners.values() and t.missed == 0]
        owners |= _assign(waiting, found, doubtful, params.min_doubtful_iou)
        left = np.array([box for box in sure if box not in owners], int)
        trials = [track for track in tracks if not track.is_confirmed]
        owners |= _assign(trials, found, left, params.min_trial_iou)
        for track in tracks:
            track.missed += 1
        for box, track in owners.items():
            track.update(found[box])
            ids[frame, box] = track.track_id
        tracks = [t for t in tracks if t.missed <= (MAX_MISSED if t.is_confirmed else 0)]
        for box in left:
            if box not in owners and scores[frame, box] >= params.birth_score:
                tracks.append(_Track(found[box], next_id, is_confirmed=frame == 0))
                if frame == 0:
                    ids[frame, box] = next_id
                next_id += 1
    return ids


class _Track:
    """A box with ByteTrack's Kalman filter: center, aspect ratio and height at constant velocity.

    The noises are fractions of the height: 1/20 of positions, 1/160 of velocities.
    """

    _POSITION, _VELOCITY = 1 / 20, 1 / 160

    def __init__(self, bbox: Float[np.ndarray, " 4"], track_id: int, is_confirmed: bool) -> None:
        self.track_id, self.is_confirmed, self.missed = track_id, is_confirmed, 0
        self._mean = np.concatenate([_measured(bbox), np.zeros(4)])
        self._covariance = np.diag(self._noise(2 * self._POSITION, 1e-2, 10 * self._VELOCITY, 1e-5))

    def _noise(
        self, position: float, aspect: float, velocity: float, aspect_velocity: float
    ) -> Float[np.ndarray, " 8"]:
        """Variances of the state; those of the aspect ratio are no fractions of the height."""
        height = self._mean[3]
        p, v = position * height, velocity * height
        return np.array([p, p, aspect, p, v, v, aspect_velocity, v]) ** 2

    def predict(self) -> None:
        """Move on by a frame. The height of a lost box stays."""
        if self.missed:
            self._mean[7] = 0
        noise = np.diag(self._noise(self._POSITION, 1e-2, self._VELOCITY, 1e-5))
        step = np.eye(8) + np.eye(8, k=4)
        self._mean = step @ self._mean
        self._covariance = step @ self._covariance @ step.T + noise

    def update(self, bbox: Float[np.ndarray, " 4"]) -> None:
        """The track is found in a box."""
        noise = np.diag(self._noise(self._POSITION, 1e-1, 0.0, 0.0)[:4])
        gain = np.linalg.solve(self._covariance[:4, :4] + noise, self._covariance[:4]).T
        self._mean = self._mean + gain @ (_measured(bbox) - self._mean[:4])
        self._covariance = self._covariance - gain @ self._covariance[:4]
        self.missed, self.is_confirmed = 0, True

    @property
    def bbox(self) -> Float[np.ndarray, " 4"]:
        """The box, xyxy."""
        center, height = self._mean[:2], self._mean[3]
        half = np.array([self._mean[2] * height, height]) / 2
        return np.concatenate([center - half, center + half])


def _measured(bbox: Float[np.ndarray, " 4"]) -> Float[np.ndarray, " 4"]:
    """Center, aspect ratio and height."""
    width, height = np.maximum(bbox[2:] - bbox[:2], 1)
    return np.array([*(bbox[:2] + bbox[2:]) / 2, width / height, height])


def _assign(
    tracks: list[_Track],
    bboxes: Float[np.ndarray, "n 4"],
    places: Int[np.ndarray, " m"],
    min_iou: float,
) -> dict[int, _Track]:
    """The track of each box, of the boxes at `places`, at the lowest total of 1 - IoU."""
    if not tracks or not len(places):
        return {}
    iou = box_iou(np.stack([track.bbox for track in tracks]), bboxes[places])
    rows, columns = scipy.optimize.linear_sum_assignment(np.minimum(1 - iou, 1 - min_iou))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {int(places[c]): tracks[r] for r, c in pairs if iou[r, c] > min_iou}
