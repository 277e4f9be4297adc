"""The boxes that a dataset is evaluated on: those of its annotated people, or a detector's."""

import collections
import dataclasses
import logging
import os
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.results import ImageId, box_arrays, image_stem, person_records


@dataclasses.dataclass(frozen=True)
class DatasetBoxes:
    """Person boxes on the images of a dataset, sorted by image.

    Attributes:
      image_index: (m,) index into `PoseDataset.images`, ascending.
      bboxes: (m, 4) xyxy image pixels.
      scores: (m,) of the detector; 1 for ground truth.
      person_index: (m,) index into the image's people; -1 for a detector's box.
      num_skipped: number of boxes of the file that were skipped: without area, or not finite.
    """

    image_index: Int[np.ndarray, " m"]
    bboxes: Float[np.ndarray, "m 4"]
    scores: Float[np.ndarray, " m"]
    person_index: Int[np.ndarray, " m"]
    num_skipped: int = 0

    def __len__(self) -> int:
        return len(self.bboxes)


def load_boxes(
    dataset: PoseDataset, boxes: str | os.PathLike, skip_unknown: bool = False
) -> DatasetBoxes:
    """The boxes to evaluate on.

    Args:
      dataset: the annotated images.
      boxes: `"gt"` for the boxes of annotated people who are not a crowd and have a labeled joint,
        or a detections file (see `load_detections`).
      skip_unknown: skip boxes on images that `dataset` does not have.

    Raises:
      UserError: the file cannot be used, or (without `skip_unknown`) has boxes on unknown images.
    """
    if boxes == "gt":
        return _annotated_people(dataset)
    return load_detections(boxes, dataset, skip_unknown)


def load_detections(
    path: str | os.PathLike, dataset: PoseDataset, skip_unknown: bool = False
) -> DatasetBoxes:
    """Person boxes of a detections file in COCO's or AlphaPose's format.

    Images are identified by the `image_id` of the dataset, or by the file name, with or without
    folder and extension. What is skipped is counted in the log: boxes of other categories than
    person (see `person_records`), boxes without area or with NaN, boxes on unknown images.

    Args:
      path: the file.
      dataset: the annotated images.
      skip_unknown: skip boxes on images that `dataset` does not have, for a file that covers
        several splits.

    Raises:
      UserError: it is not a detections file, names an image by a file name that several images
        have, or (without `skip_unknown`) has boxes on unknown images.
    """
    log = logging.getLogger(__name__)
    records = person_records(path)
    find = image_finder(dataset, f"detections file {path}")
    index = np.array([find(record["image_id"]) for record in records], np.int64)
    known = index >= 0
    if not known.all() and not skip_unknown:
        unknown = [r["image_id"] for r, ok in zip(records, known, strict=True) if not ok]
        raise _unknown_images_error(path, unknown, dataset)
    if num_unknown := int((~known).sum()):
        line = "%s: skipped %d boxes on images that are not in %s"
        log.warning(line, path, num_unknown, dataset.name)
    bboxes, scores, valid = box_arrays(records)
    if num_skipped := int((known & ~valid).sum()):
        log.warning("%s: skipped %d boxes without area or with NaN", path, num_skipped)
    used = np.flatnonzero(known & valid)
    used = used[np.argsort(index[used], kind="stable")]
    person_index = np.full(len(used), -1)
    return DatasetBoxes(index[used], bboxes[used], scores[used], person_index, num_skipped)


def _annotated_people(dataset: PoseDataset) -> DatasetBoxes:
    people = [
        (i, person)
        for i, record in enumerate(dataset.images)
        for person in np.flatnonzero(~record.iscrowd & (record.visibility > 0).any(-1))
    ]
    image_index, person_index = np.array(people, np.int64).reshape(-1, 2).T
    bboxes = [dataset.images[i].bboxes[person] for i, person in people]
    bboxes = np.array(bboxes, np.float32).reshape(-1, 4)
    return DatasetBoxes(image_index, bboxes, np.ones(len(bboxes), np.float32), person_index)


def image_finder(dataset: PoseDataset, source: str) -> Callable[[ImageId], int]:
    """A function from the `image_id` in a file to the index of the image, -1 if there is none.

    It raises a `UserError` for a file name that several images have.

    Args:
      dataset: the images.
      source: the file, for messages, such as "detections file x.json".
    """
    by_id = {record.image_id: i for i, record in enumerate(dataset.images)}
    by_stem: dict[ImageId, list[int]] = collections.defaultdict(list)
    for i, record in enumerate(dataset.images):
        stem = record.path.stem
        by_stem[stem].append(i)
        # `rmpe predict` writes numbers for such names, also of datasets whose ids are names.
        if isinstance(record.image_id, str) and stem.isascii() and stem.isdecimal():
            by_stem[int(stem)].append(i)

    def find(image_id: ImageId) -> int:
        if image_id in by_id:
            return by_id[image_id]
        key = image_stem(image_id) if isinstance(image_id, str) else image_id
        found = by_stem.get(key, [])
        if len(found) > 1:
            first, second = (dataset.images[i].path for i in found[:2])
            raise UserError(
                f"{source}: {image_id} may be {first} or {second}: give the "
                f"image_id of {dataset.name}, such as {dataset.images[found[0]].image_id}"
            )
        return found[0] if found else -1

    return find


def _unknown_images_error(
    path: str | os.PathLike, unknown: list[ImageId], dataset: PoseDataset
) -> UserError:
    names = list(dict.fromkeys(unknown))
    first = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return UserError(
        f"detections file {path}: {len(names)} of its images are not in {dataset.name} "
        f"({first}): give the file for these images, or skip the others with --skip-unknown"
    )
