"""Contact sheets, and the best, median and worst people of an evaluation on one.

Images are RGB uint8 (h, w, 3).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from rmpe_jax.data.augment import crop
from rmpe_jax.data.pictures import read_picture
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.per_person import ScoredPeople, score_people
from rmpe_jax.evaluation.protocol import PersonBoxes, model_joints
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.visualize.poses import Color, Image, draw_pose

ANNOTATED: Color = (255, 255, 255)
_PAPER: Color = (252, 252, 250)
_INK: Color = (40, 42, 48)
_OUTSIDE: Color = (224, 225, 227)

_TILE = (384, 288)  # (height, width) of one person on a sheet


def contact_sheet(
    tiles: Sequence[Image], columns: int, captions: Sequence[str] | None = None
) -> Image:
    """Tiles in rows on white paper, each scaled to fit a cell of the largest one's size.

    Args:
      captions: one line under each tile, ASCII; shortened to the tile's width.
    """
    height, width = np.max([tile.shape[:2] for tile in tiles], axis=0)
    gap = max(6, width // 24)
    line = 0 if captions is None else _text_height(width) * 2
    rows = -(-len(tiles) // columns)
    size = (gap + rows * (height + line + gap), gap + columns * (width + gap), 3)
    sheet = np.full(size, _PAPER, np.uint8)
    for i, tile in enumerate(tiles):
        top = gap + (i // columns) * (height + line + gap)
        left = gap + (i % columns) * (width + gap)
        _paste(sheet[top : top + height, left : left + width], tile)
        if captions is not None:
            _write(sheet, captions[i], (left, top + height + line // 4), width, _text_height(width))
    return sheet


def _paste(cell: Image, tile: Image) -> None:
    """Put the tile in the middle of the cell, in place, as large as fits."""
    scale = min(cell.shape[0] / tile.shape[0], cell.shape[1] / tile.shape[1])
    height, width = (max(1, int(side * scale)) for side in tile.shape[:2])
    if (height, width) != tile.shape[:2]:
        tile = cv2.resize(tile, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
    cell[y : y + height, x : x + width] = tile


def _text_height(width: int) -> int:
    return max(9, width // 20)


def _write(image: Image, text: str, corner: tuple[int, int], width: int, height: int) -> None:
    """Write one line in place, `height` pixels high, its top left corner at `corner` (x, y)."""
    font, thick = cv2.FONT_HERSHEY_DUPLEX, 1
    scale = height / cv2.getTextSize("X", font, 1, thick)[0][1]
    while len(text) > 1 and cv2.getTextSize(text, font, scale, thick)[0][0] > width:
        text = text[:-1]
    base = (int(corner[0]), int(corner[1] + height))
    cv2.putText(image, text, base, font, scale, _INK, thick, cv2.LINE_AA)


def people_sheet(
    dataset: PoseDataset,
    person_boxes: PersonBoxes,
    keypoints: Float[np.ndarray, "m j 2"],
    keypoint_scores: Float[np.ndarray, "m j"],
    model_skeleton: Skeleton,
    columns: int = 6,
    threshold: float = 0.2,
) -> Image:
    """The best, the median and the worst found people of an evaluation, a row each.

    Coloured: the pose found; thin white under it: the annotation. Captions give the OKS and the
    picture's id. Arguments as in `evaluation.protocol.evaluate`; joints under `threshold` are not
    drawn.

    Raises:
      UserError: nobody is annotated in the data set, or a picture cannot be read.
    """
    joints = model_joints(model_skeleton, dataset.skeleton)
    people = score_people(dataset, person_boxes, keypoints, model_skeleton)
    if not len(people):
        raise UserError(f"{dataset.name}: nobody is annotated: there is nobody to show")
    order = np.argsort(-people.oks, kind="stable")
    columns = min(columns, len(order))
    middle = (len(order) - columns) // 2
    poses, scores = keypoints[:, joints], keypoint_scores[:, joints]
    strips = []
    for title, chosen in (
        ("Best", order[:columns]),
        ("Median", order[middle : middle + columns]),
        ("Worst", order[::-1][:columns]),
    ):
        tiles = [_person_tile(dataset, people, i, poses, scores, threshold) for i in chosen]
        captions = [_caption(dataset, people, i) for i in chosen]
        strips.append(_with_title(contact_sheet(tiles, columns, captions), title))
    return np.concatenate(strips)


def _caption(dataset: PoseDataset, people: ScoredPeople, i: int) -> str:
    found = f"OKS {people.oks[i]:.2f}" if people.box_index[i] >= 0 else "not found"
    return f"{found}  {dataset.pictures[people.picture_index[i]].image_id}"


def _with_title(sheet: Image, title: str) -> Image:
    height = _text_height(_TILE[1]) * 5 // 4
    strip = np.full((height * 2, sheet.shape[1], 3), _PAPER, np.uint8)
    _write(strip, title, (_TILE[1] // 24, height * 3 // 4), sheet.shape[1], height)
    return np.concatenate([strip, sheet])


def _person_tile(
    dataset: PoseDataset,
    people: ScoredPeople,
    i: int,
    keypoints: np.ndarray,
    keypoint_scores: np.ndarray,
    threshold: float,
) -> Image:
    """A person's surroundings with the annotated pose and, over it, the one found."""
    picture = dataset.pictures[people.picture_index[i]]
    person, found = people.person_index[i], people.box_index[i]
    image_from_tile = geometry.image_from_crop(picture.bboxes[person], _TILE, padding=1.5)
    tile_from_image = geometry.invert(image_from_tile)
    tile = _surroundings(read_picture(picture.path), image_from_tile)
    annotated = geometry.transform_points(tile_from_image, picture.keypoints[person])
    seen = picture.visibility[person] > 0
    draw_pose(tile, annotated, seen, dataset.skeleton, 1, color=ANNOTATED)
    if found >= 0:
        pose = geometry.transform_points(tile_from_image, keypoints[found])
        shown = (keypoint_scores[found] >= threshold) & np.isfinite(pose).all(-1)
        draw_pose(tile, pose, shown, dataset.skeleton, 4)
    return tile


def _surroundings(image: Image, image_from_tile: Float[np.ndarray, "2 3"]) -> Image:
    tile = crop(image, image_from_tile, _TILE)
    inside = crop(np.ones_like(image), image_from_tile, _TILE)
    return np.where(inside > 0, tile, np.array(_OUTSIDE, np.uint8))
