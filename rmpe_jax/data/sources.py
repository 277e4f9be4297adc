"""Sources of single people to train on, from original or prepared datasets.

A source is a random-access sequence, picklable for worker processes. Each element is a dict:

  "encoded"     bytes of the image file
  "name"        of the image, for messages
  "keypoints"   (k, 2) float32 image pixels, in the skeleton of the source; 0 where not annotated
  "visibility"  (k,) uint8, 0 not annotated, 1 occluded, 2 visible
  "annotated"   (k,) bool, whether the person's dataset annotates the joint at all
  "bbox"        (4,) float32 xyxy image pixels
  "person_id"   int, the dataset's annotation id
  "image_id"    int or str, the dataset's image id

A source contains only people with a labeled joint of its skeleton and a box with area, not crowds.
"""

import dataclasses
import os
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from rmpe_jax.data.images import read_encoded
from rmpe_jax.data.inspection import inspect_dataset
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset, pick_joints, trainable
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import UNION, Skeleton


@runtime_checkable
class Source(Protocol):
    """A random-access sequence of people; see the module docstring for its elements."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class PersonSource:
    """The people of a dataset; the image file is read for each person."""

    def __init__(self, dataset: PoseDataset, skeleton: Skeleton):
        """Raises a UserError if there are no people to train on."""
        indices = skeleton.indices_in(dataset.skeleton)
        self._annotated = indices >= 0
        records = [_trainable_people(record, indices) for record in dataset.images]
        counts = [len(record.bboxes) for record in records]
        if not sum(counts):
            purpose = f"train on with the skeleton {skeleton.name!r}"
            inspect_dataset(dataset, skeleton, {}).require_people(purpose)
        # Arrays over all people, instead of one object per person, are small to send to workers.
        self._paths = [os.fspath(record.path) for record in records]
        self._image_ids = [record.image_id for record in records]
        self._image_index = np.repeat(np.arange(len(records)), counts)
        self._keypoints = np.concatenate([record.keypoints for record in records])
        self._visibility = np.concatenate([record.visibility for record in records])
        self._bboxes = np.concatenate([record.bboxes for record in records], dtype=np.float32)
        self._person_ids = np.concatenate([record.person_ids for record in records])

    def __len__(self) -> int:
        return len(self._bboxes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises an ImageError if the image file cannot be read."""
        path = self._paths[self._image_index[index]]
        return {
            "encoded": read_encoded(path),
            "name": path,
            "keypoints": self._keypoints[index],
            "visibility": self._visibility[index],
            "annotated": self._annotated,
            "bbox": self._bboxes[index],
            "person_id": int(self._person_ids[index]),
            "image_id": self._image_ids[self._image_index[index]],
        }


class PreparedSource:
    """The people of a folder written by `rmpe prepare`."""

    def __init__(self, folder: str | os.PathLike, skeleton: Skeleton):
        """Raises a UserError if the folder is not prepared or has no people to train on."""
        from rmpe_jax.data import prepared  # slow to import, and only needed here

        self._images = prepared.open_prepared(folder)
        self._indices = skeleton.indices_in(UNION)
        people = prepared.read_people(folder)
        known = self._indices[self._indices >= 0]
        chosen = people.labeled[:, known].any(-1)
        if not chosen.any():
            raise UserError(
                f"{os.fspath(folder)} has no people to train on: no person has a labeled joint of "
                f"the skeleton {skeleton.name!r}; use another dataset or skeleton"
            )
        self._record_index = people.record_index[chosen]
        self._person_index = people.person_index[chosen]

    def __len__(self) -> int:
        return len(self._record_index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._images[int(self._record_index[index])]
        person = self._person_index[index]
        keypoints, visibility = pick_joints(
            record["keypoints"][person], record["visibility"][person], self._indices
        )
        return {
            "encoded": record["encoded"],
            "name": record["name"],
            "keypoints": keypoints,
            "visibility": visibility,
            "annotated": record["annotated"][self._indices] & (self._indices >= 0),
            "bbox": record["bboxes"][person],
            "person_id": int(record["person_ids"][person]),
            "image_id": record["image_id"],
        }


class MixedSource:
    """A concatenation of sources, each repeated the given number of times.

    Attributes:
      parts: the sources.
      repeats: of each.
    """

    def __init__(self, parts: tuple[Source, ...], repeats: tuple[int, ...]):
        self.parts, self.repeats = parts, repeats
        self._lengths = [len(part) for part in parts]
        self._ends = np.cumsum(np.multiply(self._lengths, repeats))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        source_index = int(np.searchsorted(self._ends, index, side="right"))
        start = self._ends[source_index - 1] if source_index else 0
        part, length = self.parts[source_index], self._lengths[source_index]
        return part[int(index - start) % length]


def open_source(
    specs: tuple[str | PoseDataset, ...], skeleton: Skeleton, repeats: tuple[int, ...] = ()
) -> MixedSource:
    """Open the people to train on of one or more datasets.

    Args:
      specs: each as for `open_dataset`, `prepared:FOLDER`, or a dataset that has been read.
      skeleton: the joints of the returned people.
      repeats: how many times each dataset is used in an epoch; by default once.

    Raises:
      UserError: a spec or a dataset is unusable, `repeats` does not match `specs`, or a dataset has
        no people to train on.
    """
    if not specs:
        raise UserError("no dataset to train on: name one or more")
    repeats = repeats or (1,) * len(specs)
    if len(repeats) != len(specs) or min(repeats) < 1:
        line = f"repeats {repeats} do not fit {len(specs)} datasets"
        raise UserError(f"{line}: give one whole number >= 1 for each")
    sources = tuple(_open_one(spec, skeleton) for spec in specs)
    return MixedSource(sources, repeats)


def is_prepared(spec: str) -> bool:
    """Whether a spec names a folder written by `rmpe prepare`: `prepared:FOLDER`."""
    kind, _, folder = spec.partition(":")
    return kind == "prepared" and bool(folder)


def _open_one(spec: str | PoseDataset, skeleton: Skeleton) -> Source:
    if isinstance(spec, PoseDataset):
        return PersonSource(spec, skeleton)
    if is_prepared(spec):
        return PreparedSource(spec.partition(":")[2], skeleton)
    return PersonSource(open_dataset(spec), skeleton)


def _trainable_people(record: ImageRecord, indices: Int[np.ndarray, " j"]) -> ImageRecord:
    """The people with a labeled joint among `indices`, reduced to these joints."""
    keypoints, visibility = pick_joints(record.keypoints, record.visibility, indices)
    record = dataclasses.replace(record, keypoints=keypoints, visibility=visibility)
    chosen = trainable(record)
    of_image = ("image_id", "path", "declared_size", "crowd_index")
    per_person = [f.name for f in dataclasses.fields(record) if f.name not in of_image]
    return dataclasses.replace(record, **{k: getattr(record, k)[chosen] for k in per_person})
