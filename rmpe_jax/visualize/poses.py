"""Poses drawn on pictures: left limbs orange, right limbs blue, the middle yellow.

Images are RGB uint8 (h, w, 3) and stay as they are: `draw_poses` returns a new one.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmpe_jax.skeletons import Skeleton

Color = tuple[int, int, int]
Image = UInt8[np.ndarray, "h w 3"]

# Apart in hue and in brightness, so that colour-blind readers tell them apart too.
LEFT: Color = (255, 138, 30)
RIGHT: Color = (38, 170, 255)
MIDDLE: Color = (255, 226, 110)
SIDES = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
BOX: Color = (140, 232, 130)
_UNSURE: Color = (126, 128, 134)  # what colours fade to as their scores fall to 0
_OUTLINE: Color = (20, 20, 24)

_SHIFT = 4  # OpenCV draws at sixteenths of a pixel
_SMALL = 90  # people of a smaller extent would vanish under outlines


def draw_poses(
    image: Image,
    keypoints: Float[np.ndarray, "n k 2"],
    keypoint_scores: Float[np.ndarray, "n k"],
    skeleton: Skeleton,
    bboxes: Float[np.ndarray, "n 4"] | None = None,
    threshold: float = 0.3,
) -> Image:
    """The image with poses on it, lines as thick as fits the person, paler the less they score.

    Args:
      keypoints: image pixels.
      keypoint_scores: joints below `threshold`, and limbs with such an end, are not drawn; at 1
        colours are full.
      bboxes: xyxy image pixels, edges; drawn as thin frames, within the image.
    """
    image = np.ascontiguousarray(image).copy()
    shown = (keypoint_scores >= threshold) & np.isfinite(keypoints).all(-1)
    extents = np.array([extent(k[s]) for k, s in zip(keypoints, shown, strict=True)])
    # Large people first: the small ones would vanish under them.
    for i in np.argsort(-extents):
        width = line_width(extents[i], image.shape[:2])
        if bboxes is not None:
            _draw_box(image, bboxes[i], max(1, round(width / 2)))
        draw_pose(image, keypoints[i], shown[i], skeleton, width, keypoint_scores[i])
    return image


def draw_pose(
    image: Image,
    keypoints: Float[np.ndarray, "k 2"],
    shown: Bool[np.ndarray, " k"],
    skeleton: Skeleton,
    width: float,
    keypoint_scores: Float[np.ndarray, " k"] | None = None,
    color: Color | None = None,
) -> None:
    """Draw one pose in place.

    Args:
      shown: joints to draw; limbs need both ends.
      width: of the limbs, in pixels; short ones are drawn finer.
      keypoint_scores: fade the colours; full ones without.
      color: instead of those of the sides.
    """
    limbs = [(a, b) for a, b in skeleton.limb_indices.tolist() if shown[a] and shown[b]]
    # OpenCV counts in 32 bits; what lies far outside stays outside.
    pixels = np.clip(np.nan_to_num(keypoints), -1e5, 1e5)
    points = np.round(pixels * 2**_SHIFT).astype(int).tolist()
    scores = np.ones(len(shown)) if keypoint_scores is None else np.nan_to_num(keypoint_scores)
    lengths = np.array([np.linalg.norm(pixels[a] - pixels[b]) for a, b in limbs])
    widths = np.clip(lengths / 4, 1, max(1, width)).round().astype(int).tolist()
    outline = max(2, round(width / 2)) if extent(pixels[shown]) >= _SMALL else 0
    for extra in (outline, 0) if outline else (0,):
        for (a, b), thick in zip(limbs, widths, strict=True):
            paint = _OUTLINE if extra else color or _paint(skeleton, (a, b), scores)
            cv2.line(image, points[a], points[b], paint, thick + extra, cv2.LINE_AA, _SHIFT)
    for j in np.flatnonzero(shown).tolist():
        thick = min((w for w, limb in zip(widths, limbs, strict=True) if j in limb), default=None)
        radius = 0.8 * (thick or (width if j in skeleton.limb_indices else width / 3))
        _draw_joint(image, points[j], radius, color or _paint(skeleton, (j,), scores), outline > 0)


def _draw_box(image: Image, bbox: Float[np.ndarray, " 4"], thick: int) -> None:
    # Boxes count from the edge of the first pixel, OpenCV from its centre. A frame on the image's
    # own edge would be half outside, and its far sides not seen: the outermost centres are near.
    height, width = image.shape[:2]
    corners = np.clip(bbox.reshape(2, 2) - 0.5, 0, (width - 1, height - 1))
    low, high = np.round(corners * 2**_SHIFT).astype(int).tolist()
    cv2.rectangle(image, low, high, BOX, thick, cv2.LINE_AA, _SHIFT)


def _draw_joint(
    image: Image, point: Sequence[int], radius: float, color: Color, outlined: bool
) -> None:
    inner = max(1.0, radius)
    if outlined:
        inner = max(1.5, radius)
        outer = round((inner + max(1.0, 0.375 * radius)) * 2**_SHIFT)
        cv2.circle(image, point, outer, _OUTLINE, -1, cv2.LINE_AA, _SHIFT)
    cv2.circle(image, point, round(inner * 2**_SHIFT), color, -1, cv2.LINE_AA, _SHIFT)


def _paint(skeleton: Skeleton, ends: Sequence[int], scores: Float[np.ndarray, " k"]) -> Color:
    """The side's colour, faded as far as the less sure end is unsure."""
    full = np.array(SIDES[side_of(*(skeleton.joints[j] for j in ends))])
    faded = 0.75 * (1 - np.clip(scores[list(ends)].min(), 0, 1))
    mixed = (1 - faded) * full + faded * np.array(_UNSURE)
    red, green, blue = np.round(mixed).astype(int).tolist()
    return red, green, blue


def side_of(*joints: str) -> str:
    """`left` or `right` of joints of one side, by name; `middle` of all others."""
    sides = {joint.split("_")[0] for joint in joints} & {"left", "right"}
    return sides.pop() if len(sides) == 1 else "middle"


def extent(points: Float[np.ndarray, "n 2"]) -> float:
    """Diagonal of the points' box in pixels."""
    return float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0


def line_width(person: float, size: tuple[int, int]) -> float:
    """Thick enough to be seen in the whole image, thin enough to see the person.

    Args:
      person: extent of the pose in pixels.
      size: of the image.
    """
    side = max(size)
    return max(1.0, float(np.clip(0.017 * person, 0.002 * side, 0.012 * side)))
