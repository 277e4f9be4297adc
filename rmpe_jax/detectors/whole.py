"""The simplest detector: one box that covers the image."""

import numpy as np
from jaxtyping import UInt8

from rmpe_jax.detectors.protocol import Boxes


def whole_image(image: UInt8[np.ndarray, "h w 3"], name: str = "") -> Boxes:
    """One box that covers the whole image; a `Detector`."""
    del name
    height, width = image.shape[:2]
    return Boxes(np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32))
