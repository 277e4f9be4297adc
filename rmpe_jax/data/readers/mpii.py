"""Reader of MPII Human Pose (Andriluka et al., CVPR 2014) in its usual JSON format."""

import math
import os
import pathlib
from typing import Any

import numpy as np

from rmpe_jax.data.readers.annotations import (
    ImageFile,
    Person,
    check_coordinates,
    extent_box,
    field,
    make_dataset,
    number,
    numbers,
)
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import MPII


def read_mpii(folder: str | os.PathLike, split: str) -> PoseDataset:
    """One split of an MPII folder.

    Reads `annotations/SPLIT.json`, a list with one entry per person, with the images in `images/`.
    An entry has `image` (file name), `joints` (16 x 2 pixels) and `joints_vis` (16, 0 where not
    annotated). Optional: `bbox` (xyxy; by default `extent_box` of the joints) and `head_size`
    (pixels; the unit of PCKh). MPII does not mark occluded joints, so all annotated joints have
    visibility 2. Image ids are the file names, person ids the positions in the list.

    Raises:
      UserError: the file is missing, not JSON or not a list; an entry lacks a key, or has the wrong
        number of values, or values that are not finite or not believable; or the file contains no
        people.
    """
    folder = pathlib.Path(folder)
    annotations = folder / "annotations" / f"{split}.json"
    entries = read_json(annotations, "annotation file")
    if not isinstance(entries, list):
        raise UserError(f"{annotations} is not a list of people: use the usual JSON format of MPII")
    people: dict[str, list[Person]] = {}
    for place, entry in enumerate(entries):
        where = f"{annotations}: person {place}"
        file_name = field(entry, "image", where, str)
        people.setdefault(file_name, []).append(_person(entry, place, where))
    images = {file_name: ImageFile(folder / "images" / file_name) for file_name in people}
    return make_dataset(f"mpii/{split}", MPII, annotations, images, people)


def _person(entry: dict[str, Any], person_id: int, where: str) -> Person:
    k = MPII.num_keypoints
    keypoints = numbers(entry, "joints", (k, 2), where)
    visibility = np.where(numbers(entry, "joints_vis", (k,), where) > 0, 2, 0).astype(np.uint8)
    check_coordinates(keypoints[visibility > 0], "joints", where)
    has_box = entry.get("bbox") is not None
    bbox = numbers(entry, "bbox", (4,), where) if has_box else extent_box(keypoints, visibility)
    check_coordinates(bbox, "bbox", where)
    has_head = entry.get("head_size") is not None
    return Person(
        keypoints=keypoints,
        visibility=visibility,
        bbox=bbox,
        area=float(geometry.box_area(bbox)),
        iscrowd=False,
        head_size=number(entry, "head_size", where) if has_head else math.nan,
        person_id=person_id,
    )
