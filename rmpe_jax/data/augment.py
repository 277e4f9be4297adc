"""Random crops of people: pure functions of a NumPy generator; pixels are uint8 RGB.

An augmentation is one affine, `image_from_crop`, with flip, rotation, scale and shift folded in,
and a gain per colour channel: the picture is sampled once, and keypoints follow by the same affine.
"""

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton

HALF_BODY_GROWTH = 1.5  # of the extent of the half's joints, in place of the box's padding


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far crops vary. The defaults are AlphaPose's "1x" recipe without its box proposals.

    Attributes:
      flip_prob: chance of a mirrored crop.
      rotation_degrees: standard deviation of the rotation, which is clipped at twice this.
      rotation_prob: chance of any rotation.
      scale: the crop grows by a factor 1 + N(0, scale²), clipped to 1 ± scale.
      translation: the crop moves by up to this fraction of the box's width and height, uniformly.
      half_body_prob: chance that the crop shows the upper or the lower body only.
      half_body_min_joints: people with fewer labelled joints are never cut in half (AlphaPose and
        HRNet: more than 8).
      color_gain: range of the uniform gain of each channel; (0.6, 1.4) in the RMPE release.
    """

    flip_prob: float = 0.5
    rotation_degrees: float = 40.0
    rotation_prob: float = 0.6
    scale: float = 0.3
    translation: float = 0.0
    half_body_prob: float = 0.0
    half_body_min_joints: int = 9
    color_gain: tuple[float, float] = (1.0, 1.0)


NO_AUGMENTATION = Augmentation(flip_prob=0.0, rotation_degrees=0.0, rotation_prob=0.0, scale=0.0)


class CropPlan(NamedTuple):
    """One drawn augmentation.

    Attributes:
      image_from_crop: crop pixels to image pixels; a mirrored crop has a negative determinant.
      centred_from_crop: crop pixels to those of the well-placed crop: the person's own box without
        shift and scale, turned and mirrored as this crop is.
      flipped: left and right joints change places.
      color_gain: factor on R, G, B.
    """

    image_from_crop: Float[np.ndarray, "2 3"]
    centred_from_crop: Float[np.ndarray, "2 3"]
    flipped: bool
    color_gain: Float[np.ndarray, " 3"]


def augment(
    rng: np.random.Generator,
    augmentation: Augmentation,
    bbox: Float[np.ndarray, " 4"],
    keypoints: Float[np.ndarray, "k 2"],
    visibility: UInt8[np.ndarray, " k"],
    *,
    skeleton: Skeleton,
    input_size: tuple[int, int],
    padding: float,
    proposal: Float[np.ndarray, " 4"] | None = None,
) -> CropPlan:
    """Draw the crop of one person.

    Args:
      rng: source of all randomness.
      augmentation: the ranges drawn from.
      bbox: xyxy image pixels.
      keypoints: image pixels, in `skeleton`; used for half bodies only.
      visibility: 0 where a keypoint is not labelled.
      skeleton: which joints are upper body.
      input_size: (height, width) of the crop.
      padding: factor on both sides of the box, as in `geometry.image_from_crop`.
      proposal: the box to crop, where a detector might have put it; by default `bbox`, which stays
        the well-placed one. Half bodies are cropped about their own box.
    """
    a = augmentation
    half = half_body(rng, a, keypoints, visibility, skeleton)
    if half is not None:
        bbox, proposal, padding = half, half, HALF_BODY_GROWTH
    proposal = bbox if proposal is None else proposal
    scale = np.clip(1 + a.scale * rng.standard_normal(), 1 - a.scale, 1 + a.scale)
    shift = rng.uniform(-a.translation, a.translation, 2) * (proposal[2:] - proposal[:2])
    rotation = np.clip(rng.standard_normal(), -2, 2) * math.radians(a.rotation_degrees)
    rotation *= rng.random() < a.rotation_prob
    image_from_crop = geometry.image_from_crop(
        proposal + np.tile(shift, 2), input_size, padding * scale, rotation
    )
    image_from_centred = geometry.image_from_crop(bbox, input_size, padding, rotation)
    flipped = bool(rng.random() < a.flip_prob)
    if flipped:
        image_from_crop = geometry.compose(image_from_crop, mirror(input_size[1]))
        image_from_centred = geometry.compose(image_from_centred, mirror(input_size[1]))
    return CropPlan(
        image_from_crop,
        geometry.compose(geometry.invert(image_from_centred), image_from_crop),
        flipped,
        rng.uniform(*a.color_gain, 3).astype(np.float32),
    )


def half_body(
    rng: np.random.Generator,
    augmentation: Augmentation,
    keypoints: Float[np.ndarray, "k 2"],
    visibility: UInt8[np.ndarray, " k"],
    skeleton: Skeleton,
) -> Float[np.ndarray, " 4"] | None:
    """Box around the labelled joints of the upper or lower body, or None for the whole person.

    As in AlphaPose and HRNet the upper half is preferred (a normal draw under 0.5: 69 %), and a
    half of fewer than three joints gives way to the other.
    """
    wanted = rng.random() < augmentation.half_body_prob
    prefer_upper = rng.standard_normal() < 0.5
    labelled = visibility > 0
    if not wanted or labelled.sum() < augmentation.half_body_min_joints:
        return None
    upper = skeleton.is_upper_body
    for chosen in (upper, ~upper) if prefer_upper else (~upper, upper):
        if (labelled & chosen).sum() >= 3:
            return geometry.keypoint_extent(keypoints, labelled & chosen)
    return None


def mirror(width: int) -> Float[np.ndarray, "2 3"]:
    """The affine that maps each pixel of a raster of `width` to its mirror image."""
    return np.array([[-1, 0, width - 1], [0, 1, 0]], np.float32)


def crop(
    image: UInt8[np.ndarray, "h w 3"],
    image_from_crop: Float[np.ndarray, "2 3"],
    input_size: tuple[int, int],
) -> UInt8[np.ndarray, "height width 3"]:
    """Sample the crop bilinearly; black outside the picture.

    Where a crop pixel spans two or more image pixels, the picture is first averaged over blocks of
    that many, for bilinear sampling alone would skip pixels. (An incomplete last row or column of
    blocks, less than a crop pixel, counts as outside.)
    """
    spanned = int(math.sqrt(abs(np.linalg.det(image_from_crop[:, :2]))))
    if spanned > 1:
        image, small_from_image = _averaged(image, spanned)
        image_from_crop = geometry.compose(small_from_image, image_from_crop)
    height, width = input_size
    return cv2.warpAffine(
        image, image_from_crop, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )


def _averaged(
    image: UInt8[np.ndarray, "h w 3"], block: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"]]:
    """The means of blocks of `block`² pixels, and the affine small_from_image."""
    height, width = image.shape[0] // block, image.shape[1] // block
    if not height or not width:
        return image, np.eye(2, 3, dtype=np.float32)
    whole = image[: height * block, : width * block]
    offset = (1 / block - 1) / 2  # of pixel centres
    small_from_image = np.array([[1 / block, 0, offset], [0, 1 / block, offset]], np.float32)
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), small_from_image


def apply_color_gain(
    image: UInt8[np.ndarray, "h w 3"], color_gain: Float[np.ndarray, " 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Each channel times its gain, rounded and clamped to 0..255."""
    if np.all(color_gain == 1):
        return image
    table = np.clip(np.arange(256)[:, None] * color_gain + 0.5, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def move_keypoints(
    plan: CropPlan,
    keypoints: Float[np.ndarray, "k 2"],
    visibility: UInt8[np.ndarray, " k"],
    flip_indices: np.ndarray,
) -> tuple[Float[np.ndarray, "k 2"], UInt8[np.ndarray, " k"]]:
    """Keypoints from image to crop pixels, left and right exchanged in a mirrored crop.

    Keypoints without a label hold anything, even NaN, on the way in and 0 on the way out.
    """
    moved = geometry.transform_points(geometry.invert(plan.image_from_crop), keypoints)
    moved = np.where(visibility[:, None] > 0, moved, 0).astype(np.float32)
    if plan.flipped:
        moved, visibility = moved[flip_indices], visibility[flip_indices]
    return moved, visibility


def inside(
    keypoints: Float[np.ndarray, "k 2"], input_size: tuple[int, int]
) -> Bool[np.ndarray, " k"]:
    """Which keypoints lie on a pixel of the crop."""
    limit = np.array([input_size[1], input_size[0]], np.float32) - 0.5
    return np.all((keypoints >= -0.5) & (keypoints < limit), axis=-1)
