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

    Reads `annotations/person_keypoints_SPLIT.json` with the images in `SPLIT/`; without a split,
    `annotations/person_keypoints.json` with the images in `images/`.

    Raises:
      UserError: the annotation file is unusable.
    """
    folder = pathlib.Path(folder)
    file_name = f"person_keypoints_{split}.json" if split else "person_keypoints.json"
    name = f"coco/{split or folder.name}"
    images = folder / (split or "images")
    return read_coco_file(folder / "annotations" / file_name, images, name, COCO)


def read_coco_file(
    annotations: pathlib.Path, images: pathlib.Path, name: str, skeleton: Skeleton
) -> PoseDataset:
    """An annotation file in COCO's format, with any skeleton.

    People without labeled joints and crowd regions are kept, because evaluation needs them. Image
    files are not opened here; a missing one is reported when it is read.

    Args:
      annotations: the JSON file.
      images: folder of the images.
      name: of the dataset.
      skeleton: the joints of "keypoints", three numbers (x, y, visibility) each.

    Raises:
      UserError: the file is missing or not JSON; an entry lacks a key, or has the wrong number of
        values or values that are not finite; an id occurs twice; an annotation refers to an unknown
        image; or the file contains no people.
    """
    return coco_dataset(
        read_json(annotations, "annotation file"), annotations, images, name, skeleton
    )


def coco_dataset(
    document: Any, annotations: pathlib.Path, images: pathlib.Path, name: str, skeleton: Skeleton
) -> PoseDataset:
    """As `read_coco_file`, from the content of the annotation file."""
    paths = _image_paths(document, annotations, images)
    people = {image_id: [] for image_id in paths}
    entries = field(document, "annotations", str(annotations), list)
    for place, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("category_id", 1) != _PERSON_CATEGORY:
            continue
        person_id = field(entry, "id", f"{annotations}: annotation number {place}", int)
        where = f"{annotations}: annotation {person_id}"
        image_id = field(entry, "image_id", where, (int, str))
        if image_id not in people:
            line = f"{where} refers to image {image_id!r}, which is not in 'images'"
            raise UserError(f"{line}: add it or remove the annotation")
        people[image_id].append(_person(entry, person_id, skeleton, where))
    ids = (person.person_id for of_image in people.values() for person in of_image)
    check_unique(ids, f"{annotations}: 'id' of the annotations")
    return make_dataset(name, skeleton, annotations, paths, people)


def _image_paths(
    document: Any, annotations: pathlib.Path, images: pathlib.Path
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
        raise UserError(f"{where} has a visibility other than 0, 1, 2: fix the file")
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
