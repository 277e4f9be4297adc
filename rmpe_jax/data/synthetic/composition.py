"""Paints people and objects on a background, and labels what is visible of them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.data.synthetic import backdrop, labels, painting
from rmpe_jax.data.synthetic.figure import PARTS, Figure, paint_figure
from rmpe_jax.data.synthetic.painting import Canvas
from rmpe_jax.data.synthetic.placement import Occluder

MAX_FIGURES = (painting.OBJECT - 1) // len(PARTS)  # each part has an id of one byte
_MIN_VISIBLE = 4  # visible joints; nobody would label a person with fewer
_MIN_AREA = 0.025  # of the square of the standing height; an unoccluded person has about 0.15


@dataclasses.dataclass(frozen=True)
class Painted:
    """A painted image of n people and what is visible in it; fields as in `Scene`."""

    image: UInt8[np.ndarray, "h w 3"]
    keypoints: Float[np.ndarray, "n 17 2"]
    visibility: UInt8[np.ndarray, "n 17"]
    instances: UInt8[np.ndarray, "h w"]
    area: Int[np.ndarray, " n"]


def paint_background(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """A canvas with a background, clutter and a direction of light, but without people.

    Args:
      rng: source of all randomness.
      size: (height, width) of the image.
    """
    angle = rng.uniform(-np.pi, 0)  # light comes from above
    light = np.array([np.cos(angle), np.sin(angle)])
    ids = np.full(size, painting.NOTHING, np.uint8)
    canvas = Canvas(backdrop.paint_background(rng, size), ids, light)
    backdrop.paint_clutter(canvas, rng)
    return canvas


def paint_people(
    background: Canvas, figures: Sequence[Figure], occluders: Sequence[Occluder] = ()
) -> Painted:
    """Paint people and occluders on a copy of the background, small (so distant) ones first.

    Args:
      background: without people.
      figures: one to `MAX_FIGURES` people; they may be outside the image.
      occluders: objects.
    """
    image, ids = background.image.copy(), background.ids.copy()
    canvas = dataclasses.replace(background, image=image, ids=ids)
    first_ids = [1 + len(PARTS) * index for index in range(len(figures))]
    items = [*zip(figures, first_ids, strict=True), *((o, painting.OBJECT) for o in occluders)]
    for item, owner in sorted(items, key=lambda entry: entry[0].scale):
        if isinstance(item, Figure):
            paint_figure(canvas, item, owner)
        else:
            backdrop.paint_object(canvas, np.random.default_rng(item.seed), item.bbox)
    labeled = [
        labels.label_keypoints(figure, canvas.ids, first_id)
        for figure, first_id in zip(figures, first_ids, strict=True)
    ]
    keypoints, visibility = (np.stack(column) for column in zip(*labeled, strict=True))
    person_of_id = np.zeros(256, np.uint8)
    for index, first_id in enumerate(first_ids):
        person_of_id[first_id : first_id + len(PARTS)] = index + 1
    instances = person_of_id[canvas.ids]
    area = np.bincount(instances.ravel(), minlength=len(figures) + 1)[1:]
    return Painted(canvas.image, keypoints, visibility, instances, area)


def recognizable(painted: Painted, figures: Sequence[Figure]) -> Bool[np.ndarray, " n"]:
    """Whether enough of each person is visible for an annotator to label them."""
    min_area = _MIN_AREA * np.array([figure.scale for figure in figures]) ** 2
    joints = (painted.visibility == labels.VISIBLE).sum(-1)
    return (joints >= _MIN_VISIBLE) & (painted.area >= min_area)
