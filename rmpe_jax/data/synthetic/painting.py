"""Paints anti-aliased shapes on a canvas that also records the owner of each pixel.

Every solid shape is the convex hull of a few discs. Coordinates are (x, y) pixels with pixel
centers at integers. OpenCV gets them as fixed-point numbers, so edges are exact to a fraction of a
pixel.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

Color = tuple[float, float, float]  # RGB, 0..255

NOTHING = 0  # id of the background
OBJECT = 255  # id of objects that are not people
_SHIFT = 4  # binary places of a fixed-point coordinate
_CIRCLE = np.stack(
    [np.cos(np.arange(16) * np.pi / 8), np.sin(np.arange(16) * np.pi / 8)], axis=-1
).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Canvas:
    """An image and, for each pixel, the id of what was painted there last."""

    image: UInt8[np.ndarray, "h w 3"]
    ids: UInt8[np.ndarray, "h w"]
    light: Float[np.ndarray, " 2"]  # unit vector in the image toward the light


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A print on clothes: `kind` is one of `PATTERNS`; the period is in pixels."""

    kind: str
    color: Color
    period: float


def shade(color: Color, factor: float) -> Color:
    """A lighter (factor above 1) or darker tone of a color."""
    red, green, blue = (min(255.0, channel * factor) for channel in color)
    return red, green, blue


def hull_of_discs(
    centers: Float[np.ndarray, "m 2"], radii: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "n 2"]:
    """Convex polygon around discs: two of them form a limb, four a trunk."""
    rims = centers[:, None] + radii[:, None, None] * _CIRCLE
    return cv2.convexHull(rims.reshape(-1, 2).astype(np.float32))[:, 0]


def fill(canvas: Canvas, polygon: Float[np.ndarray, "n 2"], color: Color, owner: int) -> None:
    """Paint a convex polygon and set the ids of its pixels to `owner`."""
    fixed = _fixed_point(polygon)
    cv2.fillConvexPoly(canvas.image, fixed, color, cv2.LINE_AA, _SHIFT)
    cv2.fillConvexPoly(canvas.ids, fixed, owner, cv2.LINE_8, _SHIFT)


def tint(canvas: Canvas, polygon: Float[np.ndarray, "n 2"], color: Color) -> None:
    """Paint a convex polygon without changing ids."""
    cv2.fillConvexPoly(canvas.image, _fixed_point(polygon), color, cv2.LINE_AA, _SHIFT)


def fill_solid(
    canvas: Canvas,
    centers: Float[np.ndarray, "m 2"],
    radii: Float[np.ndarray, " m"],
    color: Color,
    owner: int,
    pattern: Pattern | None = None,
) -> None:
    """Paint a rounded shape: dark rim, plain or patterned middle, highlight toward the light."""
    fill(canvas, hull_of_discs(centers, radii), shade(color, 0.6), owner)
    toward = radii[:, None] * canvas.light
    middle = hull_of_discs(centers + 0.12 * toward, 0.76 * radii)
    tint(canvas, middle, color)
    if pattern is None:
        tint(canvas, hull_of_discs(centers + 0.35 * toward, 0.3 * radii), shade(color, 1.2))
    else:
        axis = centers[-1] - centers[0]
        _print(canvas, middle, centers[0], axis, pattern)


def _fixed_point(polygon: Float[np.ndarray, "n 2"]) -> Int32[np.ndarray, "n 2"]:
    return np.rint(polygon * (1 << _SHIFT)).astype(np.int32)


def _print(
    canvas: Canvas,
    polygon: Float[np.ndarray, "n 2"],
    origin: Float[np.ndarray, " 2"],
    axis: Float[np.ndarray, " 2"],
    pattern: Pattern,
) -> None:
    """Paint the pattern inside the polygon, in coordinates along and across `axis`."""
    height, width = canvas.ids.shape
    x1, y1 = np.clip(np.floor(polygon.min(0)).astype(int), 0, (width, height))
    x2, y2 = np.clip(np.ceil(polygon.max(0)).astype(int) + 1, 0, (width, height))
    if x2 <= x1 or y2 <= y1:
        return
    inside = np.zeros((y2 - y1, x2 - x1), np.uint8)
    cv2.fillConvexPoly(inside, _fixed_point(polygon - (x1, y1)), 1, cv2.LINE_8, _SHIFT)
    along = axis / max(float(np.hypot(*axis)), 1e-6) / pattern.period
    x = np.arange(x1, x2, dtype=np.float32) - np.float32(origin[0])
    y = np.arange(y1, y2, dtype=np.float32)[:, None] - np.float32(origin[1])
    u = np.float32(along[0]) * x + np.float32(along[1]) * y
    v = np.float32(along[0]) * y - np.float32(along[1]) * x
    printed = _CELLS[pattern.kind](u, v) & (inside > 0)
    canvas.image[y1:y2, x1:x2][printed] = pattern.color


def _odd(u: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    return (np.floor(2 * u).astype(np.int32) & 1) == 1


_CELLS = {  # (along, across), in periods -> whether a pixel is printed
    "hoops": lambda u, v: _odd(u),
    "stripes": lambda u, v: _odd(v),
    "checks": lambda u, v: _odd(u) ^ _odd(v),
    "dots": lambda u, v: (u - np.rint(u)) ** 2 + (v - np.rint(v)) ** 2 < 0.08,
}
PATTERNS = tuple(_CELLS)
