"""Reader of COCO keypoint annotations (Lin et al., ECCV 2014; format of cocodataset.org)."""

import math
import os
import pathlib
from typing import Any

import numpy as np

from rmpe_jax.data.readers.annotations import (
    Person,
    check_unique,
    field,
    make_dataset,
    number,
    numbers,
)
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import COCO, Skeleton

_PERSON_CATEGORY = 1


def read_coco(folder: str | os.PathLike, split: str = "") -> PoseDataset:
    """One split of a COCO folder.

    Reads `annotations/person_keypoints_SPLIT.json` with the pictures in `SPLIT/`; without a split,
    `annotations/person_keypoints.json` with the pictures in `images/`.

    Raises:
      UserError: the annotation file cannot be used.
    """
    folder = pathlib.Path(folder)
    file_name = f"person_keypoints_{split}.json" if split else "person_keypoints.json"
    name = f"coco/{split or folder.name}"
    images = folder / (split or "images")
    return read_coco_file(folder / "annotations" / file_name, images, name, COCO)


def read_coco_file(
    annotations: pathlib.Path, images: pathlib.Path, name: str, skeleton: Skeleton
) -> PoseDataset:
    """An annotation file of COCO's form, with any skeleton.

    People without labelled joints and crowd regions are kept: evaluation needs them. Pictures are
    not looked for here; one that is missing is found when it is read.

    Args:
      annotations: the json file.
      images: folder of the pictures.
      name: of the data set.
      skeleton: the joints of "keypoints", three numbers (x, y, visibility) each.

    Raises:
      UserError: the file is missing or not JSON, an entry lacks a key or has numbers that are not
        finite or not as many as they must be, an id comes twice, an annotation is of no picture of
        the file, or nobody is in it.
    """
    return coco_dataset(
        read_json(annotations, "annotation file"), annotations, images, name, skeleton
    )


def coco_dataset(
    document: Any, annotations: pathlib.Path, images: pathlib.Path, name: str, skeleton: Skeleton
) -> PoseDataset:
    """What `read_coco_file` makes of the content of an annotation file."""
    paths = _picture_paths(document, annotations, images)
    people = {image_id: [] for image_id in paths}
    entries = field(document, "annotations", str(annotations), list)
    for place, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("category_id", 1) != _PERSON_CATEGORY:
            continue
        person_id = field(entry, "id", f"{annotations}: annotation number {place}", int)
        where = f"{annotations}: annotation {person_id}"
        image_id = field(entry, "image_id", where, (int, str))
        if image_id not in people:
            line = f"{where} is of picture {image_id!r}, which 'images' does not have"
            raise UserError(f"{line}: add it or remove the annotation")
        people[image_id].append(_person(entry, person_id, skeleton, where))
    ids = (person.person_id for of_picture in people.values() for person in of_picture)
    check_unique(ids, f"{annotations}: 'id' of the annotations")
    return make_dataset(name, skeleton, annotations, paths, people)


def _picture_paths(
    document: dict, annotations: pathlib.Path, images: pathlib.Path
) -> dict[int | str, pathlib.Path]:
    entries = field(document, "images", str(annotations), list)
    where = [f"{annotations}: image number {place}" for place in range(len(entries))]
    ids = [field(e, "id", w, (int, str)) for e, w in zip(entries, where, strict=True)]
    check_unique(ids, f"{annotations}: 'id' of the images")
    files = [field(e, "file_name", w, str) for e, w in zip(entries, where, strict=True)]
    return {image_id: images / file for image_id, file in zip(ids, files, strict=True)}


def _person(entry: dict, person_id: int, skeleton: Skeleton, where: str) -> Person:
    joints = numbers(entry, "keypoints", 3 * skeleton.num_keypoints, where).reshape(-1, 3)
    if not np.isin(joints[:, 2], (0, 1, 2)).all():
        raise UserError(f"{where} has a visibility other than 0, 1, 2: mend the file")
    bbox = geometry.xyxy_from_xywh(numbers(entry, "bbox", 4, where))
    return Person(
        keypoints=joints[:, :2],
        visibility=joints[:, 2].astype(np.uint8),
        bbox=bbox,
        area=number(entry, "area", where) if "area" in entry else float(geometry.box_area(bbox)),
        iscrowd=bool(entry.get("iscrowd", 0)),
        head_size=math.nan,
        person_id=person_id,
    )
