"""Poses of a file in COCO's result format, by the images of a dataset."""

import logging
import os
from typing import Any

import numpy as np

from rmpe_jax.data.labels import FoundPeople
from rmpe_jax.data.readers.annotations import (
    NUMBER,
    check_coordinates,
    extent_box,
    identifier,
    number,
    numbers,
)
from rmpe_jax.data.readers.categories import PERSON, category_of
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import image_finder
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton

_BY_EXTENT = 0.3  # score from which on a joint counts for the box of a pose without one


def load_poses(
    path: str | os.PathLike, dataset: PoseDataset, skeleton: Skeleton
) -> list[FoundPeople]:
    """The poses of a file on each image of a dataset.

    A record needs `image_id` (of the dataset, or the file name, with or without folder and
    extension) and `keypoints` (x, y, score for each joint; scores above 1 count as 1). The rest is
    optional: `annotation`, the id of the annotated person whom the pose is of; `bbox` (x, y, width,
    height), by default around the joints with a score of at least 0.3; `score`, by default the mean
    of the joints' scores. Records of other categories than person, on images that the dataset does
    not have, and whose box has no area are skipped and counted in the log.

    Args:
      path: the file: a JSON list.
      dataset: the images.
      skeleton: the joints of the poses.

    Raises:
      UserError: it is not such a file, or names an image by a file name that several images have.
    """
    source = f"poses file {path}"
    records = read_json(path, "poses file")
    if not isinstance(records, list):
        raise UserError(f"{source} is not a list of poses: give COCO's result format")
    find = image_finder(dataset, source)
    people: list[list[tuple[Any, ...]]] = [[] for _ in dataset.images]
    skipped = {"of other categories than person": 0, "on other images": 0, "without area": 0}
    for place, record in enumerate(records):
        where = f"{source}: entry {place}"
        image = find(identifier(record, "image_id", where, (*NUMBER, str)))
        if category_of(record, where, PERSON) != PERSON:
            skipped["of other categories than person"] += 1
        elif image < 0:
            skipped["on other images"] += 1
        else:
            person = _person(record, skeleton, where)
            if geometry.box_area(person[2]) > 0:
                people[image].append(person)
            else:
                skipped["without area"] += 1
    for why, count in skipped.items():
        if count:
            line = "%s: %d of %d poses are skipped: %s"
            logging.getLogger(__name__).warning(line, source, count, len(records), why)
    return [_stack(rows, skeleton.num_keypoints) for rows in people]


def _person(record: dict, skeleton: Skeleton, where: str) -> tuple[Any, ...]:
    """The fields of `FoundPeople` for one person."""
    joints = numbers(record, "keypoints", (skeleton.num_keypoints, 3), where)
    check_coordinates(joints[:, :2], "keypoints", where)
    scores = np.clip(joints[:, 2], 0, 1)
    if record.get("bbox") is None:
        bbox = extent_box(joints[:, :2], (scores >= _BY_EXTENT).astype(np.uint8))
    else:
        bbox = geometry.xyxy_from_xywh(numbers(record, "bbox", (4,), where))
        check_coordinates(bbox, "bbox", where)
    score = scores.mean() if record.get("score") is None else number(record, "score", where)
    named = record.get("annotation") is not None
    person_id = identifier(record, "annotation", where) if named else -1
    return joints[:, :2], scores, bbox, score, person_id


def _stack(rows: list[tuple[Any, ...]], num_keypoints: int) -> FoundPeople:
    empty = FoundPeople.none(num_keypoints)
    if not rows:
        return empty
    columns = zip(empty, zip(*rows, strict=True), strict=True)
    return FoundPeople(*(np.array(values, column.dtype) for column, values in columns))
