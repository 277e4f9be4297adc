"""Reader of COCO keypoint annotations (Lin et al., ECCV 2014; format of cocodataset.org)."""

import collections
import logging
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.readers.annotations import (
    MAX_COORDINATE,
    NUMBER,
    ImageFile,
    Person,
    check_coordinates,
    check_unique,
    field,
    identifier,
    make_dataset,
    numbers,
)
from rmpe_jax.data.readers.categories import (
    category_of,
    describe,
    joint_order,
    person_category,
    read_categories,
)
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import COCO, Skeleton

_MAX_AREA = 1e10  # COCO's evaluation ignores people with a larger area

_Joints = Float[np.ndarray, "k 3"]  # x, y, visibility


def read_coco(folder: str | os.PathLike, split: str = "") -> PoseDataset:
    """One split of a COCO folder.

    Reads `annotations/person_keypoints_SPLIT.json` with the images in `SPLIT/`; without a split,
    `annotations/person_keypoints.json` with the images in `images/`.

    Raises:
      UserError: the annotation file is unusable.
    """
    folder = pathlib.Path(folder)
    file_name = f"person_keypoints_{split}.json" if split else "person_keypoints.json"
    path = folder / "annotations" / file_name
    document = read_json(path, "annotation file")
    name = f"coco/{split or folder.name}"
    return coco_dataset(document, path, folder / (split or "images"), name, COCO)


def coco_dataset(
    document: Any,
    annotations: pathlib.Path,
    images: pathlib.Path | None,
    name: str,
    skeleton: Skeleton,
    *,
    read_joints: Callable[[dict, str], _Joints] | None = None,
    check_num_keypoints: bool = True,
) -> PoseDataset:
    """The content of an annotation file in COCO's format, with any skeleton.

    People without labeled joints and crowd regions are kept, because evaluation needs them. Image
    files are not opened here; a missing one is reported when it is read.

    Defaults: `iscrowd` is 0, `area` that of the box, `category_id` that of people. An `area` that
    is null, NaN, not positive or too large and a `num_keypoints` that is not the number of labeled
    joints are not used. Annotations of other categories than person are left out. Each of these
    three is logged in one line with the number of annotations.

    Args:
      document: the content of the file.
      annotations: the file.
      images: folder of the images; None if no image will be read.
      name: of the dataset.
      skeleton: the joints of "keypoints", three numbers (x, y, visibility) each; if it has none,
        "keypoints" is not read.
      read_joints: the joints of an annotation, whose name for messages is the second argument; by
        default those in "keypoints".
      check_num_keypoints: whether `num_keypoints` counts the labeled joints of the skeleton.

    Raises:
      UserError: an entry lacks a key, or has the wrong number of values, or values that are not
        numbers, not finite or not believable; an id occurs twice; an annotation refers to an
        unknown image; joints have other names than the skeleton's; or there are no people.
    """
    where = str(annotations)
    files = _image_files(document, where, images)
    known = read_categories(document, where)
    category = person_category(known, where)
    entries = _people(document, where, known, category)
    order = joint_order(known.get(category, {}), skeleton, where)
    read_joints = read_joints or _keypoints_of(skeleton)
    people: dict[int | str, list[Person]] = {image_id: [] for image_id in files}
    for person_id, entry in entries.items():
        called = f"{where}: annotation {person_id}"
        image_id = identifier(entry, "image_id", called, (*NUMBER, str))
        if image_id not in people:
            line = f"{called} refers to image {image_id!r}, which is not in 'images'"
            raise UserError(f"{line}: add it or remove the annotation")
        joints = read_joints(entry, called)[order]
        people[image_id].append(_person(entry, person_id, joints, called))
    areas = [i for i, entry in entries.items() if not _believed(entry.get("area", 1), _MAX_AREA)]
    what = "area is null, NaN, not positive or above 1e10"
    _report(areas, what, "the area of the box is used", where)
    if check_num_keypoints and skeleton.joints:
        everybody = (person for of_image in people.values() for person in of_image)
        wrong = [p.person_id for p in everybody if not _is_count(entries[p.person_id], p)]
        what = "num_keypoints is not the number of labeled joints"
        _report(wrong, what, "the labeled joints are counted", where)
    return make_dataset(name, skeleton, annotations, files, people)


def _image_files(
    document: Any, where: str, folder: pathlib.Path | None
) -> dict[int | str, ImageFile]:
    entries = field(document, "images", where, list)
    called = [f"{where}: image number {place}" for place in range(len(entries))]
    ids = [identifier(e, "id", w, (*NUMBER, str)) for e, w in zip(entries, called, strict=True)]
    check_unique(ids, f"{where}: 'id' of the images")
    files = [_image_file(e, w, folder) for e, w in zip(entries, called, strict=True)]
    return dict(zip(ids, files, strict=True))


def _image_file(entry: dict, where: str, folder: pathlib.Path | None) -> ImageFile:
    # Paths from Windows have backslashes.
    name = field(entry, "file_name", where, str).replace("\\", "/") if folder else ""
    width, height = (_believed(entry.get(key), MAX_COORDINATE) for key in ("width", "height"))
    crowd_index = entry.get("crowdIndex")
    return ImageFile(
        path=(folder or pathlib.Path()) / name,
        declared_size=(round(width), round(height)) if min(width, height) >= 1 else None,
        crowd_index=0.0 if crowd_index == 0 else _believed(crowd_index, 1.0) or None,
    )


def _people(
    document: dict, where: str, known: Mapping[int, dict], category: int
) -> dict[int, dict]:
    """The annotations of people by id; those of other categories are logged."""
    others: collections.Counter[int] = collections.Counter()
    people = []
    for place, entry in enumerate(field(document, "annotations", where, list)):
        called = f"{where}: annotation number {place}"
        found = category_of(entry, called, category)
        if found == category:
            people.append((identifier(entry, "id", called), entry))
        else:
            others[found] += 1
    check_unique((person_id for person_id, _ in people), f"{where}: 'id' of the annotations")
    if others and not people:
        raise UserError(
            f"{where} has no people, who are of category {category}, but {describe(others, known)}"
            ": change their category_id, or name their category person in 'categories'"
        )
    if others:
        line = "%s: annotations of other categories than person are left out: %d (%s)"
        log = logging.getLogger(__name__)
        log.warning(line, where, others.total(), describe(others, known))
    return dict(people)


def _keypoints_of(skeleton: Skeleton) -> Callable[[dict, str], _Joints]:
    def read(entry: dict, where: str) -> _Joints:
        if not skeleton.joints:
            return np.zeros((0, 3))
        joints = numbers(entry, "keypoints", (skeleton.num_keypoints, 3), where)
        if not set(joints[:, 2].tolist()) <= {0, 1, 2}:
            raise UserError(f"{where} has a visibility other than 0, 1, 2: fix the file")
        return joints

    return read


def _person(entry: dict, person_id: int, joints: _Joints, where: str) -> Person:
    labeled = joints[:, 2] > 0
    check_coordinates(joints[labeled, :2], "keypoints", where)
    box = numbers(entry, "bbox", (4,), where)
    check_coordinates(box, "bbox", where)
    if entry.get("area") is not None:
        field(entry, "area", where, NUMBER)
    iscrowd = entry.get("iscrowd")
    if iscrowd not in (None, 0, 1):
        raise UserError(f"{where} has iscrowd = {iscrowd!r:.40}, not 0 or 1: fix the file")
    width, height = box[2:].tolist()
    box_area = max(width, 0.0) * max(height, 0.0)
    if box_area > _MAX_AREA:
        raise UserError(f"{where} has bbox of {box_area:.3g} square pixels: fix the file")
    return Person(
        keypoints=np.where(labeled[:, None], joints[:, :2], 0),
        visibility=joints[:, 2].astype(np.uint8),
        bbox=geometry.xyxy_from_xywh(box),
        area=_believed(entry.get("area"), _MAX_AREA) or box_area,
        iscrowd=bool(iscrowd),
        head_size=math.nan,
        person_id=person_id,
    )


def _believed(value: Any, maximum: float) -> float:
    """A number above 0 and up to `maximum`; 0 for all other values."""
    is_number = isinstance(value, NUMBER) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value <= maximum else 0.0


def _is_count(entry: dict, person: Person) -> bool:
    count = int(np.count_nonzero(person.visibility))  # compared with a list, NumPy's give an array
    return bool(entry.get("num_keypoints", count) == count)


def _report(ids: list[int], what: str, instead: str, where: str) -> None:
    """One line on the annotations in which a value is not used."""
    if ids:
        line = "%s: %s in %d annotations (the first: %d): %s"
        logging.getLogger(__name__).warning(line, where, what, len(ids), ids[0], instead)
