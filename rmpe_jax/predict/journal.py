"""JSON lines: a picture a line, written as it is done, so that an interruption loses nothing.

The one form that keeps everything of `Poses`; the others are made from it. A line is

    {"name": "a.jpg", "height": 480, "width": 640, "skeleton": "coco", "people": [
     {"keypoints": [[x, y, score], ...], "score": s, "bbox": [x1, y1, x2, y2], "bbox_score": b}]}

in image pixels. It counts once its newline is written: what a kill leaves of a last line is passed
over by the reader and cut off when the journal is resumed.
"""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Self

import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.files import not_writable, to_json
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.formats import PicturePoses, joint_rows
from rmpe_jax.skeletons import Skeleton


class Journal:
    """A file of JSON lines that grows by a picture at a time; a context manager.

    Attributes:
      done: names of the pictures that it held when it was opened.
    """

    def __init__(self, path: str | os.PathLike, skeleton: Skeleton, resume: bool = False) -> None:
        """Begin a new file, or go on with the one that is there.

        Raises:
          UserError: the file cannot be written; or, to be resumed, is not a journal of this
            skeleton.
        """
        self._path, self._skeleton = pathlib.Path(path), skeleton
        self.done: set[str] = set()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if resume and self._path.exists():
                self.done = {picture.name for picture in read_journal(path, skeleton)}
                _cut_half_line(self._path)
            self._file = open(self._path, "a" if resume else "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise not_writable(path, error) from None

    def add(self, picture: PicturePoses) -> None:
        """Write a picture's line, all of it, before returning.

        Raises:
          UserError: the disk does not take it, or a person's score or box is not finite.
        """
        line = to_json(_to_dict(picture, self._skeleton), self._path)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise not_writable(self._path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_journal(path: str | os.PathLike, skeleton: Skeleton) -> Iterator[PicturePoses]:
    """The pictures of a journal, one at a time.

    Raises:
      UserError: the file cannot be read, holds something else, or poses of another skeleton.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _from_line(line, skeleton, f"{path}: line {number}")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from None


def _cut_half_line(path: pathlib.Path) -> None:
    with open(path, "rb+") as file:
        file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))


def _to_dict(picture: PicturePoses, skeleton: Skeleton) -> dict:
    poses = picture.poses
    columns = (
        joint_rows(poses),
        np.asarray(poses.scores, np.float64).round(6),
        np.asarray(poses.bboxes, np.float64).round(3),
        np.asarray(poses.bbox_scores, np.float64).round(6),
    )
    keys = ("keypoints", "score", "bbox", "bbox_score")
    people = zip(*(column.tolist() for column in columns), strict=True)
    height, width = picture.size
    return {
        "name": picture.name,
        "height": int(height),
        "width": int(width),
        "skeleton": skeleton.name,
        "people": [dict(zip(keys, person, strict=True)) for person in people],
    }


def _from_line(line: bytes, skeleton: Skeleton, where: str) -> PicturePoses:
    try:
        record = json.loads(line)
        name, theirs, people = record["name"], record["skeleton"], record["people"]
        size = (int(record["height"]), int(record["width"]))
        if not isinstance(name, str):
            raise TypeError
        if theirs != skeleton.name:
            raise UserError(
                f"{where} has poses of the skeleton {theirs!r}, not {skeleton.name!r}: "
                "use the model of that one, or begin a new file"
            )
        return PicturePoses(name, size, _poses_of(people, skeleton.num_keypoints))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{where} is not a picture's JSON: give a file of such lines") from None


def _poses_of(people: list[dict], num_keypoints: int) -> Poses:
    def column(key: str, *shape: int) -> np.ndarray:
        values = [person[key] for person in people]
        return np.array(values, np.float32).reshape(len(people), *shape)

    joints = column("keypoints", num_keypoints, 3)
    scores, bboxes, bbox_scores = column("score"), column("bbox", 4), column("bbox_score")
    return Poses(joints[..., :2], joints[..., 2], scores, bboxes, bbox_scores)
