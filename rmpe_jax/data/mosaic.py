"""Mosaic augmentation for detector training: pure functions of a NumPy generator.

A canvas shows one image, or a mosaic of four (Bochkovskiy et al., "YOLOv4", 2020), each randomly
mirrored, scaled and cut. Mosaics show more people, smaller people, and people cut at the seams.
Pixels are uint8 RGB; boxes are xyxy with COCO's edges (the image is (0, 0, width, height)).
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data import augment
from rmpe_jax.data.boxed_images import BoxLabels
from rmpe_jax.ops import geometry

_MIN_SIDE = 4.0  # canvas pixels; boxes with a shorter side are ignored


@dataclasses.dataclass(frozen=True)
class MosaicOptions:
    """Ranges of the random augmentation.

    Attributes:
      mosaic_prob: probability of a mosaic of four images instead of one image.
      scale: range of the log-uniform scale factor. At a factor of 1 the image has the area of its
        tile, half-way between fitting into the tile and filling it.
      stretch: the aspect ratio changes by a factor of up to 1 + stretch, either way.
      flip_prob: probability of a mirrored image.
      color_gain: range of the uniform gain of each channel, drawn for each image.
      min_visible: people with less than this fraction of their box's area in view are ignored.
    """

    mosaic_prob: float = 0.5
    scale: tuple[float, float] = (0.6, 2.0)
    stretch: float = 0.2
    flip_prob: float = 0.5
    color_gain: tuple[float, float] = (1.0, 1.0)
    min_visible: float = 0.3


def tiles(
    rng: np.random.Generator, options: MosaicOptions, size: tuple[int, int]
) -> list[tuple[slice, slice]]:
    """Draw the (rows, columns) of the one or four tiles of a canvas of `size` (height, width)."""
    height, width = size
    if rng.random() >= options.mosaic_prob:
        return [(slice(0, height), slice(0, width))]
    y, x = (int(rng.uniform(0.25, 0.75) * side) for side in size)
    rows, columns = (slice(0, y), slice(y, height)), (slice(0, x), slice(x, width))
    return [(row, column) for row in rows for column in columns]


def paste(
    rng: np.random.Generator,
    options: MosaicOptions,
    image: UInt8[np.ndarray, "h w 3"],
    labels: BoxLabels,
    tile: UInt8[np.ndarray, "th tw 3"],
) -> BoxLabels:
    """Draw an image into a tile, in place, with random flip, scale, stretch, offset and color gain.

    Args:
      rng: source of all randomness.
      options: ranges of the random augmentation.
      image: the image to draw.
      labels: in pixels of `image`.
      tile: the view of the canvas to draw into.

    Returns:
      The labels in pixels of the tile.
    """
    factor = _draw_scale(rng, options, image.shape[:2], tile.shape[:2])
    flipped = bool(rng.random() < options.flip_prob)
    gain = rng.uniform(*options.color_gain, 3).astype(np.float32)
    scaled = _resize(image[:, ::-1] if flipped else image, factor)
    offset = [
        int(rng.integers(min(slack, 0), max(slack, 0) + 1))
        for slack in (tile.shape[1] - scaled.shape[1], tile.shape[0] - scaled.shape[0])
    ]
    shown = _overlay(tile, scaled, offset)
    shown[...] = augment.apply_color_gain(shown, gain)

    def move(bboxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        if flipped:
            width = image.shape[1]
            columns = [width - bboxes[:, 2], bboxes[:, 1], width - bboxes[:, 0], bboxes[:, 3]]
            bboxes = np.stack(columns, -1)
        # The size is rounded to whole pixels, so the exact factors differ slightly from `factor`.
        exact = np.array(scaled.shape[1::-1]) / image.shape[1::-1]
        return (bboxes * np.tile(exact, 2) + np.tile(offset, 2)).astype(np.float32)

    moved = BoxLabels(move(labels.bboxes), labels.weights, move(labels.ignored))
    return _cut(moved, tile.shape[:2], options.min_visible)


def join(
    labels: list[BoxLabels], corners: list[tuple[int, int]], count: int
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, " n"], Float[np.ndarray, "n 4"]]:
    """Join the labels of the tiles to labels of the canvas.

    Args:
      labels: of each tile, in pixels of the tile.
      corners: (x, y) of each tile's top left corner on the canvas.
      count: rows of each output.

    Returns:
      Boxes, weights and ignored regions in canvas pixels, padded with 0 to `count` rows. Of more
      than `count` boxes, those with the lowest weights become ignored regions.
    """
    moves = [np.tile(np.array(corner, np.float32), 2) for corner in corners]
    pairs = list(zip(labels, moves, strict=True))
    bboxes = np.concatenate([part.bboxes + move for part, move in pairs])
    weights = np.concatenate([part.weights for part in labels])
    ignored = np.concatenate([part.ignored + move for part, move in pairs])
    order = np.argsort(-weights, kind="stable")
    bboxes, weights = bboxes[order], weights[order]
    ignored = np.concatenate([bboxes[count:], ignored])
    return _padded(bboxes, count), _padded(weights, count), _padded(ignored, count)


def _padded(
    values: Float[np.ndarray, "n *columns"], count: int
) -> Float[np.ndarray, "count *columns"]:
    padded = np.zeros((count, *values.shape[1:]), np.float32)
    padded[: len(values)] = values[:count]
    return padded


def _draw_scale(
    rng: np.random.Generator,
    options: MosaicOptions,
    image_size: tuple[int, int],
    tile_size: tuple[int, int],
) -> tuple[float, float]:
    """Scale factors for the image's width and height."""
    half_way = np.sqrt(np.prod(tile_size) / np.prod(image_size))
    factor = half_way * np.exp(rng.uniform(*np.log(options.scale)))
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log1p(options.stretch))
    return float(factor * stretch), float(factor / stretch)


def _resize(
    image: UInt8[np.ndarray, "h w 3"], factor: tuple[float, float]
) -> UInt8[np.ndarray, "sh sw 3"]:
    """Scale (width, height) by `factor`, to at least one pixel each."""
    width, height = (
        max(1, round(side * by)) for side, by in zip(image.shape[1::-1], factor, strict=True)
    )
    method = cv2.INTER_AREA if max(factor) < 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)


def _overlay(
    canvas: UInt8[np.ndarray, "ch cw 3"], image: UInt8[np.ndarray, "h w 3"], offset: list[int]
) -> UInt8[np.ndarray, "sh sw 3"]:
    """Copy `image` to the canvas at (x, y) `offset`, possibly negative; return the covered part."""
    source, target = [], []
    for axis, start in ((0, offset[1]), (1, offset[0])):
        low, high = max(start, 0), min(start + image.shape[axis], canvas.shape[axis])
        source.append(slice(low - start, high - start))
        target.append(slice(low, high))
    shown = canvas[target[0], target[1]]
    shown[...] = image[source[0], source[1]]
    return shown


def _cut(labels: BoxLabels, size: tuple[int, int], min_visible: float) -> BoxLabels:
    """Clip labels to a raster of `size`; boxes too small or too far outside become ignored."""
    bboxes = geometry.clip_boxes(labels.bboxes, size)
    visible = geometry.box_area(bboxes) / np.maximum(geometry.box_area(labels.bboxes), 1e-6)
    large = (bboxes[:, 2:] - bboxes[:, :2]).min(-1) >= _MIN_SIDE
    kept = (visible >= min_visible) & large
    ignored = np.concatenate([geometry.clip_boxes(labels.ignored, size), bboxes[~kept]])
    return BoxLabels(bboxes[kept], labels.weights[kept], ignored[geometry.box_area(ignored) > 0])
