"""Random crops of people: pure functions of a NumPy generator; pixels are uint8 RGB.

An augmentation is one affine, `image_from_crop`, which combines flip, rotation, scale and shift,
and one gain per color channel. The image is sampled once, and the keypoints are moved by the same
affine.
"""

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton

HALF_BODY_GROWTH = 1.5  # factor on the box around the joints of a half, in place of `padding`


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of the random augmentation. Defaults: AlphaPose's "1x" recipe without box proposals.

    Attributes:
      flip_prob: probability of a mirrored crop.
      rotation_degrees: standard deviation of the rotation, which is clipped at twice this value.
      rotation_prob: probability of a rotation.
      scale: the crop grows by a factor 1 + N(0, scale²), clipped to 1 ± scale.
      translation: the crop is shifted uniformly by up to this fraction of the box's width and
        height.
      half_body_prob: probability that the crop shows only the upper or only the lower body.
      half_body_min_joints: people with fewer labeled joints are never cropped to a half (AlphaPose
        and HRNet: more than 8).
      color_gain: range of the uniform gain of each channel; (0.6, 1.4) in the RMPE release.
      cut_prob: probability that the image ends within the person, see `cut_image`. So people whom
        images cut off, who are frequent in COCO, are learned from complete ones.
      max_coarseness: crops look as if the image had pixels up to this many times as wide as those
        of the crop, with a factor that is log-uniform from 1. So people who are small in the image
        are learned from large ones.
    """

    flip_prob: float = 0.5
    rotation_degrees: float = 40.0
    rotation_prob: float = 0.6
    scale: float = 0.3
    translation: float = 0.0
    half_body_prob: float = 0.0
    half_body_min_joints: int = 9
    color_gain: tuple[float, float] = (1.0, 1.0)
    cut_prob: float = 0.0
    max_coarseness: float = 1.0


NO_AUGMENTATION = Augmentation(flip_prob=0.0, rotation_degrees=0.0, rotation_prob=0.0, scale=0.0)


class CropPlan(NamedTuple):
    """One drawn augmentation.

    Attributes:
      image_from_crop: crop pixels to image pixels; the determinant is negative if mirrored.
      centered_from_crop: crop pixels to pixels of the well-placed crop, which is the crop of the
        person's own box without shift and scale, but rotated and mirrored like this crop.
      flipped: whether the crop is mirrored, so that left and right joints are exchanged.
      color_gain: factor on R, G, B.
      coarseness: width of the image's pixels in crop pixels, if they are not wider anyway.
    """

    image_from_crop: Float[np.ndarray, "2 3"]
    centered_from_crop: Float[np.ndarray, "2 3"]
    flipped: bool
    color_gain: Float[np.ndarray, " 3"]
    coarseness: float = 1.0


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
      augmentation: the ranges to draw from.
      bbox: the person's box, xyxy image pixels.
      keypoints: image pixels, joints of `skeleton`; used only for half bodies.
      visibility: 0 where a keypoint is not labeled.
      skeleton: defines the upper-body joints.
      input_size: (height, width) of the crop.
      padding: factor on width and height of the box, as in `geometry.image_from_crop`.
      proposal: the box to crop, xyxy image pixels, such as a detector might give; by default
        `bbox`. The well-placed crop always uses `bbox`. For half bodies, both use the box around
        the half.
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
        proposal + np.concatenate([shift, shift]), input_size, padding * scale, rotation
    )
    image_from_centered = geometry.image_from_crop(bbox, input_size, padding, rotation)
    flipped = bool(rng.random() < a.flip_prob)
    if flipped:
        image_from_crop = geometry.compose(image_from_crop, mirror(input_size[1]))
        image_from_centered = geometry.compose(image_from_centered, mirror(input_size[1]))
    return CropPlan(
        image_from_crop,
        geometry.compose(geometry.invert(image_from_centered), image_from_crop),
        flipped,
        rng.uniform(*a.color_gain, 3).astype(np.float32),
        # Nothing is drawn if nothing depends on it: other random numbers stay as they are.
        math.exp(rng.uniform(0, math.log(a.max_coarseness))) if a.max_coarseness > 1 else 1.0,
    )


def cut_image(
    rng: np.random.Generator,
    augmentation: Augmentation,
    bbox: Float[np.ndarray, " 4"],
    size: tuple[int, int],
) -> Int[np.ndarray, " 4"]:
    """The part of an image that is used, xyxy pixels: all of it, or what one cut leaves.

    With the probability `cut_prob` the image ends where 25 to 90 % of the person's box is still in
    it, at the bottom (40 %), the left or the right (25 % each), or the top.

    Args:
      rng: source of all randomness.
      augmentation: the ranges to draw from.
      bbox: the person's box, xyxy image pixels.
      size: (height, width) of the image.
    """
    region = np.array([0, 0, size[1], size[0]])
    if augmentation.cut_prob == 0 or rng.random() >= augmentation.cut_prob:
        return region
    side = rng.choice(4, p=(0.25, 0.1, 0.25, 0.4))  # the entry of the region that moves
    axis, visible = side % 2, rng.uniform(0.25, 0.9)
    low, high = bbox[axis], bbox[axis + 2]
    cut = high - visible * (high - low) if side < 2 else low + visible * (high - low)
    region[side] = np.clip(round(float(cut)), 0, size[1 - axis])
    return region


def half_body(
    rng: np.random.Generator,
    augmentation: Augmentation,
    keypoints: Float[np.ndarray, "k 2"],
    visibility: UInt8[np.ndarray, " k"],
    skeleton: Skeleton,
) -> Float[np.ndarray, " 4"] | None:
    """Box around the labeled joints of the upper or lower body, or None to crop the whole person.

    As in AlphaPose and HRNet, the upper half is preferred (probability 69 %: a normal draw below
    0.5). If the preferred half has fewer than three labeled joints, the other half is used.
    """
    crop_half = rng.random() < augmentation.half_body_prob
    prefer_upper = rng.standard_normal() < 0.5
    labeled = visibility > 0
    if not crop_half or labeled.sum() < augmentation.half_body_min_joints:
        return None
    upper = skeleton.is_upper_body
    for half in (upper, ~upper) if prefer_upper else (~upper, upper):
        if (labeled & half).sum() >= 3:
            return geometry.keypoint_extent(keypoints, labeled & half)
    return None


def mirror(width: int) -> Float[np.ndarray, "2 3"]:
    """The affine that mirrors x in a raster of `width` pixels."""
    return np.array([[-1, 0, width - 1], [0, 1, 0]], np.float32)


def crop(
    image: UInt8[np.ndarray, "h w 3"],
    image_from_crop: Float[np.ndarray, "2 3"],
    input_size: tuple[int, int],
    coarseness: float = 1.0,
) -> UInt8[np.ndarray, "height width 3"]:
    """Sample the crop bilinearly; pixels outside the image are black.

    If a crop pixel spans n >= 2 image pixels, the image is first averaged over blocks of n x n
    pixels, because bilinear sampling alone would skip pixels. (An incomplete last row or column of
    blocks, which is less than a crop pixel, is treated as outside.) With a
    `coarseness` above 1, so many crop pixels count instead of one.
    """
    # Side of a crop pixel in image pixels, rounded down.
    block = int(coarseness * math.sqrt(abs(np.linalg.det(image_from_crop[:, :2]))))
    if block > 1:
        image, small_from_image = _average_blocks(image, block)
        image_from_crop = geometry.compose(small_from_image, image_from_crop)
    height, width = input_size
    return cv2.warpAffine(
        image, image_from_crop, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )


def _average_blocks(
    image: UInt8[np.ndarray, "h w 3"], block: int
) -> tuple[UInt8[np.ndarray, "height width 3"], Float[np.ndarray, "2 3"]]:
    """Means over blocks of `block` x `block` pixels, and the affine small_from_image."""
    height, width = image.shape[0] // block, image.shape[1] // block
    if not height or not width:
        return image, np.eye(2, 3, dtype=np.float32)
    complete = image[: height * block, : width * block]
    offset = (1 / block - 1) / 2  # coordinates refer to pixel centers
    small_from_image = np.array([[1 / block, 0, offset], [0, 1 / block, offset]], np.float32)
    return cv2.resize(complete, (width, height), interpolation=cv2.INTER_AREA), small_from_image


def apply_color_gain(
    image: UInt8[np.ndarray, "h w 3"], color_gain: Float[np.ndarray, " 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply each channel by its gain, round, and clamp to 0..255."""
    if np.all(color_gain == 1):
        return image
    table = np.clip(np.arange(256)[:, None] * color_gain + 0.5, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def move_keypoints(
    plan: CropPlan,
    keypoints: Float[np.ndarray, "k 2"],
    visibility: UInt8[np.ndarray, " k"],
    flip_indices: Int[np.ndarray, " k"],
) -> tuple[Float[np.ndarray, "k 2"], UInt8[np.ndarray, " k"]]:
    """Move keypoints from image to crop pixels; exchange left and right if the crop is mirrored.

    Unlabeled keypoints may have any value, even NaN, on input; they are 0 on output.

    Args:
      plan: the crop.
      keypoints: image pixels.
      visibility: 0 where a keypoint is not labeled.
      flip_indices: index of each joint's left-right partner, as `Skeleton.flip_indices`.

    Returns:
      Keypoints in crop pixels, and their visibility.
    """
    moved = geometry.transform_points(geometry.invert(plan.image_from_crop), keypoints)
    moved = np.where(visibility[:, None] > 0, moved, 0).astype(np.float32)
    if plan.flipped:
        moved, visibility = moved[flip_indices], visibility[flip_indices]
    return moved, visibility


def inside(
    keypoints: Float[np.ndarray, "k 2"], input_size: tuple[int, int]
) -> Bool[np.ndarray, " k"]:
    """Whether each keypoint (crop pixels) lies on a pixel of the crop."""
    limit = np.array([input_size[1], input_size[0]], np.float32) - 0.5
    return np.all((keypoints >= -0.5) & (keypoints < limit), axis=-1)
