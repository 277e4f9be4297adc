"""The interface of detectors: functions from an image to the boxes of the people in it."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8


class Boxes(NamedTuple):
    """The boxes of the people in one image, best first, without padding.

    Attributes:
      bboxes: (n, 4) float32 xyxy image pixels; pixel edges as in COCO, x2 = x1 + width, so the box
        of a full image is (0, 0, width, height).
      scores: (n,) float32, 0 to 1.
    """

    bboxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]


@runtime_checkable
class Detector(Protocol):
    """Finds people in an image."""

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], name: str) -> Boxes:
        """The boxes of the people in one image; there may be none.

        Args:
          image: RGB.
          name: the image's file name without folders. Detectors that look boxes up need it; others
            ignore it.
        """
        ...
