"""People over the frames of a video, annotated or found, with their identities."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.skeletons import Skeleton


class TrackedPeople(NamedTuple):
    """The people of one frame.

    Attributes:
      keypoints: image pixels; arbitrary where the score is 0.
      keypoint_scores: of found joints, 0 to 1; of annotated joints 1, and 0 where there is none.
      bboxes: xyxy image pixels.
      head_boxes: xyxy image pixels, around the heads; NaN where unknown.
      ids: of the people in the video, all different; -1 for people without a track.
    """

    keypoints: Float[np.ndarray, "n k 2"]
    keypoint_scores: Float[np.ndarray, "n k"]
    bboxes: Float[np.ndarray, "n 4"]
    head_boxes: Float[np.ndarray, "n 4"]
    ids: Int[np.ndarray, " n"]

    @classmethod
    def none(cls, num_keypoints: int) -> "TrackedPeople":
        """The people of a frame without people."""
        shapes = ((0, num_keypoints, 2), (0, num_keypoints), (0, 4), (0, 4))
        return cls(*(np.zeros(shape) for shape in shapes), ids=np.zeros(0, int))

    def pick(self, rows: np.ndarray) -> "TrackedPeople":
        """Some of the people: `rows` is a mask or indices."""
        return TrackedPeople(*(values[rows] for values in self))


class TrackedFrame(NamedTuple):
    """One frame of a video.

    Attributes:
      name: of its image file, with folders.
      people: in it.
      is_labeled: whether it is annotated; always True if the people are found.
      ignored: polygons in image pixels in which people are not annotated.
    """

    name: str
    people: TrackedPeople
    is_labeled: bool = True
    ignored: tuple[Float[np.ndarray, "_ 2"], ...] = ()


@dataclasses.dataclass(frozen=True)
class TrackedVideo:
    """A video.

    Attributes:
      name: of the video.
      skeleton: the joints of all people.
      frames: in the order of time.
    """

    name: str
    skeleton: Skeleton
    frames: tuple[TrackedFrame, ...]
