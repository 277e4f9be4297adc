"""What `rmpe predict` shows of its results: pictures and videos with poses on them, and a page."""

import contextlib
import pathlib
from collections.abc import Iterable, Sequence
from typing import Self

import cv2
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.images import ImageError
from rmpe_jax.files import atomic_write
from rmpe_jax.predict.formats import PicturePoses
from rmpe_jax.predict.inputs import PICTURES, Frame, Picture, Video
from rmpe_jax.predict.report import Report
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.visualize import VideoFile, draw_poses


class Drawings:
    """A folder of pictures with their poses on them, and of videos; a context manager.

    A video that is begun at a later frame, as when a run is resumed, has that frame's number in its
    name: `clip_000120.mp4` goes on where `clip.mp4` ended.
    """

    def __init__(self, folder: pathlib.Path, skeleton: Skeleton, boxes: bool = False) -> None:
        """Begin a folder; with `boxes`, the detector's are drawn too."""
        self._folder, self._skeleton, self._boxes = folder, skeleton, boxes
        self._video: Video | None = None
        self._file: VideoFile | None = None

    def add(self, frame: Frame, picture: PicturePoses) -> None:
        """Draw a picture's poses.

        Raises:
          UserError: the disk does not take it.
        """
        assert frame.image is not None
        poses = picture.poses
        bboxes = poses.bboxes if self._boxes else None
        drawn = draw_poses(
            frame.image, poses.keypoints, poses.keypoint_scores, self._skeleton, bboxes
        )
        if frame.video is None:
            _write_picture(self._path_of(frame.name), drawn)
        else:
            self._file_of(frame).add(drawn)

    def has(self, name: str) -> bool:
        """Whether the picture of this name is drawn already."""
        return self._path_of(name).exists()

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

    def __init__(self, path: pathlib.Path, skeleton: Skeleton, resume: bool = False) -> None:
        """Begin the page, or go on with the one that is there."""
        self._report = Report(path, skeleton, resume=resume)

    def has(self, name: str) -> bool:
        """Whether the picture of this name was in the page when it was opened."""
        return self._report.has(name)

    def add(self, frame: Frame, picture: PicturePoses) -> None:
        """Add a picture; of one that is there already nothing.

        Raises:
          UserError: the disk does not take it.
        """
        assert frame.image is not None
        wanted = frame.video is None or frame.index % max(round(frame.video.frame_rate), 1) == 0
        if wanted and not self.has(frame.name):
            self._report.add(frame.image, picture)

    def __enter__(self) -> Self:
        self._report.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._report.__exit__(*error)


def add_earlier(
    sinks: Sequence[Drawings | ReportOfRun],
    items: Sequence[Picture | Video],
    pictures: Iterable[PicturePoses],
) -> None:
    """Show what an earlier run found, where that is not done; frames of videos are gone.

    Args:
      sinks: what shows it.
      items: the inputs, whose pictures are read once more.
      pictures: of the earlier run's journal.

    Raises:
      UserError: the disk does not take it.
    """
    files = {item.name: item for item in items if isinstance(item, Picture)}
    for picture in pictures:
        lacking = [sink for sink in sinks if not sink.has(picture.name)]
        if lacking and picture.name in files:
            with contextlib.suppress(ImageError):
                frame = Frame(picture.name, files[picture.name].read())
                for sink in lacking:
                    sink.add(frame, picture)


def _write_picture(path: pathlib.Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with atomic_write(path, "wb") as file:
        file.write(encoded.tobytes())
