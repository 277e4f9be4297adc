"""The boxes that a dataset is evaluated on: its annotated people, or a detector's detections."""

import collections
import dataclasses
import logging
import os

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.results import ImageId, box_arrays, person_records, image_stem


@dataclasses.dataclass(frozen=True)
class DatasetBoxes:
    """Person boxes on the images of a dataset, in the order of its images.

    Attributes:
      image_index: (m,) index into `PoseDataset.images`, ascending.
      bboxes: (m, 4) xyxy image pixels.
      scores: (m,) the detector's; 1 for ground truth.
      person_index: (m,) index into the image's people, -1 for a detector's box.
      num_skipped: boxes of a file that are missing here because they had no area or NaN.
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
    """The boxes to evaluate on: `"gt"`, or a detections file (see `results.load_detections`).

    Raises:
      UserError: the file cannot be used, or has boxes of pictures that `dataset` does not have
        (these are left out with `skip_unknown`).
    """
    if boxes == "gt":
        return _annotated_people(dataset)
    return load_detections(boxes, dataset, skip_unknown)


def load_detections(
    path: str | os.PathLike, dataset: PoseDataset, skip_unknown: bool = False
) -> DatasetBoxes:
    """Person boxes of a detections file, in COCO's or AlphaPose's form.

    A picture is known by the data set's `image_id`, else by its file name with or without folder
    and extension. Other categories than person are dropped; a record without a category is one.

    Args:
      skip_unknown: leave out boxes of pictures that `dataset` does not have, for one file over
        several splits.

    Raises:
      UserError: not a detections file, or (without `skip_unknown`) boxes of unknown pictures.
    """
    records = person_records(path)
    find = _picture_finder(dataset)
    index = np.array([find(record["image_id"]) for record in records], np.int64)
    known = index >= 0
    if not known.all() and not skip_unknown:
        unknown = [r["image_id"] for r, ok in zip(records, known, strict=True) if not ok]
        raise _unknown_pictures(path, unknown, dataset)
    bboxes, scores, sound = box_arrays(path, records)
    if num_skipped := int((known & ~sound).sum()):
        logging.getLogger(__name__).warning(
            "%s: %d boxes without area or with NaN are left out", path, num_skipped
        )
    chosen = np.flatnonzero(known & sound)
    chosen = chosen[np.argsort(index[chosen], kind="stable")]
    nobody = np.full(len(chosen), -1)
    return DatasetBoxes(index[chosen], bboxes[chosen], scores[chosen], nobody, num_skipped)


def _annotated_people(dataset: PoseDataset) -> DatasetBoxes:
    people = [
        (i, person)
        for i, picture in enumerate(dataset.images)
        for person in np.flatnonzero(~picture.iscrowd & (picture.visibility > 0).any(-1))
    ]
    image_index, person_index = np.array(people, np.int64).reshape(-1, 2).T
    bboxes = [dataset.images[i].bboxes[person] for i, person in people]
    bboxes = np.array(bboxes, np.float32).reshape(-1, 4)
    return DatasetBoxes(image_index, bboxes, np.ones(len(bboxes), np.float32), person_index)


def _picture_finder(dataset: PoseDataset):
    """A function from an `image_id` of a file to the picture's index, -1 if there is none."""
    by_id = {picture.image_id: i for i, picture in enumerate(dataset.images)}
    # Two pictures of one stem in different folders cannot be told apart by it.
    stems = collections.Counter(picture.path.stem for picture in dataset.images)
    by_stem = {p.path.stem: i for i, p in enumerate(dataset.images) if stems[p.path.stem] == 1}

    def find(image_id: ImageId) -> int:
        if image_id in by_id:
            return by_id[image_id]
        return by_stem.get(image_stem(image_id), -1) if isinstance(image_id, str) else -1

    return find


def _unknown_pictures(path, unknown: list[ImageId], dataset: PoseDataset) -> UserError:
    names = list(dict.fromkeys(unknown))
    first = ", ".join(str(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return UserError(
        f"detections file {path}: {len(names)} of its pictures are not in {dataset.name} "
        f"({first}): give the file made for these pictures, or skip the unknown ones"
    )
