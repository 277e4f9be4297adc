"""What a detector is: a function from a picture to the boxes of the people in it."""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8


class Boxes(NamedTuple):
    """The people found in one picture, best first.

    Attributes:
      bboxes: (n, 4) float32 xyxy image pixels; edges as COCO counts them, x2 = x1 + width, so that
        the whole picture is (0, 0, width, height).
      scores: (n,) float32, 0 to 1.
    """

    bboxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]


class Detector(Protocol):
    """Finds people in a picture."""

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], name: str) -> Boxes:
        """Boxes of the people in one picture; none is no error.

        Args:
          image: RGB.
          name: the picture's file name without folders. Detectors that look boxes up go by it, the
            others do not read it.
        """
        ...
