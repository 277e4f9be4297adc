"""What `rmpe predict` shows of its results: pictures and videos with poses on them, and a page."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Self

import cv2
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.pictures import PictureError, read_picture
from rmpe_jax.files import replacing
from rmpe_jax.inference.formats import PicturePoses
from rmpe_jax.inference.inputs import PICTURES, Frame, Picture, Video
from rmpe_jax.inference.journal import read_journal
from rmpe_jax.inference.report import Report
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.visualize import VideoFile, draw_poses


class Drawings:
    """A folder of pictures with their poses on them, and of videos; a context manager.

    A video that is begun at a later frame, as when a run is resumed, has that frame's number in its
    name: `clip_000120.mp4` goes on where `clip.mp4` ended.
    """

    def __init__(self, folder: pathlib.Path, skeleton: Skeleton) -> None:
        self._folder, self._skeleton = folder, skeleton
        self._video: Video | None = None
        self._file: VideoFile | None = None

    def add(self, frame: Frame, picture: PicturePoses) -> None:
        """Draw a picture's poses.

        Raises:
          UserError: the disk does not take it.
        """
        assert frame.image is not None
        poses = picture.poses
        drawn = draw_poses(frame.image, poses.keypoints, poses.keypoint_scores, self._skeleton)
        if frame.video is None:
            _write_picture(self._path_of(frame.name), drawn)
        else:
            self._file_of(frame).add(drawn)

    def add_earlier(self, items: Sequence[Picture | Video], journal: pathlib.Path) -> None:
        """Draw the pictures that an earlier run has done and not drawn; not frames of videos."""
        for path, picture in _done(items, journal, self._skeleton):
            if not self._path_of(picture.name).exists():
                with contextlib.suppress(PictureError):
                    self.add(Frame(picture.name, read_picture(path, upright=True)), picture)

    def _path_of(self, name: str) -> pathlib.Path:
        path = self._folder / name
        return path if path.suffix.lower() in PICTURES else path.with_name(f"{path.name}.jpg")

    def _file_of(self, frame: Frame) -> VideoFile:
        assert frame.video is not None
        assert frame.image is not None
        if self._file is None or self._video != frame.video:
            self._close()
            name = frame.video.name + (f"_{frame.index:06}" if frame.index else "")
            path = self._folder / f"{name}.mp4"
            self._file = VideoFile(path, frame.video.frame_rate, frame.image.shape[:2])
            self._video = frame.video
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


class ReportOfRun:
    """The page of `report.Report` of a run: pictures, and of videos a frame a second."""

    def __init__(self, path: pathlib.Path, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._report = Report(path, skeleton)

    def add_earlier(self, items: Sequence[Picture | Video], journal: pathlib.Path) -> None:
        """Add the pictures that an earlier run has done; frames of videos are gone."""
        for path, picture in _done(items, journal, self._skeleton):
            with contextlib.suppress(PictureError):
                self._report.add(read_picture(path, upright=True), picture)

    def add(self, frame: Frame, picture: PicturePoses) -> None:
        """Add a picture.

        Raises:
          UserError: the disk does not take it.
        """
        assert frame.image is not None
        if frame.video is None or frame.index % max(round(frame.video.frame_rate), 1) == 0:
            self._report.add(frame.image, picture)

    def __enter__(self) -> Self:
        self._report.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._report.__exit__(*error)


def _done(
    items: Sequence[Picture | Video], journal: pathlib.Path, skeleton: Skeleton
) -> Iterator[tuple[pathlib.Path, PicturePoses]]:
    """The pictures among `items` that a journal has, and their files."""
    paths = {item.name: item.path for item in items if isinstance(item, Picture)}
    for picture in read_journal(journal, skeleton):
        if picture.name in paths:
            yield paths[picture.name], picture


def _write_picture(path: pathlib.Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with replacing(path, "wb") as file:
        file.write(encoded.tobytes())
