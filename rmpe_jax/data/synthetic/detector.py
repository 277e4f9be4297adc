"""A detector's imperfect boxes: missed, doubled, shifted, cut, merged, or on no person at all."""

import dataclasses

import numpy as np
from jaxtyping import Float

from rmpe_jax.ops.geometry import box_iou, clip_boxes

_SMALLEST = 12.0  # pixels: a box that is thinner after clipping is not reported


@dataclasses.dataclass(frozen=True)
class Detections:
    """Boxes (x1, y1, x2, y2) inside the picture and their scores in (0, 1), best first."""

    bboxes: Float[np.ndarray, "m 4"]
    scores: Float[np.ndarray, " m"]


def detect(
    bboxes: Float[np.ndarray, "n 4"], size: tuple[int, int], rng: np.random.Generator
) -> Detections:
    """Boxes and scores as a middling person detector would report them, best first.

    A box's score follows its overlap with the best person, with noise, so that ranking by it is
    useful and not perfect.

    Args:
      bboxes: true boxes (x1, y1, x2, y2) in pixels.
      size: (height, width) of the picture.
      rng: source of all randomness.
    """
    reported = []
    for bbox in bboxes:
        reported += _boxes_of_one(bbox, rng)
    reported += _merged(bboxes, rng)
    reported += _false_alarms(size, rng)
    boxes = np.array(reported, np.float32).reshape(-1, 4)
    boxes = clip_boxes(boxes, size)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= _SMALLEST).all(-1)]
    scores = _scores(boxes, bboxes, rng)
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order], scores[order])


def _boxes_of_one(bbox: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
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


def _jitter(bbox: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Move the centre and stretch the sides by shares of the box's size."""
    extent = bbox[2:] - bbox[:2]
    center = (bbox[:2] + bbox[2:]) / 2 + rng.normal(0, amount, 2) * extent
    half = extent / 2 * np.exp(rng.normal(0, amount, 2))
    return np.concatenate([center - half, center + half])


def _cut(bbox: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep a part from one side; from the top most often, as for half bodies."""
    side = rng.choice(4, p=(0.2, 0.15, 0.2, 0.45))  # the side that is moved: x1, y1, x2, y2
    keep = rng.uniform(0.4, 0.75)
    out = bbox.copy()
    opposite = (side + 2) % 4
    out[side] = bbox[opposite] + keep * (bbox[side] - bbox[opposite])
    return _jitter(out, 0.03, rng)


def _merged(bboxes: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """One box around two people who overlap."""
    first, second = np.nonzero(np.triu(box_iou(bboxes, bboxes) > 0.03, 1))
    return [
        _jitter(np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])]), 0.03, rng)
        for a, b in zip(bboxes[first], bboxes[second], strict=True)
        if rng.random() < 0.25
    ]


def _false_alarms(size: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray]:
    height, width = size
    boxes = []
    for _ in range(rng.poisson(0.7)):
        tall = height * np.exp(rng.uniform(np.log(0.15), np.log(0.7)))
        half = np.array([tall * rng.uniform(0.3, 0.8), tall]) / 2
        center = rng.uniform(0, 1, 2) * (width, height)
        boxes.append(np.concatenate([center - half, center + half]))
    return boxes


def _scores(
    boxes: np.ndarray, bboxes: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, " m"]:
    overlap = box_iou(boxes, bboxes).max(-1, initial=0.0)
    logit = -2.2 + 5.0 * overlap + rng.normal(0, 0.8, len(boxes))
    return (1 / (1 + np.exp(-logit))).astype(np.float32)
