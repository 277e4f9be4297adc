"""Contact sheets, for example of the best, median and worst people of an evaluation.

Images are RGB uint8 (h, w, 3).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from rmpe_jax.data.augment import crop
from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.per_person import ScoredPeople, score_people
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.ops import geometry
from rmpe_jax.visualize.poses import Color, Image, draw_pose

ANNOTATION_COLOR: Color = (255, 255, 255)
_BACKGROUND_COLOR: Color = (252, 252, 250)
_TEXT_COLOR: Color = (40, 42, 48)
_OUTSIDE_COLOR: Color = (224, 225, 227)  # for the part of a tile outside the image

_TILE_SIZE = (384, 288)  # (height, width) of one person on a sheet


def contact_sheet(
    tiles: Sequence[Image], columns: int, captions: Sequence[str] | None = None
) -> Image:
    """Arranges tiles in rows on a white background.

    Args:
      tiles: images. Each is scaled to fit a cell with the size of the largest tile.
      columns: tiles per row.
      captions: one line of ASCII text per tile, cut to the width of a cell.
    """
    height, width = np.max([tile.shape[:2] for tile in tiles], axis=0).tolist()
    gap = max(6, width // 24)
    line_height = 0 if captions is None else _text_height(width) * 2
    rows = -(-len(tiles) // columns)
    size = (gap + rows * (height + line_height + gap), gap + columns * (width + gap), 3)
    sheet = np.full(size, _BACKGROUND_COLOR, np.uint8)
    for i, tile in enumerate(tiles):
        top = gap + (i // columns) * (height + line_height + gap)
        left = gap + (i % columns) * (width + gap)
        _paste(sheet[top : top + height, left : left + width], tile)
        if captions is not None:
            corner = (left, top + height + line_height // 4)
            _write(sheet, captions[i], corner, width, _text_height(width))
    return sheet


def _paste(cell: Image, tile: Image) -> None:
    """Draws the tile in the middle of the cell, in place, as large as fits."""
    scale = min(cell.shape[0] / tile.shape[0], cell.shape[1] / tile.shape[1])
    height, width = (max(1, int(side * scale)) for side in tile.shape[:2])
    if (height, width) != tile.shape[:2]:
        tile = cv2.resize(tile, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
    cell[y : y + height, x : x + width] = tile


def _text_height(width: int) -> int:
    return max(9, width // 20)


def _write(image: Image, text: str, corner: tuple[int, int], width: int, height: int) -> None:
    """Writes one line in place.

    Args:
      image: the image to write on.
      text: the line, in ASCII; cut to `width`.
      corner: (x, y) of the top left corner of the line.
      width: maximum width of the line in pixels.
      height: height of capital letters in pixels.
    """
    font, thickness = cv2.FONT_HERSHEY_DUPLEX, 1
    scale = height / cv2.getTextSize("X", font, 1, thickness)[0][1]
    while len(text) > 1 and cv2.getTextSize(text, font, scale, thickness)[0][0] > width:
        text = text[:-1]
    bottom_left = (corner[0], corner[1] + height)
    cv2.putText(image, text, bottom_left, font, scale, _TEXT_COLOR, thickness, cv2.LINE_AA)


def people_sheet(predictions: PosePredictions, columns: int = 6, threshold: float = 0.2) -> Image:
    """Draws the people with the best, median and worst OKS of an evaluation, one row each.

    Predicted poses are drawn in color over the annotated ones, which are thin and white. Captions
    give the OKS and the id of the image. An image that cannot be read is gray.

    Args:
      predictions: the evaluated predictions.
      columns: people per row.
      threshold: predicted joints with lower scores are not drawn.

    Raises:
      UserError: the dataset has no annotated people.
    """
    predictions = predictions.in_dataset_skeleton()
    dataset = predictions.dataset
    people = score_people(predictions)
    if not len(people):
        raise UserError(f"{dataset.name}: nobody is annotated: use a dataset with annotations")
    order = np.argsort(-people.oks, kind="stable").tolist()
    columns = min(columns, len(order))
    middle = (len(order) - columns) // 2
    strips = []
    for title, chosen in (
        ("Best", order[:columns]),
        ("Median", order[middle : middle + columns]),
        ("Worst", order[::-1][:columns]),
    ):
        tiles = [_person_tile(predictions, people, i, threshold) for i in chosen]
        captions = [_caption(dataset, people, i) for i in chosen]
        strips.append(_with_title(contact_sheet(tiles, columns, captions), title))
    return np.concatenate(strips)


def _caption(dataset: PoseDataset, people: ScoredPeople, i: int) -> str:
    found = f"OKS {people.oks[i]:.2f}" if people.box_index[i] >= 0 else "not found"
    return f"{found}  {dataset.images[people.image_index[i]].image_id}"


def _with_title(sheet: Image, title: str) -> Image:
    height = _text_height(_TILE_SIZE[1]) * 5 // 4
    strip = np.full((height * 2, sheet.shape[1], 3), _BACKGROUND_COLOR, np.uint8)
    _write(strip, title, (_TILE_SIZE[1] // 24, height * 3 // 4), sheet.shape[1], height)
    return np.concatenate([strip, sheet])


def _person_tile(
    predictions: PosePredictions, people: ScoredPeople, i: int, threshold: float
) -> Image:
    """A crop around a person with the annotated pose and, over it, the predicted one."""
    skeleton = predictions.skeleton
    record = predictions.dataset.images[people.image_index[i]]
    person, found = people.person_index[i], people.box_index[i]
    image_from_tile = geometry.image_from_crop(record.bboxes[person], _TILE_SIZE, padding=1.5)
    tile_from_image = geometry.invert(image_from_tile)
    try:
        tile = _crop_tile(read_image(record.path), image_from_tile)
    except ImageError:  # was reported when poses were predicted
        tile = np.full((*_TILE_SIZE, 3), _OUTSIDE_COLOR, np.uint8)
    annotated = geometry.transform_points(tile_from_image, record.keypoints[person])
    draw_pose(tile, annotated, record.visibility[person] > 0, skeleton, 1.0, color=ANNOTATION_COLOR)
    if found >= 0:
        pose = geometry.transform_points(tile_from_image, predictions.keypoints[found])
        confident = predictions.keypoint_scores[found] >= threshold
        draw_pose(tile, pose, confident & np.isfinite(pose).all(-1), skeleton, 4.0)
    return tile


def _crop_tile(image: Image, image_from_tile: Float[np.ndarray, "2 3"]) -> Image:
    tile = crop(image, image_from_tile, _TILE_SIZE)
    inside = crop(np.ones_like(image), image_from_tile, _TILE_SIZE)
    return np.where(inside > 0, tile, np.array(_OUTSIDE_COLOR, np.uint8))
