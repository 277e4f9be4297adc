"""Shared by all readers: checked access to annotation files, and building a `PoseDataset`."""

import logging
import math
import pathlib
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton

# If a dataset has no boxes, a box is the extent of the joints, grown by this fraction on each side.
# COCO's boxes extend this far beyond the joints of fully labeled people (medians of the four sides
# .10 to .14).
EXTENT_MARGIN = 0.1


class Person(NamedTuple):
    """One person; fields as in `ImageRecord`, without the first axis."""

    keypoints: Float[np.ndarray, "k 2"]
    visibility: UInt8[np.ndarray, " k"]
    bbox: Float[np.ndarray, " 4"]
    area: float
    iscrowd: bool
    head_size: float
    person_id: int


def field(entry: Any, key: str, where: str, kind: type | tuple[type, ...] = object) -> Any:
    """Return `entry[key]`.

    Args:
      entry: an object of a JSON document.
      key: the key.
      where: name of the entry, for messages.
      kind: the required type or types; bool does not count as a number.

    Raises:
      UserError: `entry` is not an object, the key is missing, or the value has the wrong type.
    """
    if not isinstance(entry, dict):
        raise UserError(f"{where} is a {type(entry).__name__}, not an object: fix the file")
    if key not in entry:
        raise UserError(f"{where} has no {key!r}: add it or use another file")
    if not isinstance(entry[key], kind) or isinstance(entry[key], bool):
        raise UserError(f"{where} has {key} = {entry[key]!r:.40}: fix the file")
    return entry[key]


def numbers(entry: dict, key: str, count: int, where: str) -> Float[np.ndarray, " count"]:
    """`entry[key]`, a (possibly nested) list of numbers, as a flat float32 array.

    Raises:
      UserError: the key is missing, the list does not have `count` numbers, or one is not finite.
    """
    try:
        values = np.asarray(field(entry, key, where, list), np.float32).ravel()
    except (ValueError, TypeError):
        raise UserError(f"{where} has {key} that are not all numbers: fix the file") from None
    if values.size != count:
        raise UserError(f"{where} has {values.size} numbers in {key}, not {count}: fix the file")
    if not np.isfinite(values).all():
        raise UserError(f"{where} has {key} with NaN or infinity: fix the file")
    return values


def number(entry: dict, key: str, where: str) -> float:
    """`entry[key]`, a finite number."""
    value = field(entry, key, where, (int, float))
    if not math.isfinite(value):
        raise UserError(f"{where} has {key} = {value}: fix the file")
    return float(value)


def check_unique(values: Iterable[Hashable], where: str) -> None:
    """Raises a UserError that names the first duplicate value."""
    seen = set()
    for value in values:
        if value in seen:
            raise UserError(f"{where} has {value!r} twice: remove one")
        seen.add(value)


def extent_box(
    keypoints: Float[np.ndarray, "k 2"], visibility: UInt8[np.ndarray, " k"]
) -> Float[np.ndarray, " 4"]:
    """Box (xyxy) around a person's labeled joints; without area if fewer than two are labeled."""
    if not visibility.any():
        return np.zeros(4, np.float32)
    return geometry.keypoint_extent(keypoints, visibility, EXTENT_MARGIN)


def make_dataset(
    name: str,
    skeleton: Skeleton,
    annotations: pathlib.Path,
    paths: Mapping[Any, pathlib.Path],
    people: Mapping[Any, list[Person]],
) -> PoseDataset:
    """Combine images and people, both given by image id, to a dataset.

    People whose box has no area are skipped, because they cannot be cropped; one log line counts
    them.

    Args:
      name: of the dataset.
      skeleton: of the people's keypoints.
      annotations: the annotation file.
      paths: image id -> image file.
      people: image id -> people, for every image.

    Raises:
      UserError: there are no images, or no people in them.
    """
    kept = {i: [p for p in people[i] if geometry.box_area(p.bbox) > 0] for i in paths}
    dropped = [p.person_id for i in paths for p in people[i] if geometry.box_area(p.bbox) <= 0]
    if dropped:
        logging.getLogger(__name__).warning(
            "%s: people skipped because their box has no area: %d (the first: annotation %s)",
            name,
            len(dropped),
            dropped[0],
        )
    if not any(kept.values()):
        line = f"{annotations} has no people in {len(paths)} images: the dataset is empty"
        raise UserError(f"{line}, use another file")
    images = tuple(_image_record(i, path, kept[i], skeleton) for i, path in paths.items())
    return PoseDataset(name, skeleton, images, annotations)


def _image_record(
    image_id: int | str, path: pathlib.Path, people: list[Person], skeleton: Skeleton
) -> ImageRecord:
    k = skeleton.num_keypoints
    return ImageRecord(
        image_id=image_id,
        path=path,
        keypoints=np.array([p.keypoints for p in people], np.float32).reshape(-1, k, 2),
        visibility=np.array([p.visibility for p in people], np.uint8).reshape(-1, k),
        bboxes=np.array([p.bbox for p in people], np.float32).reshape(-1, 4),
        area=np.array([p.area for p in people], np.float32),
        iscrowd=np.array([p.iscrowd for p in people], bool),
        head_sizes=np.array([p.head_size for p in people], np.float32),
        person_ids=np.array([p.person_id for p in people], np.int64),
    )
