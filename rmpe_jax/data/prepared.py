"""Prepared data: a TFDS array_record data set of pictures with people, and an index of the people.

A record is a picture: its file's bytes and all its people, with joints in the union skeleton. The
index `people.npz` says in which record to find each person to train on. It is written last, so that
a folder without one is not complete. Writing and reading need no TensorFlow.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Int

from rmpe_jax.data.pictures import PictureError
from rmpe_jax.data.readers import records
from rmpe_jax.data.readers.records import Picture, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import UNION

_PEOPLE = "people.npz"
_SPLIT = "train"
_K = UNION.num_keypoints


class RmpePictures(tfds.core.GeneratorBasedBuilder):
    """Writes pictures with people; `keyed_records` are pairs of a unique key and `make_record`."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # to look it up, TFDS 4.9.10 needs a package that it does not require

    def __init__(self, keyed_records: Iterable[tuple[str, dict[str, Any]]] = (), **kwargs):
        self._keyed_records = keyed_records
        super().__init__(file_format="array_record", **kwargs)  # the only one without TensorFlow

    def _info(self) -> tfds.core.DatasetInfo:
        tensor = tfds.features.Tensor
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "file_name": tfds.features.Text(),
            "image_id": tfds.features.Text(),  # as JSON, which tells 7 from "7"
            "dataset": tfds.features.Text(),
            "skeleton": tfds.features.Text(),
            "annotated": tensor(shape=(_K,), dtype=np.bool_),
            "keypoints": tensor(shape=(None, _K, 2), dtype=np.float32),
            "visibility": tensor(shape=(None, _K), dtype=np.uint8),
            "bboxes": tensor(shape=(None, 4), dtype=np.float32),
            "area": tensor(shape=(None,), dtype=np.float32),
            "iscrowd": tensor(shape=(None,), dtype=np.bool_),
            "trainable": tensor(shape=(None,), dtype=np.bool_),
            "head_sizes": tensor(shape=(None,), dtype=np.float32),
            "person_ids": tensor(shape=(None,), dtype=np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures with people, joints in the union skeleton of rmpe_jax.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from self._keyed_records


def make_record(dataset: PoseDataset, picture: Picture, encoded: bytes) -> dict[str, Any]:
    """A picture of `dataset` as a record; `encoded` are the bytes of its file."""
    indices = UNION.indices_in(dataset.skeleton)
    keypoints, visibility = records.pick_joints(picture.keypoints, picture.visibility, indices)
    return {
        "image": encoded,
        "file_name": picture.path.name,
        "image_id": json.dumps(picture.image_id),
        "dataset": dataset.name,
        "skeleton": dataset.skeleton.name,
        "annotated": indices >= 0,
        "keypoints": keypoints,
        "visibility": visibility,
        "bboxes": picture.bboxes,
        "area": picture.area,
        "iscrowd": picture.iscrowd,
        "trainable": records.trainable(picture),
        "head_sizes": picture.head_sizes,
        "person_ids": picture.person_ids,
    }


class PreparedPictures:
    """Random access to the pictures of a prepared folder; picklable.

    An element is a dict of "encoded" (the file's bytes), "name" (for messages), "image_id",
    "dataset", "skeleton" (of the data set), "annotated" (k,) bool (joints the data set annotates at
    all), "trainable" (n,) bool, and the fields of `Picture` over its n people; joints are those of
    `UNION`.
    """

    def __init__(self, folder: str | os.PathLike):
        """Use `open_prepared`, which checks the folder."""
        self._folder = os.fspath(folder)
        builder = tfds.builder_from_directory(folder)
        raw: Any = {"image": tfds.decode.SkipDecoding()}
        self._source: Any = builder.as_data_source(split=_SPLIT, decoders=raw)
        self.shard_lengths = tuple(builder.info.splits[_SPLIT].shard_lengths)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises a PictureError if the record's file is damaged there."""
        try:
            record = dict(self._source[index])
        except RuntimeError as error:  # of the array_record reader
            line = f"record {index} of {self._folder} cannot be read"
            raise PictureError(f"{line}: write the folder anew with `rmpe prepare`") from error
        file_name = record.pop("file_name").decode()
        record["encoded"] = record.pop("image")
        record["image_id"] = json.loads(record["image_id"])
        record["dataset"] = record["dataset"].decode()
        record["skeleton"] = record["skeleton"].decode()
        record["name"] = f"{record['dataset']}/{file_name}"
        return record


class People(NamedTuple):
    """The people to train on of a prepared folder, of m in all.

    Attributes:
      record: which picture each is in.
      person: which of the picture's people each is.
      labelled: which joints of `UNION` each has.
    """

    record: Int[np.ndarray, " m"]
    person: Int[np.ndarray, " m"]
    labelled: Bool[np.ndarray, "m k"]


def open_prepared(folder: str | os.PathLike) -> PreparedPictures:
    """The pictures of a folder that `rmpe prepare` wrote.

    Raises:
      UserError: the folder is missing, incomplete or something else.
    """
    folder = pathlib.Path(folder)
    if not (folder / _PEOPLE).is_file():
        raise UserError(f"{folder} is no complete prepared data: write it with `rmpe prepare`")
    try:
        pictures = PreparedPictures(folder)
        for shard in range(len(pictures.shard_lengths)):  # the first record of each file
            pictures[sum(pictures.shard_lengths[:shard])]
    except Exception as error:  # TFDS raises many kinds for a damaged folder
        line = f"{folder} is damaged or incomplete: write it anew with `rmpe prepare`"
        raise UserError(line) from error
    return pictures


def read_people(folder: str | os.PathLike) -> People:
    """The index of a folder that `open_prepared` has opened."""
    with np.load(pathlib.Path(folder) / _PEOPLE) as arrays:
        return People(**arrays)


def write_people(folder: str | os.PathLike) -> People:
    """Read all records that the builder has written to `folder` and complete it with the index."""
    pictures = PreparedPictures(folder)
    record, person, labelled = [], [], []
    for index in range(len(pictures)):
        picture = pictures[index]
        chosen = np.flatnonzero(picture["trainable"])
        record.append(np.full(len(chosen), index))
        person.append(chosen)
        labelled.append(picture["visibility"][chosen] > 0)
    people = People(*(np.concatenate(column) for column in (record, person, labelled)))
    np.savez(pathlib.Path(folder) / _PEOPLE, **people._asdict())
    return people
