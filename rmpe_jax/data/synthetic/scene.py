"""Composes people and objects to an image, with complete annotations."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data.synthetic import backdrop, composition, labels
from rmpe_jax.data.synthetic.detector import ScoredBoxes, detect
from rmpe_jax.data.synthetic.placement import place_occluders, place_people
from rmpe_jax.errors import UserError

SIZE = (256, 320)


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
    background = composition.paint_background(rng, size)
    painted = composition.paint_people(background, figures, occluders)
    kept = composition.recognizable(painted, figures)
    if not kept.all():  # remove the others and paint again, so they hide nobody
        if not kept.any():
            kept[np.argmax([figure.scale for figure in figures])], occluders = True, []
        figures = [figure for figure, keep in zip(figures, kept, strict=True) if keep]
        painted = composition.paint_people(background, figures, occluders)
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
