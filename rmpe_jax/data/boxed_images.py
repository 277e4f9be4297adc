"""Images labeled with people's boxes, for training a detector.

If bystanders are not annotated, boxes of another detector serve as soft labels. A box weighs more
the higher its score, and doubtful boxes are ignored: they count neither as people nor as
background.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.data.images import read_encoded
from rmpe_jax.data.readers.records import ImageRecord
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry

# Scores of detections that match no annotated person:
FULL_WEIGHT_SCORE = 0.6  # from here on a detection weighs as much as an annotated box
PERSON_SCORE = 0.4  # from here on it counts as a person, below it is doubtful
DOUBTFUL_SCORE = 0.2  # below this it is discarded
MATCH_IOU = 0.5  # from here on a detection and an annotated box are the same person
MISSED_WEIGHT = 0.5  # of annotated people missed by the detector: their boxes are joint extents


class BoxLabels(NamedTuple):
    """Labels of one image, in image pixels.

    Attributes:
      bboxes: people's boxes, xyxy.
      weights: of the boxes, above 0 and at most 1.
      ignored: regions, xyxy, that may or may not contain people.
    """

    bboxes: Float[np.ndarray, "n 4"]
    weights: Float[np.ndarray, " n"]
    ignored: Float[np.ndarray, "m 4"]


def annotated_labels(record: ImageRecord) -> BoxLabels:
    """Labels of an image in which everybody is annotated: all people; crowds are ignored."""
    bboxes = record.bboxes.astype(np.float32)
    people = bboxes[~record.iscrowd]
    return BoxLabels(people, np.ones(len(people), np.float32), bboxes[record.iscrowd])


def soft_labels(
    record: ImageRecord, bboxes: Float[np.ndarray, "d 4"], scores: Float[np.ndarray, " d"]
) -> BoxLabels:
    """Labels of an image in which some people are unannotated and boxes are extents of joints.

    A detection that overlaps an annotated person replaces that person's box, with weight 1. Other
    detections with a score of at least `PERSON_SCORE` are people, weighted by score. For those
    between `DOUBTFUL_SCORE` and `PERSON_SCORE`, the middle of the box is ignored, because that is
    where the person's center would be. Annotated people without a detection keep their own box.

    Args:
      record: the annotated people and crowds.
      bboxes: a detector's boxes after NMS, xyxy image pixels.
      scores: of `bboxes`, 0 to 1.
    """
    people = record.bboxes[~record.iscrowd]
    overlap = geometry.box_iou(people, bboxes)
    matched = (overlap >= MATCH_IOU).any(0)
    missed = people[~(overlap >= MATCH_IOU).any(1)]
    found = matched | (scores >= PERSON_SCORE)
    doubtful = ~found & (scores >= DOUBTFUL_SCORE)
    weights = np.where(matched, 1, np.minimum(scores / FULL_WEIGHT_SCORE, 1))[found]
    return BoxLabels(
        np.concatenate([bboxes[found], missed]).astype(np.float32),
        np.concatenate([weights, np.full(len(missed), MISSED_WEIGHT)]).astype(np.float32),
        np.concatenate([record.bboxes[record.iscrowd], _middle(bboxes[doubtful])]),
    )


def _middle(bboxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Boxes with the same centers and half the width and height."""
    quarter = (bboxes[:, 2:] - bboxes[:, :2]) / 4
    return np.concatenate([bboxes[:, :2] + quarter, bboxes[:, 2:] - quarter], -1)


@dataclasses.dataclass(frozen=True)
class LabeledImages:
    """Images of several datasets, each repeated as requested; random access, picklable.

    An element is a dict of "encoded" (the file's bytes), "name" (for messages) and "labels"
    (`BoxLabels`).

    Attributes:
      paths: of the image files.
      labels: of each image.
      order: (n,) index of the image that each of the n elements is.
    """

    paths: tuple[str, ...]
    labels: tuple[BoxLabels, ...]
    order: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises an ImageError if the image file cannot be read."""
        image_index = int(self.order[index])
        path = self.paths[image_index]
        return {
            "encoded": read_encoded(path),
            "name": path,
            "labels": self.labels[image_index],
        }


def label_images(
    datasets: Sequence[Sequence[tuple[str | os.PathLike, BoxLabels]]], repeats: Sequence[int]
) -> LabeledImages:
    """Concatenate datasets, each a sequence of (path, labels), repeated `repeats` times.

    Raises:
      UserError: the datasets contain no people, or `repeats` is not one positive number for each.
    """
    if len(repeats) != len(datasets) or min(repeats, default=0) < 1:
        line = f"repeats {tuple(repeats)} do not fit {len(datasets)} datasets"
        raise UserError(f"{line}: give one whole number >= 1 for each")
    flat = [labeled for dataset in datasets for labeled in dataset]
    if not any(len(labels.bboxes) for _, labels in flat):
        raise UserError("no people to train on: the datasets are empty")
    ends = np.cumsum([len(dataset) for dataset in datasets])
    ranges = [
        np.tile(np.arange(end - len(dataset), end), times)
        for dataset, end, times in zip(datasets, ends, repeats, strict=True)
    ]
    return LabeledImages(
        paths=tuple(os.fspath(path) for path, _ in flat),
        labels=tuple(labels for _, labels in flat),
        order=np.concatenate(ranges),
    )
