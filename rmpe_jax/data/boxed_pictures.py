"""Pictures with the boxes of the people in them, to train a detector on.

Where bystanders are not annotated, another detector's boxes say where they are, as soft labels: the
surer it was, the more a box weighs, and where it was in doubt nothing is learned about background.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rmpe_jax.data import pictures
from rmpe_jax.data.readers.records import Picture
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry

SURE = 0.6  # detections of this score or more weigh as much as an annotated box
LIKELY = 0.4  # below it a detection that no annotation confirms is no person, but perhaps
PERHAPS = 0.2  # one; and below this it is nobody
SAME_PERSON = 0.5  # intersection over union
UNCONFIRMED = 0.5  # weight of annotated people whom the detector missed: the extent of some joints


class BoxLabels(NamedTuple):
    """What is known about the people in a picture, in pixels.

    Attributes:
      bboxes: of people, xyxy.
      weights: of people, more than 0, at most 1.
      ignored: regions, xyxy, where there may be people or not.
    """

    bboxes: Float[np.ndarray, "n 4"]
    weights: Float[np.ndarray, " n"]
    ignored: Float[np.ndarray, "m 4"]


def annotated_labels(picture: Picture) -> BoxLabels:
    """Of a picture in which everybody is annotated: its people, with crowds ignored."""
    people = picture.bboxes[~picture.iscrowd]
    return BoxLabels(people, np.ones(len(people), np.float32), picture.bboxes[picture.iscrowd])


def soft_labels(
    picture: Picture, bboxes: Float[np.ndarray, "d 4"], scores: Float[np.ndarray, " d"]
) -> BoxLabels:
    """Of a picture whose annotated boxes are extents of joints and not everybody's.

    A detection that overlaps an annotated person is that person's box, and certain. Other ones
    count by their score from `LIKELY` on; the middle of those between `PERHAPS` and `LIKELY` is
    ignored, where their centre would be. Annotated people without a detection have their own box.

    Args:
      picture: the annotated people, and crowds.
      bboxes: a detector's, xyxy image pixels, without duplicates.
      scores: of `bboxes`, 0 to 1.
    """
    people = picture.bboxes[~picture.iscrowd]
    overlap = geometry.box_iou(people, bboxes)
    confirmed = (overlap >= SAME_PERSON).any(0)
    missed = people[~(overlap >= SAME_PERSON).any(1)]
    found = confirmed | (scores >= LIKELY)
    doubtful = ~found & (scores >= PERHAPS)
    weights = np.where(confirmed, 1, np.minimum(scores / SURE, 1))[found]
    return BoxLabels(
        np.concatenate([bboxes[found], missed]).astype(np.float32),
        np.concatenate([weights, np.full(len(missed), UNCONFIRMED)]).astype(np.float32),
        np.concatenate([picture.bboxes[picture.iscrowd], _middle(bboxes[doubtful])]),
    )


def _middle(bboxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Boxes of half the width and height."""
    quarter = (bboxes[:, 2:] - bboxes[:, :2]) / 4
    return np.concatenate([bboxes[:, :2] + quarter, bboxes[:, 2:] - quarter], -1)


@dataclasses.dataclass(frozen=True)
class LabelledPictures:
    """Pictures of several data sets, each as many times as asked; random access, picklable.

    An element is a dict of "encoded" (the file's bytes), "name" (for messages) and "labels"
    (`BoxLabels`).

    Attributes:
      paths: of the pictures' files.
      labels: of each.
      order: which picture each element is.
    """

    paths: tuple[str, ...]
    labels: tuple[BoxLabels, ...]
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises a PictureError if the picture's file cannot be read."""
        which = int(self.order[index])
        path = self.paths[which]
        return {
            "encoded": pictures.read_encoded(path),
            "name": path,
            "labels": self.labels[which],
        }


def label_pictures(
    data_sets: Sequence[Sequence[tuple[str | os.PathLike, BoxLabels]]], repeats: Sequence[int]
) -> LabelledPictures:
    """All pictures of data sets, those of each as often as its `repeats` say.

    Raises:
      UserError: there is nobody in them, or not one number of repeats for each.
    """
    if len(repeats) != len(data_sets) or min(repeats, default=0) < 1:
        line = f"repeats {tuple(repeats)} do not fit {len(data_sets)} data sets"
        raise UserError(f"{line}: give a whole number from 1 for each")
    flat = [labelled for data_set in data_sets for labelled in data_set]
    if not any(len(labels.bboxes) for _, labels in flat):
        raise UserError("no people to train on: the data sets are empty")
    ends = np.cumsum([len(data_set) for data_set in data_sets])
    ranges = [
        np.tile(np.arange(end - len(data_set), end), times)
        for data_set, end, times in zip(data_sets, ends, repeats, strict=True)
    ]
    return LabelledPictures(
        paths=tuple(os.fspath(path) for path, _ in flat),
        labels=tuple(labels for _, labels in flat),
        order=np.concatenate(ranges),
    )
