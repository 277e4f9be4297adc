"""The journal of a run: JSON lines, one per image, written at once so that no result is lost.

This is the only format that keeps all of `Poses`; the other formats are made from it. A line is

    {"name": "a.jpg", "height": 480, "width": 640, "skeleton": "coco", "people": [
     {"keypoints": [[x, y, score], ...], "score": s, "bbox": [x1, y1, x2, y2], "bbox_score": b}]}

in image pixels. In a tracked run each person has a `track_id` too, null for people without a track.
Frames of a webcam have a `time`, seconds since the first frame of the run that took them.
A line without its newline is incomplete, as after a kill: the reader skips it, and
resuming the journal cuts it off. Other lines that are not JSON are damaged: they are skipped and
counted in the log, and resuming the journal removes them.
"""

import json
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

from rmpe_jax.errors import UserError
from rmpe_jax.files import atomic_write, not_writable, to_json
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.formats import ImagePoses, joint_rows, track_ids_or_none
from rmpe_jax.skeletons import Skeleton


class Journal:
    """A file of JSON lines that grows by one image at a time; a context manager.

    Attributes:
      done: names of the images that the file had when it was opened.
    """

    def __init__(self, path: str | os.PathLike, skeleton: Skeleton, resume: bool = False) -> None:
        """Start a new file; or, with `resume`, continue an existing one.

        Raises:
          UserError: the file cannot be written, or the file to resume is not a journal or has poses
            of another skeleton.
        """
        self._path, self._skeleton = pathlib.Path(path), skeleton
        self.done: set[str] = set()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if resume and self._path.exists():
                names = [result.name for result in read_journal(path, skeleton)]
                self.done = set(names)
                _remove_bad_lines(self._path, skeleton, len(names))
            self._file = open(self._path, "a" if resume else "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise not_writable(path, error) from None

    def add(self, result: ImagePoses) -> None:
        """Write the line of an image; it is complete when this returns.

        Raises:
          UserError: the file cannot be written, or a person's score or box is not finite.
        """
        line = journal_line(result, self._skeleton, self._path)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise not_writable(self._path, error) from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, _: object, earlier: BaseException | None, __: object) -> None:
        try:
            self._file.close()
        except OSError as error:
            if earlier is None:  # else a line that did not fit on the disk fails here again
                raise not_writable(self._path, error) from None


def read_journal(path: str | os.PathLike, skeleton: Skeleton) -> Iterator[ImagePoses]:
    """The results in a journal, one image at a time; damaged lines are counted in the log.

    Raises:
      UserError: the file cannot be read, is not a journal, or has poses of another skeleton.
    """
    good, bad, first_bad = 0, 0, 0
    try:
        for number, (_, result) in enumerate(_read_lines(path, skeleton), 1):
            if result is None:
                bad, first_bad = bad + 1, first_bad or number
            else:
                good += 1
                yield result
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from None
    if bad and not good:
        raise _not_a_journal(f"{path}: line {first_bad}")
    if bad:
        line = "%s: damaged lines are skipped: %d (the first is line %d); --resume does them again"
        logging.getLogger(__name__).warning(line, path, bad, first_bad)


def write_journal(
    path: str | os.PathLike, results: Iterable[ImagePoses], skeleton: Skeleton
) -> None:
    """Write a whole journal at once: the file has the old or the new content.

    Raises:
      UserError: the file cannot be written, or a person's score or box is not finite.
    """
    with atomic_write(path) as file:
        for result in results:
            file.write(journal_line(result, skeleton, path) + "\n")


def journal_line(result: ImagePoses, skeleton: Skeleton, path: str | os.PathLike) -> str:
    """The line of an image in the journal at `path`, without its newline.

    Raises:
      UserError: a person's score or box is not finite.
    """
    return to_json(_to_dict(result, skeleton), path)


class JournalIndex:
    """The results of a journal by name; holds their places in the file only."""

    def __init__(self, path: str | os.PathLike, skeleton: Skeleton) -> None:
        """Read the names in a file of `write_journal`."""
        self._path, self._skeleton = path, skeleton
        self._starts: dict[str, int] = {}
        position = 0
        for line, result in _read_lines(path, skeleton):
            if result is not None:
                self._starts[result.name] = position
            position += len(line)

    def get(self, name: str) -> ImagePoses | None:
        """The result for the image of this name, if there is one."""
        if name not in self._starts:
            return None
        with open(self._path, "rb") as file:
            file.seek(self._starts[name])
            return _from_line(file.readline(), self._skeleton, f"{self._path}: {name}")


def _read_lines(
    path: str | os.PathLike, skeleton: Skeleton
) -> Iterator[tuple[bytes, ImagePoses | None]]:
    """The complete lines of a journal, and the result in each; None if it is damaged."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield line, _from_line(line, skeleton, f"{path}: line {number}")


def _remove_bad_lines(path: pathlib.Path, skeleton: Skeleton, num_good: int) -> None:
    """Cut off an incomplete last line; if others are damaged, write the good ones to a new file."""
    with open(path, "rb+") as file:
        sizes = [len(line) for line in file if line.endswith(b"\n")]
        if len(sizes) == num_good:
            file.truncate(sum(sizes))
            return
    with atomic_write(path, "wb") as file:
        for line, result in _read_lines(path, skeleton):
            if result is not None:
                file.write(line)


def _to_dict(result: ImagePoses, skeleton: Skeleton) -> dict:
    poses = result.poses
    columns = (
        joint_rows(poses),
        np.asarray(poses.scores, np.float64).round(6),
        np.asarray(poses.bboxes, np.float64).round(3),
        np.asarray(poses.bbox_scores, np.float64).round(6),
    )
    keys = ("keypoints", "score", "bbox", "bbox_score")
    columns = tuple(column.tolist() for column in columns)
    if (ids := track_ids_or_none(result)) is not None:
        keys, columns = (*keys, "track_id"), (*columns, ids)
    people = zip(*columns, strict=True)
    height, width = result.size
    time = {} if result.time is None else {"time": round(result.time, 3)}
    return {
        "name": result.name,
        **time,
        "height": int(height),
        "width": int(width),
        "skeleton": skeleton.name,
        "people": [dict(zip(keys, person, strict=True)) for person in people],
    }


def _from_line(line: bytes, skeleton: Skeleton, where: str) -> ImagePoses | None:
    """The result in a line; None if the line is not JSON."""
    try:
        record = json.loads(line)
    except (RecursionError, ValueError):
        return None
    try:
        name, people = record["name"], record["people"]
        size = (int(record["height"]), int(record["width"]))
        if not isinstance(name, str):
            raise TypeError
        if record["skeleton"] != skeleton.name:
            raise UserError(
                f"{where} has poses of the skeleton {record['skeleton']!r}, not {skeleton.name!r}: "
                "use a model with that skeleton, or start a new file"
            )
        poses = _poses_of(people, skeleton.num_keypoints)
        time = None if record.get("time") is None else float(record["time"])
        return ImagePoses(name, size, poses, _track_ids_of(people), time)
    except (KeyError, OverflowError, TypeError, ValueError):
        raise _not_a_journal(where) from None


def _not_a_journal(where: str) -> UserError:
    return UserError(f"{where} does not have the poses of an image: give a journal")


def _track_ids_of(people: list[dict]) -> Int[np.ndarray, " n"] | None:
    """The people's track ids; None if they have none, and for images without people."""
    if not any("track_id" in person for person in people):
        return None
    ids = [person["track_id"] for person in people]
    return np.array([-1 if i is None else i for i in ids], np.int32)


def _poses_of(people: list[dict], num_keypoints: int) -> Poses:
    def column(key: str, *shape: int) -> np.ndarray:
        values = [person[key] for person in people]
        return np.array(values, np.float32).reshape(len(people), *shape)

    joints = column("keypoints", num_keypoints, 3)
    scores, bboxes, bbox_scores = column("score"), column("bbox", 4), column("bbox_score")
    return Poses(joints[..., :2], joints[..., 2], scores, bboxes, bbox_scores)
