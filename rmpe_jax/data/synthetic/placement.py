"""Who stands where: people of several scales, some partly hidden, and things before them."""

import dataclasses

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.synthetic.anatomy import pose_body
from rmpe_jax.data.synthetic.figure import Figure
from rmpe_jax.data.synthetic.outfit import sample_outfit
from rmpe_jax.data.synthetic.sampling import sample_build, sample_pose
from rmpe_jax.ops.geometry import box_area, box_iou

MAX_PEOPLE = 6
_PEOPLE_SHARES = (0.26, 0.27, 0.21, 0.14, 0.08, 0.04)  # of pictures with 1, 2, ... people
_TALLEST = (1.0, 0.9, 0.8, 0.7, 0.62, 0.55)  # standing height over picture height, by people
_SHORTEST = 0.42
_MARGIN = 0.06  # of the standing height, around joints for the flesh
_BEYOND_SHARE = 1 / 6  # of people who are partly outside the picture


@dataclasses.dataclass(frozen=True)
class Prop:
    """A thing that stands before some of the people.

    Attributes:
      bbox: where, (x1, y1, x2, y2) pixels.
      scale: it hides people of a smaller scale than this.
      seed: draws its looks.
    """

    bbox: Float[np.ndarray, " 4"]
    scale: float
    seed: int


def place_people(rng: np.random.Generator, size: tuple[int, int]) -> list[Figure]:
    """One to `MAX_PEOPLE` people at places where they do not hide each other too much.

    Args:
      rng: source of all randomness.
      size: (height, width) of the picture.
    """
    wanted = 1 + rng.choice(MAX_PEOPLE, p=_PEOPLE_SHARES)
    figures, boxes = [], np.zeros((0, 4))
    for _ in range(5 * wanted):
        if len(figures) == wanted:
            break
        figure = _random_figure(rng, size, _TALLEST[wanted - 1])
        box, limit = _extent(figure), 0.15 if rng.random() < 0.8 else 0.45
        if _overlap(box, boxes).max(initial=0) <= limit:
            figures.append(figure)
            boxes = np.concatenate([boxes, box[None]])
    return figures


def place_props(rng: np.random.Generator, figures: list[Figure]) -> list[Prop]:
    """Things before some of the people, each hiding at most a third of a person's box."""
    props = []
    for _ in range(rng.poisson(0.15 * len(figures))):
        figure = figures[rng.integers(len(figures))]
        low, high = np.split(_extent(figure), 2)
        center = low + rng.uniform(0, 1, 2) * (high - low)
        half = rng.uniform(0.1, 0.29, 2) * (high - low)
        bbox = np.concatenate([center - half, center + half])
        props.append(Prop(bbox, 1.02 * figure.scale, int(rng.integers(2**32))))
    return props


def _random_figure(rng: np.random.Generator, size: tuple[int, int], tallest: float) -> Figure:
    """A person inside the picture or partly beyond its left, right or lower edge."""
    frame = np.array([size[1], size[0]])
    scale = frame[1] * np.exp(rng.uniform(np.log(_SHORTEST), np.log(tallest)))
    skeleton = pose_body(sample_build(rng), sample_pose(rng))
    figure = Figure(skeleton, sample_outfit(rng), np.zeros(2), 1.0)
    low, high = np.split(_extent(figure), 2)
    scale = min(scale, float((0.97 * frame / (high - low)).min()))
    extent = scale * (high - low)
    # Small people are far away and so rather high in the picture, but seldom at its top.
    place = rng.uniform((0.0, 0.25), (1.0, 1.0)) * (frame - extent)
    if rng.random() < _BEYOND_SHARE:
        beyond = rng.uniform(0.1, 0.45) * extent
        edge = rng.integers(3)
        if edge == 0:
            place[0] = -beyond[0]
        else:
            axis = edge - 1
            place[axis] = (frame - extent + beyond)[axis]
    return dataclasses.replace(figure, origin=place - scale * low, scale=scale)


def _extent(figure: Figure) -> Float[np.ndarray, " 4"]:
    points = figure.project(np.stack(list(figure.skeleton.points.values())))
    margin = _MARGIN * figure.scale
    return np.concatenate([points.min(0) - margin, points.max(0) + margin])


def _overlap(box: Float[np.ndarray, " 4"], others: Float[np.ndarray, "n 4"]) -> np.ndarray:
    """Intersection over the smaller box, (n,)."""
    iou, area, areas = box_iou(box[None], others)[0], box_area(box), box_area(others)
    return iou / (1 + iou) * (area + areas) / np.minimum(area, areas)
