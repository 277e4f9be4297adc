"""Images, videos and an HTML page that show the poses of `rmpe predict`."""

import contextlib
import logging
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.images import ImageError
from rmpe_jax.files import atomic_write
from rmpe_jax.predict.formats import ImagePoses
from rmpe_jax.predict.inputs import (
    Frame,
    ImageInput,
    Input,
    VideoInput,
    count_frames,
    read_frames,
)
from rmpe_jax.predict.journal import JournalIndex
from rmpe_jax.predict.report import Report
from rmpe_jax.predict.tracks import Track
from rmpe_jax.progress import progress
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.visualize import VideoFile, draw_poses

# Drawings are written in these formats; the name of an image of another format gets ".jpg".
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@runtime_checkable
class VisualOutput(Protocol):
    """An output that shows poses on their images: `Drawings` or `RunReport`."""

    def has(self, name: str) -> bool:
        """Whether the image of this name is already shown."""
        ...

    def add(self, frame: Frame, result: ImagePoses) -> None:
        """Show the poses of an image.

        Raises:
          UserError: the output cannot be written.
        """


class Drawings:
    """A folder of images and videos with their poses drawn on them; a context manager.

    If a resumed run starts within a video, the new file has the number of its first frame in its
    name: `clip_000120.mp4` continues `clip.mp4`.
    """

    def __init__(self, folder: pathlib.Path, skeleton: Skeleton, draw_boxes: bool = False) -> None:
        """Start a folder; with `draw_boxes`, the detector's boxes are drawn too."""
        self._folder, self._skeleton, self._draw_boxes = folder, skeleton, draw_boxes
        self._video: VideoInput | None = None
        self._file: VideoFile | None = None

    def add(self, frame: Frame, result: ImagePoses) -> None:
        """Draw the poses of an image.

        Raises:
          UserError: the file cannot be written.
        """
        assert frame.image is not None
        poses = result.poses
        bboxes = poses.bboxes if self._draw_boxes else None
        drawn = draw_poses(
            frame.image,
            poses.keypoints,
            poses.keypoint_scores,
            self._skeleton,
            bboxes,
            track_ids=result.track_ids,
        )
        if frame.video is None:
            _write_image(self._path_of(frame.name), drawn)
        else:
            self._video_file_of(frame).add(drawn)

    def has(self, name: str) -> bool:
        """Whether the image of this name is already drawn."""
        return self._path_of(name).exists()

    def _path_of(self, name: str) -> pathlib.Path:
        path = self._folder / name
        is_image = path.suffix.lower() in _SUFFIXES
        return path if is_image else path.with_name(f"{path.name}.jpg")

    def _video_file_of(self, frame: Frame) -> VideoFile:
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

    def __enter__(self) -> "Drawings":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


class RunReport:
    """The HTML page of a run, a `report.Report`: all images, and one frame per second of videos."""

    def __init__(self, path: pathlib.Path, skeleton: Skeleton, resume: bool = False) -> None:
        """Start a page, or continue an existing one."""
        self._report = Report(path, skeleton, resume=resume)

    def has(self, name: str) -> bool:
        """Whether the page had the image of this name when it was opened."""
        return self._report.has(name)

    def add(self, frame: Frame, result: ImagePoses) -> None:
        """Add an image; does nothing if the page has it already.

        Raises:
          UserError: the page cannot be written.
        """
        assert frame.image is not None
        is_shown = frame.video is None or frame.index % max(round(frame.video.frame_rate), 1) == 0
        if is_shown and not self.has(frame.name):
            self._report.add(frame.image, result)

    def add_tracks(self, tracks: Sequence[Track]) -> None:
        """Add the table of tracks, after all images.

        Raises:
          UserError: the page cannot be written.
        """
        self._report.add_tracks(tracks)

    def __enter__(self) -> "RunReport":
        self._report.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._report.__exit__(*error)


def add_earlier_results(
    outputs: Sequence[VisualOutput], inputs: Sequence[Input], results: Iterable[ImagePoses]
) -> None:
    """Show what an earlier run found, where an output lacks it; frames of videos are skipped.

    Images that cannot be read again are counted in the log.

    Args:
      outputs: what to add the images to.
      inputs: images are read again from here.
      results: of the earlier run's journal.

    Raises:
      UserError: an output cannot be written.
    """
    images = {item.name: item for item in inputs if isinstance(item, ImageInput)}
    errors: list[ImageError] = []
    for result in results:
        lacking = [output for output in outputs if not output.has(result.name)]
        if not lacking or result.name not in images:
            continue
        try:
            frame = Frame(result.name, images[result.name].read())
        except ImageError as error:
            errors.append(error)
            continue
        for output in lacking:
            output.add(frame, result)
    if errors:
        line = "images with earlier results that cannot be shown: %d, such as: %s"
        logging.getLogger(__name__).warning(line, len(errors), errors[0])


def draw_again(
    outputs: Sequence[VisualOutput], inputs: Sequence[Input], results: JournalIndex
) -> None:
    """Read all inputs again and show their results; images without a result are left out.

    Raises:
      UserError: an output cannot be written.
    """
    with contextlib.closing(read_frames(inputs)) as frames:
        for frame in progress(frames, count_frames(inputs), "images drawn"):
            result = results.get(frame.name)
            if frame.image is not None and result is not None:
                for output in outputs:
                    output.add(frame, result)


def _write_image(path: pathlib.Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with atomic_write(path, "wb") as file:
        file.write(encoded.tobytes())
