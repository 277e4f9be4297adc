"""Simulates an imperfect detector: missed, duplicate, shifted, cut, merged and false boxes."""

import dataclasses

import numpy as np
from jaxtyping import Float

from rmpe_jax.ops.geometry import box_iou, clip_boxes

Box = Float[np.ndarray, " 4"]  # xyxy pixels

_MIN_SIDE = 12.0  # pixels; boxes with a shorter side after clipping are dropped


@dataclasses.dataclass(frozen=True)
class ScoredBoxes:
    """Boxes (xyxy pixels, inside the image) and their scores in (0, 1), best first."""

    bboxes: Float[np.ndarray, "m 4"]
    scores: Float[np.ndarray, " m"]


def detect(
    bboxes: Float[np.ndarray, "n 4"], size: tuple[int, int], rng: np.random.Generator
) -> ScoredBoxes:
    """Simulate the boxes of a person detector of medium quality.

    Scores follow the IoU with the best-matching person, with noise, so ranking by score is useful
    but not perfect.

    Args:
      bboxes: true boxes, xyxy pixels.
      size: (height, width) of the image.
      rng: source of all randomness.
    """
    reported = []
    for bbox in bboxes:
        reported += _boxes_of_one(bbox, rng)
    reported += _merged(bboxes, rng)
    reported += _false_alarms(size, rng)
    boxes = np.array(reported, np.float32).reshape(-1, 4)
    boxes = clip_boxes(boxes, size)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= _MIN_SIDE).all(-1)]
    scores = _scores(boxes, bboxes, rng)
    order = np.argsort(-scores, kind="stable")
    return ScoredBoxes(boxes[order], scores[order])


def _boxes_of_one(bbox: Box, rng: np.random.Generator) -> list[Box]:
    if rng.random() < 0.07:
        return []
    kind = rng.random()
    if kind < 0.10:
        boxes = [_cut(bbox, rng)]
    elif kind < 0.20:
        boxes = [_jitter(bbox, 0.17, rng)]
    else:
        boxes = [_jitter(bbox, 0.04, rng)]
    if rng.random() < 0.3:
        boxes += [_jitter(bbox, 0.12, rng) for _ in range(rng.integers(1, 4))]
    if rng.random() < 0.12:
        boxes.append(_cut(bbox, rng))
    return boxes


def _jitter(bbox: Box, amount: float, rng: np.random.Generator) -> Box:
    """Move the center and scale the sides; `amount` is a standard deviation relative to the box."""
    extent = bbox[2:] - bbox[:2]
    center = (bbox[:2] + bbox[2:]) / 2 + rng.normal(0, amount, 2) * extent
    half = extent / 2 * np.exp(rng.normal(0, amount, 2))
    return np.concatenate([center - half, center + half])


def _cut(bbox: Box, rng: np.random.Generator) -> Box:
    """Cut the box on one side; most often the bottom, as for half bodies."""
    side = rng.choice(4, p=(0.2, 0.15, 0.2, 0.45))  # the side to move: x1, y1, x2, y2
    keep = rng.uniform(0.4, 0.75)
    out = bbox.copy()
    opposite = (side + 2) % 4
    out[side] = bbox[opposite] + keep * (bbox[side] - bbox[opposite])
    return _jitter(out, 0.03, rng)


def _merged(bboxes: Float[np.ndarray, "n 4"], rng: np.random.Generator) -> list[Box]:
    """Boxes that each enclose two overlapping people."""
    first, second = np.nonzero(np.triu(box_iou(bboxes, bboxes) > 0.03, 1))
    return [
        _jitter(np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])]), 0.03, rng)
        for a, b in zip(bboxes[first], bboxes[second], strict=True)
        if rng.random() < 0.25
    ]


def _false_alarms(size: tuple[int, int], rng: np.random.Generator) -> list[Box]:
    height, width = size
    boxes = []
    for _ in range(rng.poisson(0.7)):
        tall = height * np.exp(rng.uniform(np.log(0.15), np.log(0.7)))
        half = np.array([tall * rng.uniform(0.3, 0.8), tall]) / 2
        center = rng.uniform(0, 1, 2) * (width, height)
        boxes.append(np.concatenate([center - half, center + half]))
    return boxes


def _scores(
    boxes: Float[np.ndarray, "m 4"], bboxes: Float[np.ndarray, "n 4"], rng: np.random.Generator
) -> Float[np.ndarray, " m"]:
    overlap = box_iou(boxes, bboxes).max(-1, initial=0.0)
    logit = -2.2 + 5.0 * overlap + rng.normal(0, 0.8, len(boxes))
    return (1 / (1 + np.exp(-logit))).astype(np.float32)
