"""What `rmpe predict` is given, as a stream: pictures, folders, lists, videos, a webcam."""

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

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
DRAWN = "drawn"  # in the folder of the results: pictures with poses on them
_THREADS = 2  # that decode
_DEFAULT_RATE = 25.0  # frames a second, of videos that do not say


class Picture(NamedTuple):
    """A file, and the name its poses go by.

    Attributes:
      name: see above.
      path: of the file.
      upright: it is to be turned as its camera says, in its Exif data.
    """

    name: str
    path: pathlib.Path
    upright: bool = True

    def read(self) -> UInt8[np.ndarray, "h w 3"]:
        """The picture, RGB.

        Raises:
          ImageError: it cannot be read.
        """
        return read_image(self.path, upright=self.upright)


class Video(NamedTuple):
    """A video.

    Attributes:
      name: of the file, without folders and extension; or `webcam0`.
      source: the file, or the number of a webcam.
      frame_rate: frames a second.
      num_frames: as its file says; None if nobody knows.
    """

    name: str
    source: str | int
    frame_rate: float
    num_frames: int | None


class Frame(NamedTuple):
    """A picture, or a frame of a video, or why there is none.

    Attributes:
      name: that the poses go by, unique among the inputs.
      image: RGB; None if it cannot be read.
      video: that it is of, if any.
      index: in the video.
      error: why there is no image.
    """

    name: str
    image: UInt8[np.ndarray, "h w 3"] | None
    video: Video | None = None
    index: int = 0
    error: str = ""


def find_inputs(
    texts: Sequence[str], leave_out: pathlib.Path | None = None, upright: bool = True
) -> list[Picture | Video]:
    """All that `texts` name, in that order; files of folders by name.

    A text is a picture, a folder, whose pictures are taken with those of its subfolders, a list
    (.txt; a path a line, relative to the list), a video, or the number of a webcam. Poses go by
    file names without folders, in folders by paths relative to them, or, where that is ambiguous,
    by paths relative to the folder that all inputs have in common.

    Args:
      texts: see above.
      leave_out: the folder of the results, whose drawings are not taken.
      upright: turn pictures as their cameras say, in their Exif data.

    Raises:
      UserError: one does not exist, is empty, or is a video that cannot be read.
    """
    drawn = leave_out and (leave_out / DRAWN).resolve()
    try:
        # What is given twice is done once.
        found = list(dict.fromkeys(item for text in texts for item in _find(text, drawn)))
    except OSError as error:  # of a name that is too long, or a folder that may not be looked into
        raise UserError(f"{error.filename}: {error.strerror}; check the path") from None
    found = [item if isinstance(item, Video) else item._replace(upright=upright) for item in found]
    if not _tells_apart(found):
        found = _by_common_folder(found)
    return list({item.name: item for item in found}.values())  # one path written in two ways


def _tells_apart(items: Sequence[Picture | Video]) -> bool:
    """Whether names are unique, those of the frames of videos too."""
    names = {item.name for item in items}
    frames = [re.fullmatch(r"(.+)_\d{6,}\.jpg", item.name) for item in items]
    videos = {item.name for item in items if isinstance(item, Video)}
    return len(names) == len(items) and not any(frame and frame[1] in videos for frame in frames)


def count_frames(inputs: Sequence[Picture | Video]) -> int | None:
    """How many frames there are; None if nobody knows."""
    counts = [item.num_frames if isinstance(item, Video) else 1 for item in inputs]
    return None if None in counts else sum(count for count in counts if count)


def read_frames(
    inputs: Sequence[Picture | Video], done: Collection[str] = ()
) -> Generator[Frame, None, None]:
    """Frames of all inputs in their order, pictures decoded ahead in threads.

    Args:
      inputs: of `find_inputs`.
      done: names to leave out. Of a webcam, whose pictures are new ones, the count goes on.
    """
    by_video = itertools.groupby(inputs, lambda item: item if isinstance(item, Video) else None)
    for video, items in by_video:
        if video is not None:
            yield from _video_frames(video, done)
        else:
            waiting = (item for item in items if item.name not in done)
            yield from map_ahead(_read, waiting, _THREADS)


def _find(text: str, leave_out: pathlib.Path | None) -> list[Picture | Video]:
    path = pathlib.Path(text)
    if text.isascii() and text.isdigit() and not path.exists():
        return [_open_video(f"webcam{text}", int(text))]
    if not path.exists():
        raise UserError(f"{text}: no such file or folder; check the path")
    if path.is_dir():
        return list(_in_folder(path, leave_out))
    if path.suffix.lower() == ".txt":
        return _in_list(path, leave_out)
    return [_of_file(path)]


def _of_file(path: pathlib.Path) -> Picture | Video:
    if path.suffix.lower() in VIDEOS:
        return _open_video(path.stem, str(path))
    return Picture(path.name, path)


def _in_folder(folder: pathlib.Path, leave_out: pathlib.Path | None) -> list[Picture]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURES
        and not (leave_out and path.resolve().is_relative_to(leave_out))
    )
    if not paths:
        raise UserError(f"{folder}: no pictures there ({' '.join(PICTURES)}); check the path")
    return [Picture(path.relative_to(folder).as_posix(), path) for path in paths]


def _in_list(path: pathlib.Path, leave_out: pathlib.Path | None) -> list[Picture | Video]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a list of paths ({error}); give a text file") from None
    files = [path.parent / line.strip() for line in lines if line.strip()]
    if not files:
        raise UserError(f"{path}: the list is empty; write a path a line")
    folders = [file for file in files if file.is_dir()]
    if folders:
        raise UserError(f"{path}: {folders[0]} is a folder; give folders themselves, or files")
    # A picture that is missing is said when its turn comes, like one that is damaged.
    return [_of_file(file) for file in files]


def _open_video(name: str, source: str | int) -> Video:
    capture = _capture(source)
    rate = capture.get(cv2.CAP_PROP_FPS)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if isinstance(source, str) else 0
    capture.release()
    rate = rate if np.isfinite(rate) and rate > 0 else _DEFAULT_RATE
    return Video(name, source, rate, count if count > 0 else None)


def _capture(source: str | int) -> cv2.VideoCapture:
    # What OpenCV and FFmpeg have to say of a damaged video is said below, in one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(source)
    if not capture.isOpened() or not capture.grab():
        what = f"video {source}" if isinstance(source, str) else f"webcam {source}"
        raise UserError(f"{what} cannot be read: check that it is there and not damaged")
    return capture


def _video_frames(video: Video, done: Collection[str]) -> Iterator[Frame]:
    """Those not done; of one that is done no pixel is decoded."""
    capture = _capture(video.source)  # which has grabbed the first frame
    start = 0
    if isinstance(video.source, int):
        start = sum(bool(re.fullmatch(rf"{re.escape(video.name)}_\d{{6,}}\.jpg", n)) for n in done)
    try:
        for index in itertools.count(start):
            if index > start and not capture.grab():
                _say_if_cut(video, index)
                return
            name = f"{video.name}_{index:06}.jpg"
            if name in done:
                continue
            there, image = capture.retrieve()
            if there:
                yield Frame(name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), video, index)
            else:
                error = f"{video.source}: frame {index} cannot be decoded"
                yield Frame(name, None, video, index, error)
    finally:
        capture.release()


def _say_if_cut(video: Video, count: int) -> None:
    if video.num_frames and count < 0.9 * video.num_frames:  # many files are a few frames off
        line = "video %s ends after %d of %d frames: it may be damaged"
        logging.getLogger(__name__).warning(line, video.source, count, video.num_frames)


def _read(picture: Picture) -> Frame:
    try:
        return Frame(picture.name, picture.read())
    except ImageError as error:
        return Frame(picture.name, None, error=str(error))


def _by_common_folder(items: list[Picture | Video]) -> list[Picture | Video]:
    """Names that tell all files apart: paths relative to the folder that they have in common."""
    paths = [item.path if isinstance(item, Picture) else item.source for item in items]
    # Without `..`: files of results are named by these, and must not leave their folder.
    files = [
        path if isinstance(path, int) else pathlib.Path(os.path.abspath(path)) for path in paths
    ]
    root = os.path.commonpath([file.parent for file in files if not isinstance(file, int)])
    return [
        item if isinstance(file, int) else item._replace(name=file.relative_to(root).as_posix())
        for item, file in zip(items, files, strict=True)
    ]
