"""Prepared datasets: a TFDS array_record dataset of images with people, and an index of the people.

A record holds one image: the bytes of its file and all its people, with joints in the union
skeleton. The index `people.npz` lists the record of each person to train on. It is written last, so
a folder without it is incomplete. Neither writing nor reading needs TensorFlow.
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Int

from rmpe_jax.data.images import ImageError
from rmpe_jax.data.readers import records
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import UNION

_PEOPLE = "people.npz"  # with the keys "record", "person" and "labelled"
_SPLIT = "train"
_K = UNION.num_keypoints


class RmpeImages(tfds.core.GeneratorBasedBuilder):
    """Writes images with people.

    `keyed_records` are pairs of `keyed_record`, or a `PTransform` of Apache Beam that gives them.
    """

    name = "rmpe_pictures"  # TFDS puts it into the file names, so it must not change
    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # looking it up needs a package that TFDS 4.9.10 does not require

    def __init__(self, keyed_records: Any = (), **kwargs):
        self._keyed_records = keyed_records
        super().__init__(file_format="array_record", **kwargs)  # the one that needs no TensorFlow

    def _info(self) -> tfds.core.DatasetInfo:
        tensor = tfds.features.Tensor
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "file_name": tfds.features.Text(),
            "image_id": tfds.features.Text(),  # JSON, to distinguish 7 from "7"
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

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Any:
        return self._keyed_records


def keyed_record(
    number: int, dataset: PoseDataset, record: ImageRecord, encoded: bytes
) -> tuple[str, dict[str, Any]]:
    """A key that is unique among all datasets, and the record of an image; see `make_record`.

    Args:
      number: of the dataset.
      dataset: of the image.
      record: the image.
      encoded: bytes of its file.
    """
    return f"{number}/{record.image_id}", make_record(dataset, record, encoded)


def make_record(dataset: PoseDataset, record: ImageRecord, encoded: bytes) -> dict[str, Any]:
    """The TFDS example of an image of `dataset`; `encoded` are the bytes of its file."""
    indices = UNION.indices_in(dataset.skeleton)
    keypoints, visibility = records.pick_joints(record.keypoints, record.visibility, indices)
    return {
        "image": encoded,
        "file_name": record.path.name,
        "image_id": json.dumps(record.image_id),
        "dataset": dataset.name,
        "skeleton": dataset.skeleton.name,
        "annotated": indices >= 0,
        "keypoints": keypoints,
        "visibility": visibility,
        "bboxes": record.bboxes.astype(np.float32),
        "area": record.area.astype(np.float32),
        "iscrowd": record.iscrowd,
        "trainable": records.trainable(record),
        "head_sizes": record.head_sizes,
        "person_ids": record.person_ids,
    }


class PreparedImages:
    """Random access to the images of a prepared folder; picklable.

    An element is a dict of "encoded" (the file's bytes), "name" (for messages), "image_id",
    "dataset", "skeleton" (name of the dataset's skeleton), "annotated" (k,) bool (whether the
    dataset annotates the joint at all), "trainable" (n,) bool, and the fields of `ImageRecord` for
    its n people. Joints are those of `UNION`; boxes and areas are float32.
    """

    def __init__(self, folder: str | os.PathLike):
        """Does not check the folder; use `open_prepared` instead."""
        self._folder = os.fspath(folder)
        builder = tfds.builder_from_directory(folder)
        raw: Any = {"image": tfds.decode.SkipDecoding()}
        self._source: Any = builder.as_data_source(split=_SPLIT, decoders=raw)
        self.shard_lengths = tuple(builder.info.splits[_SPLIT].shard_lengths)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises an ImageError if the file is damaged at this record."""
        try:
            record = dict(self._source[index])
        except RuntimeError as error:  # raised by the array_record reader
            line = f"record {index} of {self._folder} cannot be read"
            raise ImageError(f"{line}: recreate the folder with `rmpe prepare`") from error
        file_name = record.pop("file_name").decode()
        record["encoded"] = record.pop("image")
        record["image_id"] = json.loads(record["image_id"])
        record["dataset"] = record["dataset"].decode()
        record["skeleton"] = record["skeleton"].decode()
        record["name"] = f"{record['dataset']}/{file_name}"
        return record


class People(NamedTuple):
    """The m people to train on of a prepared folder.

    Attributes:
      record_index: the image of each person.
      person_index: the index of each person within the image.
      labeled: which joints of `UNION` are labeled.
    """

    record_index: Int[np.ndarray, " m"]
    person_index: Int[np.ndarray, " m"]
    labeled: Bool[np.ndarray, "m k"]


def open_prepared(folder: str | os.PathLike) -> PreparedImages:
    """Open the images of a folder written by `rmpe prepare`.

    Raises:
      UserError: the folder is missing, incomplete, damaged, or not a prepared folder.
    """
    folder = pathlib.Path(folder)
    if not (folder / _PEOPLE).is_file():
        line = f"{folder} is not a complete prepared folder: create it with `rmpe prepare`"
        raise UserError(line)
    try:
        images = PreparedImages(folder)
        for shard in range(len(images.shard_lengths)):  # read the first record of each file
            images[sum(images.shard_lengths[:shard])]
    except Exception as error:  # TFDS raises many types of errors
        line = f"{folder} is damaged or incomplete: recreate it with `rmpe prepare`"
        raise UserError(line) from error
    return images


def read_people(folder: str | os.PathLike) -> People:
    """Read the index of people; check the folder with `open_prepared` first.

    Raises:
      UserError: the index is damaged or cannot be read.
    """
    path = pathlib.Path(folder) / _PEOPLE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            record, person, labelled = arrays["record"], arrays["person"], arrays["labelled"]
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be read ({reason}): check the folder") from error
    except Exception as error:  # NumPy and zipfile raise many types
        raise _damaged(path) from error
    wanted = [("i", (record.size,)), ("i", (record.size,)), ("b", (record.size, _K))]
    if [(array.dtype.kind, array.shape) for array in (record, person, labelled)] != wanted:
        raise _damaged(path)
    return People(record, person, labelled)


def _damaged(path: pathlib.Path) -> UserError:
    return UserError(f"{path} is damaged: recreate the folder with `rmpe prepare`")


def write_people(folder: str | os.PathLike) -> People:
    """Write the index of people to `folder`, in which the builder has written all records."""
    images = PreparedImages(folder)
    record_index, person_index, labeled = [], [], []
    for index in range(len(images)):
        record = images[index]
        chosen = np.flatnonzero(record["trainable"])
        record_index.append(np.full(len(chosen), index))
        person_index.append(chosen)
        labeled.append(record["visibility"][chosen] > 0)
    people = People(*map(np.concatenate, (record_index, person_index, labeled)))
    path = pathlib.Path(folder) / _PEOPLE
    np.savez(path, record=people.record_index, person=people.person_index, labelled=people.labeled)
    return people
