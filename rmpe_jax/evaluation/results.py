"""Result and detections files: COCO's result format, and AlphaPose's list of boxes.

Both are JSON lists of records `{"image_id", "category_id", "bbox", "score"}` with xywh boxes; poses
add `"keypoints": [x, y, score, ...]`. `image_id` is an integer in COCO's format, and a path or an
integer in that of AlphaPose's `--detfile`, which can have an additional `"idx"` (not used).
`category_id` is 1 for people, COCO's id, or missing; or 0 if the detector counts classes from 0.
"""

import collections
import logging
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from rmpe_jax.data.readers.annotations import NUMBER, field, identifier
from rmpe_jax.data.readers.categories import PERSON, category_of, describe
from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry

_FROM_ZERO = 0  # the id of people for detectors that count classes from 0

ImageId = int | str


def coco_results(
    image_ids: Sequence[ImageId],
    keypoints: Float[np.ndarray, "n k 2"],
    keypoint_scores: Float[np.ndarray, "n k"],
    scores: Float[np.ndarray, " n"],
    bboxes: Float[np.ndarray, "n 4"],
    bbox_scores: Float[np.ndarray, " n"] | None = None,
) -> list[dict]:
    """Poses as records of COCO's result format.

    Coordinates are rounded to a thousandth of a pixel and scores to 1e-6, so that records in memory
    and records read from a file evaluate alike.

    Args:
      image_ids: of each pose.
      keypoints: image pixels.
      keypoint_scores: of each joint.
      scores: of each pose.
      bboxes: xyxy image pixels.
      bbox_scores: of each box; stored as `bbox_score`, a key that pose NMS reads and COCO's
        evaluation ignores.
    """
    points = np.concatenate(
        [
            np.asarray(keypoints, np.float64).round(3),
            np.asarray(keypoint_scores, np.float64)[..., None].round(6),
        ],
        -1,
    )
    boxes = geometry.xywh_from_xyxy(np.asarray(bboxes, np.float64)).round(3)
    results = [
        {
            "image_id": image_id,
            "category_id": PERSON,
            "keypoints": pose.reshape(-1).tolist(),
            "score": round(float(score), 6),
            "bbox": box.tolist(),
        }
        for image_id, pose, score, box in zip(image_ids, points, scores, boxes, strict=True)
    ]
    if bbox_scores is not None:
        for result, bbox_score in zip(results, bbox_scores, strict=True):
            result["bbox_score"] = round(float(bbox_score), 6)
    return results


def person_records(path: str | os.PathLike) -> list[dict]:
    """The records of people in a file; each has `image_id`, `category_id` 1, `bbox` and `score`.

    Records of other categories are skipped and counted in the log. If no record has category 1 but
    some have category 0, these are the people, and the log says so.

    Raises:
      UserError: the file is not a list of such records, none of them is a person, or categories 0
        and 1 both occur, so that person may be either.
    """
    records = read_json(path, "detections file")
    if not isinstance(records, list):
        raise UserError(f"detections file {path} is not a list of boxes: give COCO's result format")
    records = [
        _checked(record, f"detections file {path}: entry {number}")
        for number, record in enumerate(records)
    ]
    counts = collections.Counter(record["category_id"] for record in records)
    person = person_among(counts, f"detections file {path}")
    if others := {category: n for category, n in counts.items() if category != person}:
        line = "detections file %s: boxes of other categories than person are skipped: %s"
        logging.getLogger(__name__).warning(line, path, describe(others, {}))
    people = [record for record in records if record["category_id"] == person]
    return [{**record, "category_id": PERSON} for record in people]


def _checked(record: object, where: str) -> dict:
    """A valid record with integers as ids; its category is 1 if the file gives none."""
    if not isinstance(record, dict) or not {"image_id", "bbox", "score"} <= record.keys():
        raise UserError(f"{where} needs image_id, bbox and score")
    ids = {
        "image_id": identifier(record, "image_id", where, (*NUMBER, str)),
        "category_id": category_of(record, where, PERSON),
    }
    bbox = field(record, "bbox", where, list)
    if len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        given = f"{where} has bbox = {bbox!r:.80}"
        raise UserError(f"{given}, not [x, y, width, height] in numbers: fix the file")
    if not _is_number(field(record, "score", where, NUMBER)):
        raise UserError(f"{where} has score = {record['score']!r:.40}: fix the file")
    return {**record, **ids}


def _is_number(value: object) -> bool:
    """Whether it is a number, NaN included, but no integer that is too large for a float."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, NUMBER)


def person_among(counts: Mapping[int, int], where: str) -> int:
    """The id of the category person among those of boxes or poses: 1, or 0 if nothing is of 1.

    Args:
      counts: number of records of each category.
      where: what has the records, for messages, such as "detections file x.json".

    Raises:
      UserError: there are both 0 and 1, or neither of them.
    """
    if _FROM_ZERO in counts and PERSON in counts:
        raise UserError(
            f"{where} has category 0 and category 1: person is 1 in COCO, but 0 for detectors that "
            "count classes from 0: keep only the people"
        )
    if _FROM_ZERO in counts:
        line = "%s: category 0 is taken as person, because nothing has category 1"
        logging.getLogger(__name__).warning(line, where)
        return _FROM_ZERO
    if counts and PERSON not in counts:
        raise UserError(
            f"{where} has nothing of category 1, which is person, only "
            f"{describe(counts, {})}: give people the category_id 1, or none"
        )
    return PERSON


def keypoint_array(records: Sequence[dict], num_keypoints: int) -> Float[np.ndarray, "n k 3"]:
    """(x, y, score) of the keypoints of records, as float64.

    Raises:
      UserError: a record has another number of keypoints.
    """
    for record in records:
        if len(record["keypoints"]) != 3 * num_keypoints:
            raise UserError(
                f"a result on image {record['image_id']} has {len(record['keypoints']) / 3:g} "
                f"keypoints instead of {num_keypoints}: give results in the joint set of the "
                "dataset"
            )
    keypoints = np.array([record["keypoints"] for record in records], np.float64)
    return keypoints.reshape(-1, num_keypoints, 3)


def box_arrays(
    records: list[dict],
) -> tuple[Float[np.ndarray, "m 4"], Float[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """The boxes of records of `person_records` as arrays.

    Returns:
      Boxes (xyxy image pixels), scores, and which boxes are valid: finite and with area.
    """
    boxes = np.array([record["bbox"] for record in records], np.float32).reshape(-1, 4)
    scores = np.array([record["score"] for record in records], np.float32)
    valid = np.isfinite(boxes).all(-1) & np.isfinite(scores) & (boxes[:, 2:] > 0).all(-1)
    return geometry.xyxy_from_xywh(boxes), scores, valid


def image_stem(path: str) -> str:
    """The name of an image file without folders and extension."""
    # Paths from Windows have backslashes.
    return pathlib.PurePosixPath(path.replace("\\", "/")).stem
