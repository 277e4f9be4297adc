"""The inputs of `rmpe predict` as a stream of frames: images, folders, lists, videos, webcams."""

import itertools
import logging
import os
import pathlib
import re
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.eval_pipeline import map_ahead
from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
DRAWINGS_FOLDER = "drawn"  # inside the output folder: images with poses drawn on them
_DECODING_THREADS = 2
_DEFAULT_FRAME_RATE = 25.0  # of videos that do not specify one


class ImageInput(NamedTuple):
    """An image file.

    Attributes:
      name: identifies its poses in the results.
      path: of the file.
      upright: whether to apply the EXIF orientation.
    """

    name: str
    path: pathlib.Path
    upright: bool = True

    def read(self) -> UInt8[np.ndarray, "h w 3"]:
        """The image, RGB.

        Raises:
          ImageError: the image cannot be read.
        """
        return read_image(self.path, upright=self.upright)


class VideoInput(NamedTuple):
    """A video file or a webcam.

    Attributes:
      name: of the file, without folders and extension; or `webcam0`.
      source: path of the file, or number of the webcam.
      frame_rate: frames per second.
      num_frames: according to the file; None if unknown.
    """

    name: str
    source: str | int
    frame_rate: float
    num_frames: int | None


Input = ImageInput | VideoInput


class Frame(NamedTuple):
    """An image, a frame of a video, or the reason why it could not be read.

    Attributes:
      name: identifies its poses in the results; unique among the inputs.
      image: RGB; None if it cannot be read.
      video: the video that the frame is part of, if any.
      index: number of the frame in the video, from 0.
      error: why there is no image.
    """

    name: str
    image: UInt8[np.ndarray, "h w 3"] | None
    video: VideoInput | None = None
    index: int = 0
    error: str = ""


def find_inputs(
    arguments: Sequence[str], output_folder: pathlib.Path | None = None, upright: bool = True
) -> list[Input]:
    """The images and videos that `arguments` name, in that order; files of a folder by name.

    An argument is an image, a folder (its images and those of its subfolders), a list (.txt, one
    path per line, relative to the list), a video, or the number of a webcam. Poses are identified
    by file names without folders; for folders, by paths relative to the folder. If these names are
    ambiguous, all inputs are named by paths relative to their common parent folder. Inputs that are
    given twice are processed once.

    Args:
      arguments: as on the command line.
      output_folder: the folder of the results; drawings inside it are not taken as inputs.
      upright: apply the EXIF orientation of images.

    Raises:
      UserError: an argument does not exist, is empty, or is a video that cannot be read.
    """
    drawings = output_folder and (output_folder / DRAWINGS_FOLDER).resolve()
    try:
        found = [item for argument in arguments for item in _inputs_of(argument, drawings)]
    except OSError as error:  # the name is too long, or a folder is not readable
        raise UserError(f"{error.filename}: {error.strerror}; check the path") from None
    found = list(dict.fromkeys(found))
    found = [
        item if isinstance(item, VideoInput) else item._replace(upright=upright) for item in found
    ]
    if not _are_names_unique(found):
        found = _named_by_common_folder(found)
    # The same path may have been written in two ways.
    return list({item.name: item for item in found}.values())


def _are_names_unique(items: Sequence[Input]) -> bool:
    """Whether names are unique, including those of the frames of videos."""
    names = {item.name for item in items}
    frames = [re.fullmatch(r"(.+)_\d{6,}\.jpg", item.name) for item in items]
    videos = {item.name for item in items if isinstance(item, VideoInput)}
    return len(names) == len(items) and not any(frame and frame[1] in videos for frame in frames)


def count_frames(inputs: Sequence[Input]) -> int | None:
    """The total number of images and frames; None if unknown."""
    counts = [item.num_frames if isinstance(item, VideoInput) else 1 for item in inputs]
    return None if None in counts else sum(count for count in counts if count)


def read_frames(
    inputs: Sequence[Input], done: Collection[str] = ()
) -> Generator[Frame, None, None]:
    """Frames of all inputs in their order; threads decode images ahead.

    Args:
      inputs: of `find_inputs`.
      done: names of frames to skip. Frames of a webcam are always new; their numbers continue after
        those in `done`.
    """
    by_video = itertools.groupby(
        inputs, lambda item: item if isinstance(item, VideoInput) else None
    )
    for video, items in by_video:
        if video is not None:
            yield from _video_frames(video, done)
        else:
            remaining = (item for item in items if item.name not in done)
            yield from map_ahead(_read, remaining, _DECODING_THREADS)


def _inputs_of(argument: str, drawings: pathlib.Path | None) -> list[Input]:
    path = pathlib.Path(argument)
    if argument.isascii() and argument.isdigit() and not path.exists():
        return [_open_video(f"webcam{argument}", int(argument))]
    if not path.exists():
        raise UserError(f"{argument}: no such file or folder; check the path")
    if path.is_dir():
        return [*_images_in_folder(path, drawings)]
    if path.suffix.lower() == ".txt":
        return _inputs_in_list(path)
    return [_input_of_file(path)]


def _input_of_file(path: pathlib.Path) -> Input:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video(path.stem, str(path))
    return ImageInput(path.name, path)


def _images_in_folder(folder: pathlib.Path, drawings: pathlib.Path | None) -> list[ImageInput]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not (drawings and path.resolve().is_relative_to(drawings))
    )
    if not paths:
        raise UserError(f"{folder}: no images there ({' '.join(IMAGE_SUFFIXES)}); check the path")
    return [ImageInput(path.relative_to(folder).as_posix(), path) for path in paths]


def _inputs_in_list(path: pathlib.Path) -> list[Input]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a list of paths ({error}); give a text file") from None
    files = [path.parent / line.strip() for line in lines if line.strip()]
    if not files:
        raise UserError(f"{path}: the list is empty; write one path per line")
    folders = [file for file in files if file.is_dir()]
    if folders:
        raise UserError(f"{path}: {folders[0]} is a folder; give folders as inputs, not in a list")
    # Missing images are reported when they are read, like damaged ones.
    return [_input_of_file(file) for file in files]


def _open_video(name: str, source: str | int) -> VideoInput:
    capture = _capture(source)
    rate = capture.get(cv2.CAP_PROP_FPS)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if isinstance(source, str) else 0
    capture.release()
    rate = rate if np.isfinite(rate) and rate > 0 else _DEFAULT_FRAME_RATE
    return VideoInput(name, source, rate, count if count > 0 else None)


def _capture(source: str | int) -> cv2.VideoCapture:
    """An open video that has grabbed its first frame."""
    # Silence OpenCV and FFmpeg: the error below reports a damaged video in one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(source)
    if not capture.isOpened() or not capture.grab():
        what = f"video {source}" if isinstance(source, str) else f"webcam {source}"
        raise UserError(f"{what} cannot be read: check that it is there and not damaged")
    return capture


def _video_frames(video: VideoInput, done: Collection[str]) -> Iterator[Frame]:
    """The frames that are not in `done`; the others are not decoded."""
    capture = _capture(video.source)
    start = 0
    if isinstance(video.source, int):
        start = sum(bool(re.fullmatch(rf"{re.escape(video.name)}_\d{{6,}}\.jpg", n)) for n in done)
    try:
        for index in itertools.count(start):
            if index > start and not capture.grab():
                _warn_if_truncated(video, index)
                return
            name = f"{video.name}_{index:06}.jpg"
            if name in done:
                continue
            is_decoded, image = capture.retrieve()
            if is_decoded:
                yield Frame(name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), video, index)
            else:
                error = f"{video.source}: frame {index} cannot be decoded"
                yield Frame(name, None, video, index, error)
    finally:
        capture.release()


def _warn_if_truncated(video: VideoInput, count: int) -> None:
    # The frame count of many files is off by a few frames.
    if video.num_frames and count < 0.9 * video.num_frames:
        line = "video %s ends after %d of %d frames: it may be damaged"
        logging.getLogger(__name__).warning(line, video.source, count, video.num_frames)


def _read(item: ImageInput) -> Frame:
    try:
        return Frame(item.name, item.read())
    except ImageError as error:
        return Frame(item.name, None, error=str(error))


def _named_by_common_folder(items: list[Input]) -> list[Input]:
    """The inputs, named by their paths relative to their common parent folder."""
    paths = [item.path if isinstance(item, ImageInput) else item.source for item in items]
    # Absolute, without `..`: result files get these names and must stay in their folder.
    files = [
        path if isinstance(path, int) else pathlib.Path(os.path.abspath(path)) for path in paths
    ]
    root = os.path.commonpath([file.parent for file in files if not isinstance(file, int)])
    return [
        item if isinstance(file, int) else item._replace(name=file.relative_to(root).as_posix())
        for item, file in zip(items, files, strict=True)
    ]
