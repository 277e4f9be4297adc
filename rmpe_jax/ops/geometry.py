"""Box formats, and 2x3 affines between the frames image, crop and heatmap.

Coordinates are (x, y) pixels with pixel centers at integers; sizes are (height, width). Box edges
are pixel edges counted from 0 (COCO: the box of a full image is (0, 0, width, height)), so in
pixel-center coordinates a box's center is half a pixel less. Affines map (x, y, 1) columns and are
named by what they map: `image_from_crop` maps crop pixels to image pixels. Functions of arrays take
NumPy and JAX arrays, unless they say otherwise.
"""

import dataclasses
import math
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

AnyArray = TypeVar("AnyArray", bound=Any)  # of NumPy or of JAX, the same in a whole call


def xyxy_from_xywh(bboxes_xywh: Float[AnyArray, "*n 4"]) -> Float[AnyArray, "*n 4"]:
    """COCO's (x, y, width, height) to (x1, y1, x2, y2); x2 = x + width."""
    xp = bboxes_xywh.__array_namespace__()
    return xp.concatenate([bboxes_xywh[..., :2], bboxes_xywh[..., :2] + bboxes_xywh[..., 2:]], -1)


def xywh_from_xyxy(bboxes: Float[AnyArray, "*n 4"]) -> Float[AnyArray, "*n 4"]:
    """(x1, y1, x2, y2) to COCO's (x, y, width, height)."""
    xp = bboxes.__array_namespace__()
    return xp.concatenate([bboxes[..., :2], bboxes[..., 2:] - bboxes[..., :2]], -1)


def box_area(bboxes: Float[AnyArray, "*n 4"]) -> Float[AnyArray, "*n"]:
    """Area in square pixels; 0 for boxes with x2 < x1 or y2 < y1."""
    xp = bboxes.__array_namespace__()
    size = xp.maximum(bboxes[..., 2:] - bboxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def box_iou(a: Float[AnyArray, "*n 4"], b: Float[AnyArray, "*m 4"]) -> Float[AnyArray, "*n m"]:
    """Intersection over union of every box of `a` (…, n, 4) with every box of `b` (…, m, 4)."""
    xp = a.__array_namespace__()
    corners = xp.concatenate(
        [
            xp.maximum(a[..., :, None, :2], b[..., None, :, :2]),
            xp.minimum(a[..., :, None, 2:], b[..., None, :, 2:]),
        ],
        -1,
    )
    inter = box_area(corners)
    union = box_area(a)[..., :, None] + box_area(b)[..., None, :] - inter
    return inter / xp.maximum(union, 1e-12)


def clip_boxes(bboxes: Float[AnyArray, "*n 4"], size: tuple[int, int]) -> Float[AnyArray, "*n 4"]:
    """The part of each box inside an image of `size` (height, width)."""
    xp = bboxes.__array_namespace__()
    limit = xp.asarray([size[1], size[0], size[1], size[0]], dtype=bboxes.dtype)
    return xp.minimum(xp.maximum(bboxes, 0), limit)


def keypoint_extent(
    keypoints: Float[np.ndarray, "k 2"], visible: np.ndarray, margin: float = 0.0
) -> Float[np.ndarray, " 4"]:
    """Box around the visible keypoints, grown by `margin` of its size on each side; NumPy only."""
    points = keypoints[np.asarray(visible) > 0]
    low, high = points.min(0), points.max(0)
    grow = margin * (high - low)
    return np.concatenate([low - grow, high + grow]).astype(np.float32)


def image_from_crop(
    bbox: Float[AnyArray, "*n 4"],
    input_size: tuple[int, int],
    padding: float = 1.25,
    rotation: float = 0.0,
    udp: bool = False,
) -> Float[AnyArray, "*n 2 3"]:
    """Affine from crop pixels to image pixels for the crop of each person's box.

    The box's short side grows to the aspect ratio of `input_size`, then both sides grow by
    `padding` (1.25 in AlphaPose and in the COCO literature). The result fills the crop exactly: its
    outer edges are the outer edges of the border pixels. With `udp`, they are the centers of the
    border pixels.

    Args:
      bbox: (x1, y1, x2, y2) image pixels.
      input_size: (height, width) of the crop.
      padding: factor on both sides of the box.
      rotation: angle in radians of the crop's x axis in the image, clockwise on the screen.
      udp: the convention of unbiased data processing (Huang et al., CVPR 2020) and of the networks
        trained with it: the box spans size - 1 pixels of the crop, and its coordinates are taken as
        those of pixel centers.
    """
    xp = bbox.__array_namespace__()
    height, width = input_size
    sides = xp.maximum(bbox[..., 2:] - bbox[..., :2], 1)
    # Image pixels per crop pixel.
    scale = padding * xp.maximum(sides[..., 0] / width, sides[..., 1] / height)
    scale_x = scale * (width / (width - 1)) if udp else scale
    scale_y = scale * (height / (height - 1)) if udp else scale
    cos, sin = math.cos(rotation), math.sin(rotation)
    # Box edges are pixel edges, so in pixel-center coordinates the center is half a pixel less.
    edge = 0 if udp else 1
    center_x, center_y = (
        (bbox[..., 0] + bbox[..., 2] - edge) / 2,
        (bbox[..., 1] + bbox[..., 3] - edge) / 2,
    )
    (a, b), (c, d) = (scale_x * cos, -scale_y * sin), (scale_x * sin, scale_y * cos)
    u, v = (width - 1) / 2, (height - 1) / 2
    rows = (a, b, center_x - a * u - b * v, c, d, center_y - c * u - d * v)
    return xp.stack(rows, -1).reshape(*scale.shape, 2, 3).astype(xp.float32)


@dataclasses.dataclass(frozen=True)
class CropSpec:
    """How a person's box becomes a network's crop.

    Attributes:
      input_size: (height, width) of the crop.
      padding: factor on both sides of the box.
      udp: whether the box ends at the centers of the border pixels, see `image_from_crop`.
    """

    input_size: tuple[int, int]
    padding: float = 1.25
    udp: bool = False

    def with_context(self, context: float) -> "CropSpec":
        """Crops of the same resolution with more around the box, see `view_size`.

        Args:
          context: sides of the crop in sides of this one, which is its central window.
        """
        height, width = (round(side * context) for side in self.input_size)
        return CropSpec((height, width), self.padding * context, self.udp)

    def image_from_crop(self, bboxes: Float[AnyArray, "*n 4"]) -> Float[AnyArray, "*n 2 3"]:
        """Affines from crop pixels to image pixels for boxes (xyxy image pixels)."""
        return image_from_crop(bboxes, self.input_size, self.padding, udp=self.udp)


def heatmap_from_crop(
    input_size: tuple[int, int], heatmap_size: tuple[int, int]
) -> Float[np.ndarray, "2 3"]:
    """Affine from crop pixels to heatmap pixels; both rasters cover the same area.

    With this alignment, mirroring the crop mirrors the heatmap exactly, without a one-pixel shift.
    """
    sy, sx = heatmap_size[0] / input_size[0], heatmap_size[1] / input_size[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]], dtype=np.float32)


def view_size(input_size: tuple[int, int], context: float) -> tuple[int, int]:
    """(height, width) of the STN's view of a crop, in pixels of the crop, rounded.

    Args:
      input_size: (height, width) of the crop.
      context: sides of the crop in sides of the view.
    """
    height, width = input_size
    return round(height / context), round(width / context)


def window_offset(size: tuple[int, int], window_size: tuple[int, int]) -> Float[np.ndarray, " 2"]:
    """(x, y) of the first pixel of a raster's central window, in pixels of the raster.

    Args:
      size: (height, width) of the raster.
      window_size: (height, width) of the window.
    """
    return (np.array(size[::-1], np.float32) - np.array(window_size[::-1], np.float32)) / 2


def compose(
    outer: Float[AnyArray, "*#n 2 3"], inner: Float[AnyArray, "*#n 2 3"]
) -> Float[AnyArray, "*#n 2 3"]:
    """The affine that applies `inner`, then `outer`: `compose(c_from_b, b_from_a)` is c_from_a."""
    xp = outer.__array_namespace__()
    product = _times(outer, inner)
    return xp.concatenate([product[..., :2], product[..., 2:] + outer[..., 2:]], -1)


def invert(affine: Float[AnyArray, "*n 2 3"]) -> Float[AnyArray, "*n 2 3"]:
    """The inverse affine: b_from_a for a_from_b."""
    xp = affine.__array_namespace__()
    a, b, c, d = affine[..., 0, 0], affine[..., 0, 1], affine[..., 1, 0], affine[..., 1, 1]
    det = a * d - b * c
    linear = xp.stack([d, -b, -c, a], -1).reshape(*det.shape, 2, 2) / det[..., None, None]
    return xp.concatenate([linear, -_times(linear, affine[..., 2:])], -1)


def transform_points(
    affine: Float[AnyArray, "*#n 2 3"], points: Float[AnyArray, "*#n k 2"]
) -> Float[AnyArray, "*#n k 2"]:
    """Apply an affine to points (…, k, 2): b_from_a maps points of frame a to frame b."""
    xp = affine.__array_namespace__()
    return _times(points, xp.swapaxes(affine[..., :2], -1, -2)) + affine[..., None, :, 2]


def _times(
    a: Float[AnyArray, "*#n m c"], b: Float[AnyArray, "*#n 2 l"]
) -> Float[AnyArray, "*#n m l"]:
    """The matrix product of the first two columns of `a` with `b`, as a sum of float32 products.

    By default, accelerators round the factors of `a @ b` to as few as 8 bits.
    """
    return a[..., 0, None] * b[..., None, 0, :] + a[..., 1, None] * b[..., None, 1, :]
