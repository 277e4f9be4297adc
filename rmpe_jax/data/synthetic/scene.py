"""A scene: people and things composed in a picture, with everything an annotator would know."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data.synthetic import backdrop, labels, painting
from rmpe_jax.data.synthetic.anatomy import pose_body, sample_build, sample_pose
from rmpe_jax.data.synthetic.detector import Detections, detect
from rmpe_jax.data.synthetic.figure import PARTS, Figure, paint_figure
from rmpe_jax.data.synthetic.outfit import sample_outfit
from rmpe_jax.data.synthetic.painting import Canvas
from rmpe_jax.errors import UserError
from rmpe_jax.geometry import box_area, box_iou

SIZE = (256, 320)
MAX_PEOPLE = 6
_PEOPLE_SHARES = (0.20, 0.25, 0.23, 0.16, 0.10, 0.06)  # of pictures with 1, 2, ... people
_TALLEST = (1.0, 0.9, 0.8, 0.7, 0.62, 0.55)  # standing height over picture height, by people
_SHORTEST = 0.27
_MIN_VISIBLE = 4  # joints; with fewer in sight nobody would label the person
_MIN_AREA = 0.004  # of the picture


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


@dataclasses.dataclass(frozen=True)
class _Prop:
    """A thing that stands before some of the people; `seed` draws its looks."""

    bbox: Float[np.ndarray, " 4"]
    depth: float
    seed: int


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
    figures = _place_people(rng, size)
    props = _place_props(rng, figures, size)
    stage = _empty_stage(rng, size)
    while True:
        canvas, keypoints, visibility, instances = _perform(stage, figures, props)
        area = np.bincount(instances.ravel(), minlength=len(figures) + 1)[1:]
        enough = (visibility == labels.VISIBLE).sum(-1) >= _MIN_VISIBLE
        enough &= area >= _MIN_AREA * instances.size
        if enough.all():
            break
        if not enough.any():  # props hide everyone
            props = []
        else:
            figures = [figure for figure, keep in zip(figures, enough, strict=True) if keep]
    bboxes = np.stack([labels.silhouette_box(instances == i + 1) for i in range(len(figures))])
    return Scene(
        image=backdrop.develop(canvas.image, rng),
        keypoints=keypoints,
        visibility=visibility,
        bboxes=bboxes,
        area=area.astype(np.float32),
        instances=instances,
        detections=detect(bboxes, size, np.random.default_rng([seed, 1])),
    )


def _empty_stage(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    angle = rng.uniform(-np.pi, 0)  # the light comes from above
    light = np.array([np.cos(angle), np.sin(angle)])
    ids = np.full(size, painting.NOTHING, np.uint8)
    stage = Canvas(backdrop.paint_background(rng, size), ids, light)
    backdrop.paint_clutter(stage, rng)
    return stage


def _place_people(rng: np.random.Generator, size: tuple[int, int]) -> list[Figure]:
    """People at places where they do not hide each other too much, the farthest first."""
    wanted = 1 + rng.choice(MAX_PEOPLE, p=_PEOPLE_SHARES)
    figures = [_random_figure(rng, size, _TALLEST[wanted - 1])]
    boxes = [_extent(figures[0])]
    for _ in range(5 * wanted):
        if len(figures) == wanted:
            break
        figure = _random_figure(rng, size, _TALLEST[wanted - 1])
        box, limit = _extent(figure), 0.25 if rng.random() < 0.7 else 0.6
        if _overlap(box, np.stack(boxes)).max() <= limit:
            figures.append(figure)
            boxes.append(box)
    return sorted(figures, key=lambda figure: figure.scale)


def _random_figure(rng: np.random.Generator, size: tuple[int, int], tallest: float) -> Figure:
    """A person inside the picture or, one in six, partly beyond its edge."""
    frame = np.array([size[1], size[0]])
    scale = frame[1] * np.exp(rng.uniform(np.log(_SHORTEST), np.log(tallest)))
    skeleton, outfit = pose_body(sample_build(rng), sample_pose(rng)), sample_outfit(rng)
    figure = Figure(skeleton, outfit, np.zeros(2), scale)
    extent = _extent(figure)
    shrink = min(1.0, float((0.97 * frame / (extent[2:] - extent[:2])).min()))
    extent, scale = shrink * extent, shrink * scale
    # Small people are far away and so rather high in the picture, but seldom at its top.
    place = rng.uniform((0.0, 0.25), (1.0, 1.0)) * (frame - (extent[2:] - extent[:2]))
    if rng.random() < 1 / 6:
        beyond = ((-1, 0), (1, 0), (0, 1), (0, 1))[rng.integers(4)]
        edge = np.where(np.array(beyond) > 0, frame - (extent[2:] - extent[:2]), 0)
        place = np.where(np.array(beyond) != 0, edge, place)
        place = place + rng.uniform(0.1, 0.45) * np.array(beyond) * (extent[2:] - extent[:2])
    return dataclasses.replace(figure, origin=place - extent[:2], scale=scale)


def _extent(figure: Figure) -> Float[np.ndarray, " 4"]:
    points = figure.project(np.stack(list(figure.skeleton.points.values())))
    margin = 0.06 * figure.scale
    return np.concatenate([points.min(0) - margin, points.max(0) + margin])


def _overlap(box: np.ndarray, others: np.ndarray) -> Float[np.ndarray, " n"]:
    """Intersection over the smaller box."""
    iou = box_iou(box[None], others)[0]
    areas = box_area(others) + box_area(box)
    return iou * areas / (1 + iou) / np.minimum(box_area(others), box_area(box))


def _place_props(
    rng: np.random.Generator, figures: list[Figure], size: tuple[int, int]
) -> list[_Prop]:
    """Things before some people, none so large as to hide a person."""
    props = []
    for _ in range(rng.poisson(0.25 * len(figures))):
        figure = figures[rng.integers(len(figures))]
        extent = _extent(figure)
        sides = (extent[2:] - extent[:2]) * rng.uniform(0.2, 0.6, 2)
        center = extent[:2] + rng.uniform(0, 1, 2) * (extent[2:] - extent[:2])
        bbox = np.concatenate([center - sides / 2, center + sides / 2])
        props.append(_Prop(bbox, figure.scale * 1.02, int(rng.integers(2**32))))
    return props


def _perform(
    stage: Canvas, figures: list[Figure], props: list[_Prop]
) -> tuple[Canvas, np.ndarray, np.ndarray, np.ndarray]:
    """Paint everybody on a copy of the stage and note what is seen of them."""
    canvas = dataclasses.replace(stage, image=stage.image.copy(), ids=stage.ids.copy())
    first_ids = [1 + len(PARTS) * index for index in range(len(figures))]
    cast = [(figure.scale, figure, i) for figure, i in zip(figures, first_ids, strict=True)]
    cast += [(prop.depth, prop, painting.OBJECT) for prop in props]
    for _, item, owner in sorted(cast, key=lambda entry: entry[0]):
        if isinstance(item, Figure):
            paint_figure(canvas, item, owner)
        else:
            backdrop.paint_object(canvas, np.random.default_rng(item.seed), item.bbox)
    labelled = [
        labels.label_keypoints(figure, canvas.ids, i)
        for figure, i in zip(figures, first_ids, strict=True)
    ]
    keypoints, visibility = (np.stack(column) for column in zip(*labelled, strict=True))
    person_of = np.zeros(256, np.uint8)
    for index, i in enumerate(first_ids):
        person_of[i : i + len(PARTS)] = index + 1
    return canvas, keypoints, visibility, person_of[canvas.ids]
