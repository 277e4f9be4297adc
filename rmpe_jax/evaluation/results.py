"""Result and detections files: COCO's result format, and AlphaPose's list of boxes.

Both are JSON lists of records `{"image_id", "category_id", "bbox", "score"}` with xywh boxes; poses
add `"keypoints": [x, y, score, ...]`. `image_id` is an integer in COCO's format, and a path or an
integer in that of AlphaPose's `--detfile`, which can have an additional `"idx"` (not used).
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry

PERSON = 1  # COCO's category id

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
    """The records of people in a file; each has `image_id`, `bbox` and `score`.

    Raises:
      UserError: the file is not a list of such records.
    """
    records = read_json(path, "detections file")
    if not isinstance(records, list):
        raise UserError(f"detections file {path} is not a list of boxes: give COCO's result format")
    for number, record in enumerate(records):
        if not isinstance(record, dict) or not {"image_id", "bbox", "score"} <= record.keys():
            raise UserError(
                f"detections file {path}: entry {number} needs image_id, bbox and score"
            )
        if not isinstance(record["image_id"], (int, str)):
            raise UserError(
                f"detections file {path}: the image_id of entry {number} is neither "
                "an integer nor a file name"
            )
    return [record for record in records if record.get("category_id", PERSON) == PERSON]


def box_arrays(
    path: str | os.PathLike, records: list[dict]
) -> tuple[Float[np.ndarray, "m 4"], Float[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """The boxes of records as arrays.

    Args:
      path: of the file, for messages.
      records: of `person_records`.

    Returns:
      Boxes (xyxy image pixels), scores, and which boxes are valid: finite and with area.

    Raises:
      UserError: a bbox is not four numbers, or a score is not a number.
    """
    try:
        boxes = np.array([record["bbox"] for record in records], np.float32).reshape(-1, 4)
        scores = np.array([record["score"] for record in records], np.float32).reshape(-1)
        if not len(boxes) == len(scores) == len(records):
            raise ValueError
    except (TypeError, ValueError):
        raise UserError(
            f"detections file {path}: every bbox must be [x, y, width, height] and every score "
            "a number"
        ) from None
    valid = np.isfinite(boxes).all(-1) & np.isfinite(scores) & (boxes[:, 2:] > 0).all(-1)
    return geometry.xyxy_from_xywh(boxes), scores, valid


def image_stem(path: str) -> str:
    """The name of an image file without folders and extension."""
    # Paths from Windows have backslashes.
    return pathlib.PurePosixPath(path.replace("\\", "/")).stem
