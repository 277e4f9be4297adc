"""Drawing of poses on images: left limbs orange, right limbs blue, the middle yellow.

People with a track id have the color of their id instead, and its number above the head.

Images are RGB uint8 (h, w, 3). `draw_poses` returns a new image, `draw_pose` draws in place.
"""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.skeletons import Skeleton

Color = tuple[int, int, int]
Image = UInt8[np.ndarray, "_height _width 3"]

# The colors differ in hue and in brightness, so color-blind readers can distinguish them too.
LEFT_COLOR: Color = (255, 138, 30)
RIGHT_COLOR: Color = (38, 170, 255)
MIDDLE_COLOR: Color = (255, 226, 110)
SIDE_COLORS = {"left": LEFT_COLOR, "right": RIGHT_COLOR, "middle": MIDDLE_COLOR}
BOX_COLOR: Color = (140, 232, 130)
_FADED_COLOR: Color = (126, 128, 134)  # colors fade towards it as scores fall to 0
_OUTLINE_COLOR: Color = (20, 20, 24)

_SHIFT = 4  # fractional bits of OpenCV's coordinates: sixteenths of a pixel
_MIN_OUTLINED_SIZE = 90  # pixels; outlines would hide smaller people
_FONT_HEIGHT = 21.0  # pixels of a digit of OpenCV's font at scale 1


def draw_poses(
    image: Image,
    keypoints: Float[np.ndarray, "n k 2"],
    keypoint_scores: Float[np.ndarray, "n k"],
    skeleton: Skeleton,
    bboxes: Float[np.ndarray, "n 4"] | None = None,
    threshold: float = 0.3,
    track_ids: Int[np.ndarray, " n"] | None = None,
) -> Image:
    """Draws poses on a copy of an image.

    Lines are thicker for larger people, and paler for lower scores.

    Args:
      image: the image; not modified.
      keypoints: positions in pixels of the image.
      keypoint_scores: scores from 0 to 1; at 1 the colors are not faded.
      skeleton: the joints and limbs of the poses.
      bboxes: boxes (x1, y1, x2, y2) of pixel edges, drawn as thin frames clipped to the image.
      threshold: joints with lower scores, and limbs that end at such a joint, are not drawn.
      track_ids: if given, people are drawn in `track_color` of their id instead of a color per
        side, with the id above them; people with an id below 1 are gray and without a number.

    Returns:
      The new image.

    Raises:
      UserError: the poses do not have the joints of the skeleton.
    """
    skeleton.check_num_keypoints(keypoints.shape[1], "poses to draw")
    image = np.ascontiguousarray(image).copy()
    shown = (keypoint_scores >= threshold) & np.isfinite(keypoints).all(-1)
    sizes = np.array([diagonal(k[s]) for k, s in zip(keypoints, shown, strict=True)])
    # Large people first, because they would hide the small ones.
    for i in np.argsort(-sizes):
        width = line_width(sizes[i], image.shape[:2])
        if bboxes is not None:
            _draw_box(image, bboxes[i], max(1, round(width / 2)))
        track_id = None if track_ids is None else int(track_ids[i])
        color = None if track_id is None else track_color(track_id)
        draw_pose(image, keypoints[i], shown[i], skeleton, width, keypoint_scores[i], color)
        if track_id is not None and track_id > 0 and color and shown[i].any():
            _draw_number(image, track_id, keypoints[i][shown[i]], width, color)
    return image


def track_color(track_id: int) -> Color:
    """The color of a track: of numbers that follow each other, colors that differ clearly.

    The hue goes around by the golden ratio. Ids below 1, of people without a track, are gray.
    """
    if track_id < 1:
        return _FADED_COLOR
    rgb = colorsys.hsv_to_rgb(0.618034 * track_id % 1, 0.75 if track_id % 2 else 0.5, 1.0)
    red, green, blue = (round(255 * value) for value in rgb)
    return red, green, blue


def draw_pose(
    image: Image,
    keypoints: Float[np.ndarray, "k 2"],
    shown: Bool[np.ndarray, " k"],
    skeleton: Skeleton,
    width: float,
    keypoint_scores: Float[np.ndarray, " k"] | None = None,
    color: Color | None = None,
) -> None:
    """Draws one pose in place.

    Args:
      image: the image to draw on.
      keypoints: positions in pixels of the image.
      shown: which joints to draw; limbs need both ends.
      skeleton: the joints and limbs of the pose.
      width: maximum width of the limbs in pixels; short limbs are drawn thinner.
      keypoint_scores: scores from 0 to 1; low scores fade the colors. Without scores, colors are
        not faded.
      color: one color for the whole pose, instead of a color per side; it fades too.

    Raises:
      UserError: the pose does not have the joints of the skeleton.
    """
    skeleton.check_num_keypoints(len(keypoints), "poses to draw")
    limbs = [(a, b) for a, b in skeleton.limb_indices.tolist() if shown[a] and shown[b]]
    # OpenCV's coordinates have 32 bits; clipped points still lie far outside the image.
    pixels = np.clip(np.nan_to_num(keypoints), -1e5, 1e5)
    points = np.round(pixels * 2**_SHIFT).astype(int).tolist()
    scores = np.ones(len(shown)) if keypoint_scores is None else np.nan_to_num(keypoint_scores)
    lengths = np.array([np.linalg.norm(pixels[a] - pixels[b]) for a, b in limbs])
    widths = np.clip(lengths / 4, 1, max(1, width)).round().astype(int).tolist()
    outline = max(2, round(width / 2)) if diagonal(pixels[shown]) >= _MIN_OUTLINED_SIZE else 0
    for extra in (outline, 0) if outline else (0,):
        for (a, b), limb_width in zip(limbs, widths, strict=True):
            line_color = _OUTLINE_COLOR if extra else _color_of(skeleton, (a, b), scores, color)
            thickness = limb_width + extra
            cv2.line(image, points[a], points[b], line_color, thickness, cv2.LINE_AA, _SHIFT)
    for j in np.flatnonzero(shown).tolist():
        joint_color = _color_of(skeleton, (j,), scores, color)
        limb_widths = [w for w, limb in zip(widths, limbs, strict=True) if j in limb]
        default_width = width if j in skeleton.limb_indices else width / 3
        radius = 0.8 * min(limb_widths, default=default_width)
        _draw_joint(image, points[j], radius, joint_color, outline > 0)


def _draw_box(image: Image, bbox: Float[np.ndarray, " 4"], thickness: int) -> None:
    # Box coordinates start at the edge of the first pixel, OpenCV's at its center. Half of a frame
    # on the edge of the image would be outside, and its far sides invisible. So corners are clipped
    # to the centers of the outermost pixels.
    height, width = image.shape[:2]
    corners = np.clip(bbox.reshape(2, 2) - 0.5, 0, (width - 1, height - 1))
    low, high = np.round(corners * 2**_SHIFT).astype(int).tolist()
    cv2.rectangle(image, low, high, BOX_COLOR, thickness, cv2.LINE_AA, _SHIFT)


def _draw_joint(
    image: Image, point: Sequence[int], radius: float, color: Color, outlined: bool
) -> None:
    inner = max(1.0, radius)
    if outlined:
        inner = max(1.5, radius)
        outer = round((inner + max(1.0, 0.375 * radius)) * 2**_SHIFT)
        cv2.circle(image, point, outer, _OUTLINE_COLOR, -1, cv2.LINE_AA, _SHIFT)
    cv2.circle(image, point, round(inner * 2**_SHIFT), color, -1, cv2.LINE_AA, _SHIFT)


def _draw_number(
    image: Image, number: int, points: Float[np.ndarray, "n 2"], width: float, color: Color
) -> None:
    """A number above the highest of a person's points, inside the image if they are."""
    height = max(10.0, 4 * width)  # pixels
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(height / 10))
    scale = height / _FONT_HEIGHT
    text_width = cv2.getTextSize(str(number), font, scale, thickness)[0][0]
    x, y = np.clip(points[points[:, 1].argmin()], -1e5, 1e5)
    left = min(max(x - text_width / 2, 1), max(image.shape[1] - text_width - 1, 1))
    place = (round(left), round(max(y - 4 * width - 3, height + 2)))
    for ink, extra in ((_OUTLINE_COLOR, 2 * thickness), (color, 0)):
        cv2.putText(image, str(number), place, font, scale, ink, thickness + extra, cv2.LINE_AA)


def _color_of(
    skeleton: Skeleton,
    joints: Sequence[int],
    scores: Float[np.ndarray, " k"],
    color: Color | None = None,
) -> Color:
    """`color`, or the color of the joints' side, faded by the lowest score of the joints."""
    base = color or SIDE_COLORS[side_of(*(skeleton.joints[j] for j in joints))]
    fading = 0.75 * (1 - np.clip(scores[list(joints)].min(), 0, 1))
    mixed = (1 - fading) * np.array(base) + fading * np.array(_FADED_COLOR)
    red, green, blue = np.round(mixed).astype(int).tolist()
    return red, green, blue


def side_of(*joints: str) -> str:
    """Returns "left" or "right" if the joints' names are of one side, else "middle"."""
    sides = {joint.split("_")[0] for joint in joints} & {"left", "right"}
    return sides.pop() if len(sides) == 1 else "middle"


def diagonal(points: Float[np.ndarray, "n 2"]) -> float:
    """The diagonal of the bounding box of the points; 0 without points."""
    return float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0


def line_width(pose_size: float, image_size: tuple[int, int]) -> float:
    """The line width in pixels: visible in the full image, but thin enough to see the person.

    Args:
      pose_size: `diagonal` of the pose in pixels.
      image_size: the two sides of the image in pixels, in any order.
    """
    side = max(image_size)
    return max(1.0, float(np.clip(0.017 * pose_size, 0.002 * side, 0.012 * side)))
