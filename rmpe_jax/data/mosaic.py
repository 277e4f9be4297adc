"""Pictures for a detector to train on, put together from others: pure functions of a generator.

A canvas shows one picture, or in a mosaic four (Bochkovskiy et al., "YOLOv4", 2020), each mirrored,
scaled and cut by chance. Mosaics show many people, small ones too, and cut ones at the seams.
Pixels are uint8 RGB, boxes xyxy with edges as in COCO.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data import augment
from rmpe_jax.data.boxed_pictures import BoxLabels
from rmpe_jax.ops import geometry

_LEAST_SIDE = 4.0  # input pixels; narrower boxes are ignored, not learned


@dataclasses.dataclass(frozen=True)
class MosaicOptions:
    """How far training pictures vary.

    Attributes:
      mosaic_prob: chance of four pictures in place of one.
      scale: range of the factor, drawn with a uniform logarithm, on the size half-way between
        fitting into the tile and filling it.
      stretch: width over height changes by up to this factor, less 1, either way.
      flip_prob: chance of a mirrored picture.
      color_gain: range of each channel's uniform gain, each picture's own.
      min_visible: of a box's area; people of whom less can be seen are ignored.
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
    """The rows and columns that each picture of a canvas gets: one pair, or a mosaic's four."""
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
    """Draws a picture into `tile`, scaled and moved by chance, and gives its labels there."""
    factor = _draw_scale(rng, options, image.shape[:2], tile.shape[:2])
    flipped = bool(rng.random() < options.flip_prob)
    gain = rng.uniform(*options.color_gain, 3).astype(np.float32)
    scaled = _resize(image[:, ::-1] if flipped else image, factor)
    offset = [
        int(rng.integers(min(room, 0), max(room, 0) + 1))
        for room in (tile.shape[1] - scaled.shape[1], tile.shape[0] - scaled.shape[0])
    ]
    shown = _overlay(tile, scaled, offset)
    shown[...] = augment.apply_color_gain(shown, gain)

    def move(bboxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        if flipped:
            width = image.shape[1]
            columns = [width - bboxes[:, 2], bboxes[:, 1], width - bboxes[:, 0], bboxes[:, 3]]
            bboxes = np.stack(columns, -1)
        # Pixels of the scaled picture are whole, so the factors differ a little from those drawn.
        exact = np.array(scaled.shape[1::-1]) / image.shape[1::-1]
        return (bboxes * np.tile(exact, 2) + np.tile(offset, 2)).astype(np.float32)

    moved = BoxLabels(move(labels.bboxes), labels.weights, move(labels.ignored))
    return _cut(moved, tile.shape[:2], options.min_visible)


def join(
    labels: list[BoxLabels], corners: list[tuple[int, int]], count: int
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, " n"], Float[np.ndarray, "n 4"]]:
    """The labels of tiles whose (x, y) corners are given, as those of the canvas.

    Returns:
      boxes, weights and ignored regions, `count` each, filled up with 0; if there are more, the
      people that weigh least are ignored.
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


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    padded = np.zeros((count, *values.shape[1:]), np.float32)
    padded[: len(values)] = values[:count]
    return padded


def _draw_scale(
    rng: np.random.Generator,
    options: MosaicOptions,
    image_size: tuple[int, int],
    tile_size: tuple[int, int],
) -> tuple[float, float]:
    """Factors on the picture's width and height."""
    half_way = np.sqrt(np.prod(tile_size) / np.prod(image_size))
    factor = half_way * np.exp(rng.uniform(*np.log(options.scale)))
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log1p(options.stretch))
    return float(factor * stretch), float(factor / stretch)


def _resize(image: np.ndarray, factor: tuple[float, float]) -> np.ndarray:
    """The picture with its (width, height) times `factor`, at least a pixel each."""
    width, height = (
        max(1, round(side * by)) for side, by in zip(image.shape[1::-1], factor, strict=True)
    )
    method = cv2.INTER_AREA if max(factor) < 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)


def _overlay(canvas: np.ndarray, image: np.ndarray, offset: list[int]) -> np.ndarray:
    """Puts `image` at (x, y) `offset`, which may be negative; the part of the canvas it covers."""
    source, target = [], []
    for axis, start in ((0, offset[1]), (1, offset[0])):
        low, high = max(start, 0), min(start + image.shape[axis], canvas.shape[axis])
        source.append(slice(low - start, high - start))
        target.append(slice(low, high))
    shown = canvas[target[0], target[1]]
    shown[...] = image[source[0], source[1]]
    return shown


def _cut(labels: BoxLabels, size: tuple[int, int], min_visible: float) -> BoxLabels:
    """What of the labels can be seen in a raster of `size`."""
    bboxes = geometry.clip_boxes(labels.bboxes, size)
    visible = geometry.box_area(bboxes) / np.maximum(geometry.box_area(labels.bboxes), 1e-6)
    large = (bboxes[:, 2:] - bboxes[:, :2]).min(-1) >= _LEAST_SIDE
    learned = (visible >= min_visible) & large
    ignored = np.concatenate([geometry.clip_boxes(labels.ignored, size), bboxes[~learned]])
    return BoxLabels(
        bboxes[learned], labels.weights[learned], ignored[geometry.box_area(ignored) > 0]
    )
