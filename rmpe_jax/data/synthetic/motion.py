"""Clips of people in motion, with exact identities: they cross, hide each other, leave, come back.

The camera stands still, at 2.2 m above the ground. Each body is projected orthographically at the
scale of its distance, and labeled like the people of a `Scene`: what is visible is decided by the
painted image.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Int, UInt8

from rmpe_jax.data.synthetic import composition, painting
from rmpe_jax.data.synthetic.anatomy import pose_body
from rmpe_jax.data.synthetic.backdrop import add_camera_effects
from rmpe_jax.data.synthetic.composition import MAX_FIGURES, Painted
from rmpe_jax.data.synthetic.figure import Figure
from rmpe_jax.data.synthetic.painting import Canvas
from rmpe_jax.data.synthetic.paths import Paths, sample_paths
from rmpe_jax.data.synthetic.placement import extent
from rmpe_jax.data.synthetic.walking import STRIDE, Walker, sample_walker, walking_pose
from rmpe_jax.errors import UserError
from rmpe_jax.ops.geometry import box_iou, clip_boxes

CLIP_SIZE = (360, 640)
FPS = 25.0
CROSSING_IOU = 0.1  # of two people's boxes, from which on they overlap

_CAMERA_HEIGHT = 2.2  # meters
_FOCAL = 1.46  # image heights
_HORIZON = 0.15  # image heights from the top


@dataclasses.dataclass(frozen=True)
class Clip:
    """The annotations of f frames with n people; each person has the same column in all frames.

    A person is absent from a frame if an annotator would not label them there: outside the image,
    or hidden except for fewer than four joints or a small area. The values of absent people are 0.

    Attributes:
      keypoints: COCO's 17 joints in image pixels, exact; 0 where not labeled.
      visibility: 0 not labeled, 1 occluded, 2 visible, as in `Scene`.
      bboxes: outer edges of the visible pixels of each person, xyxy.
      head_boxes: xyxy boxes around the heads, as a whole, also if hidden or outside the image.
      hidden: fraction of the joints inside the image that are behind another person.
      ids: 1, 2, …, n, or -1 where the person is absent.
      crossings: how often two people cross; see `count_crossings`.
      size: (height, width) of the images.
    """

    keypoints: Float[np.ndarray, "f n 17 2"]
    visibility: UInt8[np.ndarray, "f n 17"]
    bboxes: Float[np.ndarray, "f n 4"]
    head_boxes: Float[np.ndarray, "f n 4"]
    hidden: Float[np.ndarray, "f n"]
    ids: Int[np.ndarray, "f n"]
    crossings: int
    size: tuple[int, int]


def make_clip(
    seed: int,
    num_frames: int = 100,
    size: tuple[int, int] = CLIP_SIZE,
    num_people: int = 6,
    fps: float = FPS,
) -> Clip:
    """The annotations of a clip: the same for a seed on every call and in every process.

    Args:
      seed: any integer >= 0.
      num_frames: at least 1.
      size: (height, width) of the images, at least 64 each.
      num_people: 1 to `MAX_FIGURES`; not all of them are in the image all the time.
      fps: frames per second, above 0.

    Raises:
      UserError: an argument is not in these ranges.
    """
    _check(seed, num_frames, size, num_people, fps)
    frames, extents, places = [], [], []
    ids = np.full(size, painting.NOTHING, np.uint8)
    canvas = Canvas(np.zeros((*size, 3), np.uint8), ids, np.array([0.0, -1.0]))
    for figures in _figures(seed, num_frames, size, num_people, fps):
        frames.append(_annotate(composition.paint_people(canvas, figures), figures))
        extents.append(clip_boxes(np.stack([extent(figure) for figure in figures]), size))
        places.append([figure.origin[0] for figure in figures])
    columns = [np.stack(column) for column in zip(*frames, strict=True)]
    crossings = count_crossings(np.array(extents), np.array(places))
    return Clip(*columns, crossings=crossings, size=size)


def clip_images(
    seed: int,
    num_frames: int = 100,
    size: tuple[int, int] = CLIP_SIZE,
    num_people: int = 6,
    fps: float = FPS,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The RGB images of the clip that `make_clip` annotates; arguments and errors are the same."""
    _check(seed, num_frames, size, num_people, fps)
    rng = np.random.default_rng([seed, 2])
    background = composition.paint_background(rng, size)
    light = int(rng.integers(2**32))
    for figures in _figures(seed, num_frames, size, num_people, fps):
        image = composition.paint_people(background, figures).image
        yield add_camera_effects(image, np.random.default_rng(light))  # the same in all frames


def count_crossings(
    bboxes: Float[np.ndarray, "f n 4"],
    places: Float[np.ndarray, "f n"],
    threshold: float = CROSSING_IOU,
) -> int:
    """How often two people cross in a clip.

    Two people cross once in a series of frames in which the IoU of their boxes is above the
    threshold, if their order along x before the series is not the one after it.

    Args:
      bboxes: whole people's boxes, hidden or not, xyxy pixels; without area outside the image.
      places: x of each person in pixels, also outside the image.
      threshold: of the IoU.
    """
    overlap = box_iou(bboxes, bboxes) > threshold
    count = 0
    for a, b in itertools.combinations(range(bboxes.shape[1]), 2):
        series, number = scipy.ndimage.label(overlap[:, a, b])
        is_left = places[:, a] < places[:, b]
        for found in scipy.ndimage.find_objects(series, number):
            before, after = max(found[0].start - 1, 0), min(found[0].stop, len(is_left) - 1)
            count += bool(is_left[before] != is_left[after])
    return count


def _check(seed: int, num_frames: int, size: tuple[int, int], num_people: int, fps: float) -> None:
    if seed < 0:
        raise UserError(f"a clip's seed is {seed}: use an integer >= 0")
    if num_frames < 1:
        raise UserError(f"a clip of {num_frames} frames is empty: use at least 1")
    if min(size) < 64:
        raise UserError(f"a clip of size {size} is too small for people: use at least (64, 64)")
    if not 1 <= num_people <= MAX_FIGURES:
        raise UserError(f"a clip of {num_people} people: use 1 to {MAX_FIGURES}")
    if not fps > 0:
        raise UserError(f"a clip of {fps} frames per second: use a number above 0")


def _figures(
    seed: int, num_frames: int, size: tuple[int, int], num_people: int, fps: float
) -> Iterator[list[Figure]]:
    """The people of each frame."""
    rng = np.random.default_rng([seed, 3])
    walkers = [sample_walker(rng) for _ in range(num_people)]
    slope = size[1] / 2 / (_FOCAL * size[0])
    speeds = np.array([walker.speed for walker in walkers])
    paths = sample_paths(rng, speeds, num_frames, fps, slope)
    strides = np.array([STRIDE * walker.height for walker in walkers])
    cycles = rng.uniform(0, 1, num_people) + np.cumsum(paths.speeds / strides / fps, 0)
    for frame in range(num_frames):
        yield [
            _figure(walker, paths, frame, person, float(cycles[frame, person]), size)
            for person, walker in enumerate(walkers)
        ]


def _figure(
    walker: Walker, paths: Paths, frame: int, person: int, cycle: float, size: tuple[int, int]
) -> Figure:
    x, distance = paths.places[frame, person].tolist()
    tilt = float(np.degrees(np.arctan2(_CAMERA_HEIGHT - walker.height / 2, distance)))
    yaw, speed = float(paths.headings[frame, person]), float(paths.speeds[frame, person])
    skeleton = pose_body(walker.build, walking_pose(walker, cycle, speed, yaw, tilt))
    pixels = _FOCAL * size[0] / distance  # of a meter
    scale = walker.height * pixels
    soles = max(
        float(p[1]) for name, p in skeleton.points.items() if name.endswith(("heel", "toe"))
    )
    ground = _HORIZON * size[0] + _CAMERA_HEIGHT * pixels
    origin = np.array([size[1] / 2 + x * pixels, ground - scale * soles])
    return Figure(skeleton, walker.outfit, origin, scale)


def _annotate(painted: Painted, figures: list[Figure]) -> tuple[np.ndarray, ...]:
    """The first fields of `Clip` for a frame."""
    present = composition.recognizable(painted, figures)
    found = scipy.ndimage.find_objects(painted.instances, len(figures))
    empty = (slice(0, 0), slice(0, 0))
    bboxes = [(x.start, y.start, x.stop, y.stop) for y, x in (item or empty for item in found)]
    columns = (
        painted.keypoints,
        painted.visibility,
        np.array(bboxes, np.float32),
        np.stack([_head_box(figure) for figure in figures]),
        np.array([_hidden(painted, i, figure) for i, figure in enumerate(figures)]),
    )
    values = [
        np.where(_like(present, column), column, 0).astype(column.dtype) for column in columns
    ]
    return (*values, np.where(present, np.arange(1, len(figures) + 1), -1))


def _like(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    return mask.reshape(-1, *[1] * (values.ndim - 1))


def _head_box(figure: Figure) -> Float[np.ndarray, " 4"]:
    center = figure.project(figure.skeleton.points["head"])
    radius = figure.scale * figure.skeleton.build.head
    return np.concatenate([center - radius, center + radius]).astype(np.float32)


def _hidden(painted: Painted, index: int, figure: Figure) -> float:
    """Fraction of the joints inside the image where the image shows another person."""
    height, width = painted.instances.shape
    x, y = np.rint(figure.project(figure.joints)).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    shown = painted.instances[y[inside], x[inside]]
    return float(((shown > 0) & (shown != index + 1)).mean()) if inside.any() else 0.0
