"""A scene: people and things composed in a picture, with everything an annotator would know."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.data.synthetic import backdrop, labels, painting
from rmpe_jax.data.synthetic.detector import Detections, detect
from rmpe_jax.data.synthetic.figure import PARTS, Figure, paint_figure
from rmpe_jax.data.synthetic.painting import Canvas
from rmpe_jax.data.synthetic.placement import Prop, place_people, place_props
from rmpe_jax.errors import UserError

SIZE = (256, 320)
_MIN_VISIBLE = 4  # joints; with fewer in sight nobody would label the person
_MIN_AREA = 0.025  # of the square of the standing height; a whole person takes about 0.15


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture of n people; pixels have their centres at integers, boxes are (x1, y1, x2, y2).

    Attributes:
      image: RGB picture.
      keypoints: COCO's 17 joints, exact; 0 where not labelled.
      visibility: 0 not labelled (outside the picture, face turned away), 1 occluded, 2 visible.
      bboxes: outer edges of what is seen of each person, COCO's convention.
      area: number of pixels that show the person.
      instances: per pixel 0, or 1 + index of the person it shows.
      detections: boxes as a middling detector reports them.
    """

    image: UInt8[np.ndarray, "h w 3"]
    keypoints: Float[np.ndarray, "n 17 2"]
    visibility: UInt8[np.ndarray, "n 17"]
    bboxes: Float[np.ndarray, "n 4"]
    area: Float[np.ndarray, " n"]
    instances: UInt8[np.ndarray, "h w"]
    detections: Detections


def scene(seed: int, size: tuple[int, int] = SIZE) -> Scene:
    """Draw the scene that belongs to a seed: the same on every call and in every process.

    Args:
      seed: any integer from 0.
      size: (height, width) of the picture, at least 64 each.

    Returns:
      A picture of one to `MAX_PEOPLE` people, each with at least four joints in sight.

    Raises:
      UserError: the seed is negative or the size too small.
    """
    if seed < 0:
        raise UserError(f"a scene's seed is {seed}: use an integer from 0")
    if min(size) < 64:
        raise UserError(f"a scene of size {size} is too small for people: use at least (64, 64)")
    rng = np.random.default_rng(seed)
    figures = place_people(rng, size)
    props = place_props(rng, figures)
    stage = _empty_stage(rng, size)
    played = _perform(stage, figures, props)
    enough = _recognisable(played, figures)
    if not enough.all():  # who is too well hidden leaves, and so hides nobody either
        if not enough.any():
            enough[np.argmax([figure.scale for figure in figures])], props = True, []
        figures = [figure for figure, keep in zip(figures, enough, strict=True) if keep]
        played = _perform(stage, figures, props)
    masks = [played.instances == index + 1 for index in range(len(figures))]
    bboxes = np.stack([labels.silhouette_box(mask) for mask in masks])
    return Scene(
        image=backdrop.develop(played.image, rng),
        keypoints=played.keypoints,
        visibility=played.visibility,
        bboxes=bboxes,
        area=played.area.astype(np.float32),
        instances=played.instances,
        detections=detect(bboxes, size, np.random.default_rng([seed, 1])),
    )


@dataclasses.dataclass(frozen=True)
class _Played:
    """Everybody painted, and what is seen of them; fields as in `Scene`."""

    image: UInt8[np.ndarray, "h w 3"]
    keypoints: Float[np.ndarray, "n 17 2"]
    visibility: UInt8[np.ndarray, "n 17"]
    instances: UInt8[np.ndarray, "h w"]
    area: Int[np.ndarray, " n"]


def _recognisable(played: _Played, figures: list[Figure]) -> Bool[np.ndarray, " n"]:
    """Enough is seen of a person for anybody to label it."""
    smallest = _MIN_AREA * np.array([figure.scale for figure in figures]) ** 2
    joints = (played.visibility == labels.VISIBLE).sum(-1)
    return (joints >= _MIN_VISIBLE) & (played.area >= smallest)


def _empty_stage(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    angle = rng.uniform(-np.pi, 0)  # the light comes from above
    light = np.array([np.cos(angle), np.sin(angle)])
    ids = np.full(size, painting.NOTHING, np.uint8)
    stage = Canvas(backdrop.paint_background(rng, size), ids, light)
    backdrop.paint_clutter(stage, rng)
    return stage


def _perform(stage: Canvas, figures: list[Figure], props: list[Prop]) -> _Played:
    """Paint everybody on a copy of the stage, the small and so far ones first."""
    canvas = dataclasses.replace(stage, image=stage.image.copy(), ids=stage.ids.copy())
    first_ids = [1 + len(PARTS) * index for index in range(len(figures))]
    cast = [*zip(figures, first_ids, strict=True), *((prop, painting.OBJECT) for prop in props)]
    for item, owner in sorted(cast, key=lambda entry: entry[0].scale):
        if isinstance(item, Figure):
            paint_figure(canvas, item, owner)
        else:
            backdrop.paint_object(canvas, np.random.default_rng(item.seed), item.bbox)
    labelled = [
        labels.label_keypoints(figure, canvas.ids, first_id)
        for figure, first_id in zip(figures, first_ids, strict=True)
    ]
    keypoints, visibility = (np.stack(column) for column in zip(*labelled, strict=True))
    person_of_id = np.zeros(256, np.uint8)
    for index, first_id in enumerate(first_ids):
        person_of_id[first_id : first_id + len(PARTS)] = index + 1
    instances = person_of_id[canvas.ids]
    area = np.bincount(instances.ravel(), minlength=len(figures) + 1)[1:]
    return _Played(canvas.image, keypoints, visibility, instances, area)
