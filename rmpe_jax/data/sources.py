"""People to train on, one by one, from data sets as they come or from prepared ones.

A source is a random-access sequence, picklable for worker processes; each element is a dict:

  "encoded"     bytes of the picture's file
  "name"        the picture, for messages
  "keypoints"   (k, 2) float32 image pixels, in the source's skeleton; 0 where not annotated
  "visibility"  (k,) uint8, 0 not annotated, 1 occluded, 2 visible
  "annotated"   (k,) bool, joints that the person's data set annotates at all
  "bbox"        (4,) float32 xyxy image pixels
  "person_id"   int, the data set's annotation id
  "image_id"    int or str, the data set's name of the picture

Only people with a labelled joint of that skeleton, with a box of some area, and no crowds, are in.
"""

import dataclasses
import os
from typing import Any, Protocol

import numpy as np

from rmpe_jax.data import pictures
from rmpe_jax.data.readers import records
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import Picture, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import UNION, Skeleton


class Source(Protocol):
    """What this module makes; see there."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class PersonSource:
    """The people of a data set; a picture's file is read whenever one of its people is."""

    def __init__(self, dataset: PoseDataset, skeleton: Skeleton):
        """Raises a UserError if there is nobody to train on."""
        indices = skeleton.indices_in(dataset.skeleton)
        self._annotated = indices >= 0
        found = [_trainable_people(picture, indices) for picture in dataset.pictures]
        counts = [len(people.bboxes) for people in found]
        if not sum(counts):
            raise UserError(_nobody(dataset.name, skeleton))
        # Arrays over all people, not an object for each, keep what is sent to workers small.
        self._paths = [os.fspath(picture.path) for picture in dataset.pictures]
        self._image_ids = [picture.image_id for picture in dataset.pictures]
        self._picture = np.repeat(np.arange(len(found)), counts)
        self._keypoints = np.concatenate([people.keypoints for people in found])
        self._visibility = np.concatenate([people.visibility for people in found])
        self._bboxes = np.concatenate([people.bboxes for people in found])
        self._person_ids = np.concatenate([people.person_ids for people in found])

    def __len__(self) -> int:
        return len(self._bboxes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises a PictureError if the picture's file cannot be read."""
        path = self._paths[self._picture[index]]
        return {
            "encoded": pictures.read_encoded(path),
            "name": path,
            "keypoints": self._keypoints[index],
            "visibility": self._visibility[index],
            "annotated": self._annotated,
            "bbox": self._bboxes[index],
            "person_id": int(self._person_ids[index]),
            "image_id": self._image_ids[self._picture[index]],
        }


class PreparedSource:
    """The people of a folder written by `rmpe prepare`."""

    def __init__(self, folder: str | os.PathLike, skeleton: Skeleton):
        """Raises a UserError if the folder is no prepared data or has nobody to train on."""
        from rmpe_jax.data import prepared  # slow to import, and only needed here

        self._pictures = prepared.open_prepared(folder)
        self._indices = skeleton.indices_in(UNION)
        people = prepared.read_people(folder)
        known = self._indices[self._indices >= 0]
        chosen = people.labelled[:, known].any(-1)
        if not chosen.any():
            raise UserError(_nobody(os.fspath(folder), skeleton))
        self._record, self._person = people.record[chosen], people.person[chosen]

    def __len__(self) -> int:
        return len(self._record)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self._pictures[int(self._record[index])]
        person = self._person[index]
        keypoints, visibility = records.pick_joints(
            picture["keypoints"][person], picture["visibility"][person], self._indices
        )
        return {
            "encoded": picture["encoded"],
            "name": picture["name"],
            "keypoints": keypoints,
            "visibility": visibility,
            "annotated": picture["annotated"][self._indices] & (self._indices >= 0),
            "bbox": picture["bboxes"][person],
            "person_id": int(picture["person_ids"][person]),
            "image_id": picture["image_id"],
        }


class MixedSource:
    """Sources one after the other, each as many times as asked."""

    def __init__(self, sources: tuple[Source, ...], repeats: tuple[int, ...]):
        self._sources = sources
        self._lengths = [len(source) for source in sources]
        self._ends = np.cumsum(np.multiply(self._lengths, repeats))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._ends, index, side="right"))
        start = self._ends[which - 1] if which else 0
        return self._sources[which][int(index - start) % self._lengths[which]]


def open_source(
    specs: tuple[str, ...], skeleton: Skeleton, repeats: tuple[int, ...] = ()
) -> Source:
    """The people to train on of one or more data sets.

    Args:
      specs: each as for `open_dataset`, or `prepared:FOLDER`.
      skeleton: in which the people are given.
      repeats: how many times each data set counts in an epoch; by default once.

    Raises:
      UserError: a spec or a data set cannot be used, `repeats` does not fit `specs`, or a data set
        has nobody to train on.
    """
    if not specs:
        raise UserError("no data set to train on: name one or more")
    repeats = repeats or (1,) * len(specs)
    if len(repeats) != len(specs) or min(repeats) < 1:
        line = f"repeats {repeats} do not fit {len(specs)} data sets"
        raise UserError(f"{line}: give a whole number from 1 for each")
    sources = tuple(_open_one(spec, skeleton) for spec in specs)
    return MixedSource(sources, repeats)


def _open_one(spec: str, skeleton: Skeleton) -> Source:
    kind, _, folder = spec.partition(":")
    if kind == "prepared" and folder:
        return PreparedSource(folder, skeleton)
    return PersonSource(open_dataset(spec), skeleton)


def _trainable_people(picture: Picture, indices: np.ndarray) -> Picture:
    """The people with a labelled joint among `indices`, with these joints."""
    keypoints, visibility = records.pick_joints(picture.keypoints, picture.visibility, indices)
    picture = dataclasses.replace(picture, keypoints=keypoints, visibility=visibility)
    chosen = records.trainable(picture)
    fields = ("keypoints", "visibility", "bboxes", "person_ids")
    return dataclasses.replace(picture, **{name: getattr(picture, name)[chosen] for name in fields})


def _nobody(name: str, skeleton: Skeleton) -> str:
    return (
        f"{name} has nobody to train on: no person has a labelled joint of the skeleton "
        f"{skeleton.name!r} and a box, use another data set or skeleton"
    )
