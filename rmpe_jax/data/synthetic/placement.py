"""Places people of several scales, some partly hidden, and objects in front of them."""

import dataclasses

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.synthetic.anatomy import pose_body
from rmpe_jax.data.synthetic.figure import Figure
from rmpe_jax.data.synthetic.outfit import sample_outfit
from rmpe_jax.data.synthetic.sampling import sample_build, sample_pose
from rmpe_jax.ops.geometry import box_area, box_iou

MAX_PEOPLE = 6
_COUNT_PROBS = (0.26, 0.27, 0.21, 0.14, 0.08, 0.04)  # of 1, 2, ... people in an image
# Range of standing heights, as fractions of the image height. The maximum is for 1, 2, ... people.
_MIN_HEIGHT = 0.42
_MAX_HEIGHT = (1.0, 0.9, 0.8, 0.7, 0.62, 0.55)
_MARGIN = 0.06  # of the standing height, added around the joints
_OUTSIDE_PROB = 1 / 6  # of a person being partly outside the image


@dataclasses.dataclass(frozen=True)
class Occluder:
    """An object in front of some of the people.

    Attributes:
      bbox: xyxy pixels.
      scale: it hides people of a smaller scale than this.
      seed: of its looks.
    """

    bbox: Float[np.ndarray, " 4"]
    scale: float
    seed: int


def place_people(rng: np.random.Generator, size: tuple[int, int]) -> list[Figure]:
    """Draw one to `MAX_PEOPLE` people, at positions where they do not hide each other too much.

    Args:
      rng: source of all randomness.
      size: (height, width) of the image.
    """
    count = 1 + rng.choice(MAX_PEOPLE, p=_COUNT_PROBS)
    figures, boxes = [], np.zeros((0, 4))
    for _ in range(5 * count):
        if len(figures) == count:
            break
        figure = _random_figure(rng, size, _MAX_HEIGHT[count - 1])
        box, limit = extent(figure), 0.15 if rng.random() < 0.8 else 0.45
        if _overlap(box, boxes).max(initial=0) <= limit:
            figures.append(figure)
            boxes = np.concatenate([boxes, box[None]])
    return figures


def place_occluders(rng: np.random.Generator, figures: list[Figure]) -> list[Occluder]:
    """Objects in front of some of the people, each at most a third of a person's box in area."""
    occluders = []
    for _ in range(rng.poisson(0.15 * len(figures))):
        figure = figures[rng.integers(len(figures))]
        low, high = np.split(extent(figure), 2)
        center = low + rng.uniform(0, 1, 2) * (high - low)
        half = rng.uniform(0.1, 0.29, 2) * (high - low)
        bbox = np.concatenate([center - half, center + half])
        occluders.append(Occluder(bbox, 1.02 * figure.scale, int(rng.integers(2**32))))
    return occluders


def _random_figure(rng: np.random.Generator, size: tuple[int, int], max_height: float) -> Figure:
    """A person inside the image, or partly beyond its left, right or lower edge."""
    frame = np.array([size[1], size[0]])
    scale = frame[1] * np.exp(rng.uniform(np.log(_MIN_HEIGHT), np.log(max_height)))
    skeleton = pose_body(sample_build(rng), sample_pose(rng))
    figure = Figure(skeleton, sample_outfit(rng), np.zeros(2), 1.0)
    low, high = np.split(extent(figure), 2)
    scale = min(scale, float((0.97 * frame / (high - low)).min()))
    sides = scale * (high - low)
    # Small people are far away and therefore higher in the image, but rarely at its top.
    corner = rng.uniform((0.0, 0.25), (1.0, 1.0)) * (frame - sides)
    if rng.random() < _OUTSIDE_PROB:
        beyond = rng.uniform(0.1, 0.45) * sides
        edge = rng.integers(3)
        if edge == 0:
            corner[0] = -beyond[0]
        else:
            axis = edge - 1
            corner[axis] = (frame - sides + beyond)[axis]
    return dataclasses.replace(figure, origin=corner - scale * low, scale=scale)


def extent(figure: Figure) -> Float[np.ndarray, " 4"]:
    """Box (xyxy pixels) around a person as a whole, hidden or outside the image or not."""
    points = figure.project(np.stack(list(figure.skeleton.points.values())))
    margin = _MARGIN * figure.scale
    return np.concatenate([points.min(0) - margin, points.max(0) + margin])


def _overlap(box: Float[np.ndarray, " 4"], others: Float[np.ndarray, "n 4"]) -> np.ndarray:
    """Intersection area divided by the area of the smaller box."""
    iou, area, areas = box_iou(box[None], others)[0], box_area(box), box_area(others)
    return iou / (1 + iou) * (area + areas) / np.minimum(area, areas)
