"""Images fitted into a network's input, and the exact affine that maps boxes back.

Resizing an image of width w to width v maps its outer edges onto each other. So box edges map by
x_input = left + x_image * v / w, without half pixels, because they are pixel edges counted from 0
in both frames (docs/frames.md). The factor uses the rounded width v, and each axis has its own.
"""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.ops import geometry

Resize = Literal["letterbox", "corner", "stretch"]


def fit_image(
    image: UInt8[np.ndarray, "h w 3"],
    input_size: tuple[int, int],
    resize: Resize,
    fill: int = 114,
    *,
    average: bool = False,
) -> tuple[UInt8[np.ndarray, "height width 3"], Float[np.ndarray, "2 3"]]:
    """Resize an image to a network's input.

    Args:
      image: the image.
      input_size: (height, width) of the input.
      resize: keep the aspect ratio and place the image in the middle ("letterbox") or at the upper
        left ("corner"), or stretch it to fill the input ("stretch").
      fill: gray value of the borders.
      average: average over pixels when the image is reduced, as in training (`data.mosaic`); by
        default it is sampled bilinearly, as the detectors of other projects expect.

    Returns:
      The input, and the affine image_from_input of box edges.
    """
    height, width = image.shape[:2]
    scale = min(input_size[0] / height, input_size[1] / width)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    size = input_size if resize == "stretch" else size
    top, left = (input_size[0] - size[0]) // 2, (input_size[1] - size[1]) // 2
    if resize == "corner":
        top = left = 0
    method = cv2.INTER_AREA if average and scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, size[::-1], interpolation=method)
    canvas = np.full((*input_size, 3), fill, np.uint8)
    canvas[top : top + size[0], left : left + size[1]] = resized
    x, y = width / size[1], height / size[0]  # image pixels per input pixel
    return canvas, np.array([[x, 0, -x * left], [0, y, -y * top]], np.float32)


def transform_boxes(
    affine: Float[np.ndarray, "2 3"], bboxes: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n 4"]:
    """Boxes (xyxy) transformed by an affine of box edges without rotation."""
    return geometry.transform_points(affine, bboxes.reshape(-1, 2)).reshape(-1, 4)
