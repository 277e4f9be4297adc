"""The people found in one image."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Poses(NamedTuple):
    """The people found in one image, best first, without padding.

    Joint names and order come from the `Skeleton`, which is passed separately.

    Attributes:
      keypoints: image pixels.
      keypoint_scores: of each joint, 0 to 1.
      scores: of the person, after pose NMS.
      bboxes: xyxy image pixels (edges) of the boxes that the poses were found in.
      bbox_scores: the detector's.
    """

    keypoints: Float[np.ndarray, "n k 2"]
    keypoint_scores: Float[np.ndarray, "n k"]
    scores: Float[np.ndarray, " n"]
    bboxes: Float[np.ndarray, "n 4"]
    bbox_scores: Float[np.ndarray, " n"]

    @classmethod
    def none(cls, num_keypoints: int) -> "Poses":
        """The poses of an image without people."""
        return cls(
            np.zeros((0, num_keypoints, 2), np.float32),
            np.zeros((0, num_keypoints), np.float32),
            np.zeros(0, np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
        )
