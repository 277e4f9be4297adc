"""What all readers share: checked access to annotation files, and people to a data set."""

import logging
import math
import pathlib
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data.readers.records import Picture, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton

# Where a set has no boxes they are the extent of the joints, grown by this share of it on each
# side: that is how far COCO's boxes reach beyond the joints of fully labelled people (medians of
# the four sides .10 to .14).
EXTENT_MARGIN = 0.1


class Person(NamedTuple):
    """One person; the fields of `Picture` without their first axis."""

    keypoints: Float[np.ndarray, "k 2"]
    visibility: UInt8[np.ndarray, " k"]
    bbox: Float[np.ndarray, " 4"]
    area: float
    iscrowd: bool
    head_size: float
    person_id: int


def field(entry: Any, key: str, where: str, kind: type | tuple[type, ...] = object) -> Any:
    """`entry[key]`; a UserError that says `where` if it is not there or not of that kind."""
    if not isinstance(entry, dict):
        raise UserError(f"{where} is a {type(entry).__name__}, not an object: mend the file")
    if key not in entry:
        raise UserError(f"{where} has no {key!r}: add it or use another file")
    if not isinstance(entry[key], kind) or isinstance(entry[key], bool):
        raise UserError(f"{where} has {key} = {entry[key]!r:.40}: mend the file")
    return entry[key]


def numbers(entry: dict, key: str, count: int, where: str) -> Float[np.ndarray, " count"]:
    """`entry[key]`, a list of numbers (nested or not), flat, as float32.

    Raises:
      UserError: there is none, there are not `count` of them, or one is not finite.
    """
    try:
        values = np.asarray(field(entry, key, where, list), np.float32).ravel()
    except (ValueError, TypeError):
        raise UserError(f"{where} has {key} that are not all numbers: mend the file") from None
    if values.size != count:
        raise UserError(f"{where} has {values.size} numbers in {key}, not {count}: mend the file")
    if not np.isfinite(values).all():
        raise UserError(f"{where} has {key} with NaN or infinity: mend the file")
    return values


def number(entry: dict, key: str, where: str) -> float:
    """`entry[key]`, a finite number."""
    value = field(entry, key, where, (int, float))
    if not math.isfinite(value):
        raise UserError(f"{where} has {key} = {value}: mend the file")
    return float(value)


def check_unique(values: Iterable[Hashable], where: str) -> None:
    """Raises a UserError that names the first value that comes twice."""
    seen = set()
    for value in values:
        if value in seen:
            raise UserError(f"{where} has {value!r} twice: remove one")
        seen.add(value)


def extent_box(
    keypoints: Float[np.ndarray, "k 2"], visibility: UInt8[np.ndarray, " k"]
) -> Float[np.ndarray, " 4"]:
    """Box around a person's labelled joints; of no area if there are fewer than two."""
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
    """Bring people and pictures together, both by image id.

    People whose box has no area are left out: nothing can be cropped there. One line in the log
    counts them.

    Raises:
      UserError: no pictures, or no people in them.
    """
    kept = {i: [p for p in people[i] if geometry.box_area(p.bbox) > 0] for i in paths}
    dropped = [p.person_id for i in paths for p in people[i] if geometry.box_area(p.bbox) <= 0]
    if dropped:
        logging.getLogger(__name__).warning(
            "%s: people left out because their box has no area: %d (the first: annotation %s)",
            name,
            len(dropped),
            dropped[0],
        )
    if not any(kept.values()):
        line = f"{annotations} has no people in {len(paths)} pictures: the data set is empty"
        raise UserError(f"{line}, use another file")
    pictures = tuple(_picture(i, path, kept[i], skeleton) for i, path in paths.items())
    return PoseDataset(name, skeleton, pictures, annotations)


def _picture(
    image_id: int | str, path: pathlib.Path, people: list[Person], skeleton: Skeleton
) -> Picture:
    k = skeleton.num_keypoints
    return Picture(
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
