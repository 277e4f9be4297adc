"""Shared by all readers: checked access to annotation files, and building a `PoseDataset`."""

import logging
import math
import pathlib
import sys
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

# Boxes and labeled joints farther from the origin are mistakes. At this distance float32, in which
# joints are kept, can still tell pixels apart.
MAX_COORDINATE = 1e7

# Types of numbers in a document; those of NumPy only if a program made it.
NUMBER = (int, float, np.integer, np.floating)


class ImageFile(NamedTuple):
    """What an annotation file says of an image; fields as in `ImageRecord`."""

    path: pathlib.Path
    declared_size: tuple[int, int] | None = None
    crowd_index: float | None = None


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


def identifier(entry: Any, key: str, where: str, kind: type | tuple[type, ...] = NUMBER) -> Any:
    """`entry[key]`, an id: a whole number of at most 64 bits, or text if `kind` includes str.

    7.0 is read as 7.

    Args:
      entry: an object of a JSON document.
      key: the key.
      where: name of the entry, for messages.
      kind: the accepted types.

    Raises:
      UserError: as `field`, or the number is a fraction or has more than 64 bits.
    """
    value = field(entry, key, where, kind)
    if isinstance(value, str):
        return value
    if isinstance(value, (float, np.floating)) and not value.is_integer():
        raise UserError(f"{where} has {key} = {value!r}, not a whole number: fix the file")
    if not -(2**63) <= value < 2**63:
        line = f"{where} has {key} = {value!r:.40}, which needs more than 64 bits"
        raise UserError(f"{line}: give smaller ids")
    return int(value)


def numbers(
    entry: Any, key: str, shape: tuple[int, ...], where: str
) -> Float[np.ndarray, "*shape"]:
    """`entry[key]`, a list of numbers, flat or nested like `shape`, as a float64 array.

    Raises:
      UserError: the key is missing, a value is not a finite number, or the number of values or
        their nesting differs from `shape`.
    """
    given = field(entry, key, where, (list, tuple, np.ndarray))
    try:
        values = np.asarray(given)
    except ValueError:  # lists of different lengths
        values = np.asarray(given, object)
    if values.size and values.dtype.kind not in "biuf":
        raise UserError(f"{where} has {key} that are not all numbers: fix the file")
    count = math.prod(shape)
    if values.size != count:
        raise UserError(f"{where} has {values.size} numbers in {key}, not {count}: fix the file")
    if values.shape not in (shape, (count,)):
        line = f"{where} has {key} of shape {values.shape}, not {shape} or ({count},)"
        raise UserError(f"{line}: fix the file")
    values = values.astype(np.float64).reshape(shape)
    if not np.isfinite(values).all():
        raise UserError(f"{where} has {key} with NaN or infinity: fix the file")
    return values


def check_coordinates(values: Float[np.ndarray, "..."], key: str, where: str) -> None:
    """Raises a UserError if a box or joint is farther from the origin than `MAX_COORDINATE`."""
    if (np.abs(values) > MAX_COORDINATE).any():
        line = f"{where} has {key} of more than {MAX_COORDINATE:,.0f} pixels"
        raise UserError(f"{line}: fix the file")


def number(entry: dict, key: str, where: str) -> float:
    """`entry[key]`, a finite number."""
    value = field(entry, key, where, NUMBER)
    if not abs(value) <= sys.float_info.max:  # JSON has integers that no float can hold
        raise UserError(f"{where} has {key} = {value!r:.40}: fix the file")
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
    images: Mapping[Any, ImageFile],
    people: Mapping[Any, list[Person]],
) -> PoseDataset:
    """Combine images and people, both given by image id, to a dataset.

    People whose box has no area are skipped, because they cannot be cropped; one log line counts
    them.

    Args:
      name: of the dataset.
      skeleton: of the people's keypoints.
      annotations: the annotation file.
      images: image id -> image.
      people: image id -> people, for every image.

    Raises:
      UserError: there are no images, or no people in them.
    """
    kept = {i: [p for p in people[i] if geometry.box_area(p.bbox) > 0] for i in images}
    dropped = [p.person_id for i in images for p in people[i] if geometry.box_area(p.bbox) <= 0]
    if not any(kept.values()):
        what = f"only people whose box has no area ({len(dropped)})" if dropped else "no people"
        line = f"{annotations} has {what} in {len(images)} images: the dataset is empty"
        raise UserError(f"{line}, use another file")
    if dropped:
        logging.getLogger(__name__).warning(
            "%s: people skipped because their box has no area: %d (the first: annotation %s)",
            name,
            len(dropped),
            dropped[0],
        )
    records = tuple(_image_record(i, image, kept[i], skeleton) for i, image in images.items())
    return PoseDataset(name, skeleton, records, annotations, len(dropped))


def _image_record(
    image_id: int | str, image: ImageFile, people: list[Person], skeleton: Skeleton
) -> ImageRecord:
    n, k = len(people), skeleton.num_keypoints
    return ImageRecord(
        image_id=image_id,
        path=image.path,
        keypoints=np.array([p.keypoints for p in people], np.float32).reshape(n, k, 2),
        visibility=np.array([p.visibility for p in people], np.uint8).reshape(n, k),
        bboxes=np.array([p.bbox for p in people], np.float64).reshape(n, 4),
        area=np.array([p.area for p in people], np.float64),
        iscrowd=np.array([p.iscrowd for p in people], bool),
        head_sizes=np.array([p.head_size for p in people], np.float32),
        person_ids=np.array([p.person_id for p in people], np.int64),
        declared_size=image.declared_size,
        crowd_index=image.crowd_index,
    )
