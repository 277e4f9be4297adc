"""Composes people and objects to an image, with complete annotations."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.data.synthetic import backdrop, labels, painting
from rmpe_jax.data.synthetic.detector import ScoredBoxes, detect
from rmpe_jax.data.synthetic.figure import PARTS, Figure, paint_figure
from rmpe_jax.data.synthetic.painting import Canvas
from rmpe_jax.data.synthetic.placement import Occluder, place_occluders, place_people
from rmpe_jax.errors import UserError

SIZE = (256, 320)
_MIN_VISIBLE = 4  # visible joints; nobody would label a person with fewer
_MIN_AREA = 0.025  # of the square of the standing height; an unoccluded person has about 0.15


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image of n people and its annotations; pixel centers are at integers, boxes are xyxy.

    Attributes:
      image: RGB.
      keypoints: COCO's 17 joints, exact; 0 where not labeled.
      visibility: 0 not labeled (outside the image, or face turned away), 1 occluded, 2 visible.
      bboxes: outer edges of the visible pixels of each person, as in COCO.
      area: number of pixels that show each person.
      instances: for each pixel 0, or 1 + the index of the person it shows.
      detections: boxes of a simulated detector of medium quality.
    """

    image: UInt8[np.ndarray, "h w 3"]
    keypoints: Float[np.ndarray, "n 17 2"]
    visibility: UInt8[np.ndarray, "n 17"]
    bboxes: Float[np.ndarray, "n 4"]
    area: Float[np.ndarray, " n"]
    instances: UInt8[np.ndarray, "h w"]
    detections: ScoredBoxes


def make_scene(seed: int, size: tuple[int, int] = SIZE) -> Scene:
    """Generate the scene of a seed: the same on every call and in every process.

    Args:
      seed: any integer >= 0.
      size: (height, width) of the image, at least 64 each.

    Returns:
      A scene of one to `MAX_PEOPLE` people. People with fewer than four visible joints or too
      little visible area are removed. If nobody would remain, the tallest person is kept and the
      occluders are removed.

    Raises:
      UserError: the seed is negative or the size too small.
    """
    if seed < 0:
        raise UserError(f"a scene's seed is {seed}: use an integer >= 0")
    if min(size) < 64:
        raise UserError(f"a scene of size {size} is too small for people: use at least (64, 64)")
    rng = np.random.default_rng(seed)
    figures = place_people(rng, size)
    occluders = place_occluders(rng, figures)
    background = _paint_background(rng, size)
    painted = _paint_scene(background, figures, occluders)
    recognizable = _recognizable(painted, figures)
    if not recognizable.all():  # remove these people and paint again, so they hide nobody
        if not recognizable.any():
            recognizable[np.argmax([figure.scale for figure in figures])], occluders = True, []
        figures = [figure for figure, keep in zip(figures, recognizable, strict=True) if keep]
        painted = _paint_scene(background, figures, occluders)
    masks = [painted.instances == index + 1 for index in range(len(figures))]
    bboxes = np.stack([labels.silhouette_box(mask) for mask in masks])
    return Scene(
        image=backdrop.add_camera_effects(painted.image, rng),
        keypoints=painted.keypoints,
        visibility=painted.visibility,
        bboxes=bboxes,
        area=painted.area.astype(np.float32),
        instances=painted.instances,
        detections=detect(bboxes, size, np.random.default_rng([seed, 1])),
    )


@dataclasses.dataclass(frozen=True)
class _Painted:
    """The painted image and what is visible in it; fields as in `Scene`."""

    image: UInt8[np.ndarray, "h w 3"]
    keypoints: Float[np.ndarray, "n 17 2"]
    visibility: UInt8[np.ndarray, "n 17"]
    instances: UInt8[np.ndarray, "h w"]
    area: Int[np.ndarray, " n"]


def _recognizable(painted: _Painted, figures: list[Figure]) -> Bool[np.ndarray, " n"]:
    """Whether enough of each person is visible for an annotator to label them."""
    min_area = _MIN_AREA * np.array([figure.scale for figure in figures]) ** 2
    joints = (painted.visibility == labels.VISIBLE).sum(-1)
    return (joints >= _MIN_VISIBLE) & (painted.area >= min_area)


def _paint_background(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    angle = rng.uniform(-np.pi, 0)  # light comes from above
    light = np.array([np.cos(angle), np.sin(angle)])
    ids = np.full(size, painting.NOTHING, np.uint8)
    canvas = Canvas(backdrop.paint_background(rng, size), ids, light)
    backdrop.paint_clutter(canvas, rng)
    return canvas


def _paint_scene(background: Canvas, figures: list[Figure], occluders: list[Occluder]) -> _Painted:
    """Paint people and occluders on a copy of the background, small (so distant) ones first."""
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
    return _Painted(canvas.image, keypoints, visibility, instances, area)
