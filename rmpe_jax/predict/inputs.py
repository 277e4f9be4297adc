"""The inputs of `rmpe predict` as a stream of frames: images, folders, lists, videos, webcams."""

import itertools
import logging
import os
import pathlib
import re
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.eval_pipeline import map_ahead
from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.errors import UserError
from rmpe_jax.predict import output_names
from rmpe_jax.predict.media import Kind, kind_of, silence_opencv
from rmpe_jax.predict.videos import VideoInput, open_animation, open_video, read_video

_DECODING_THREADS = 2
_OPENING_THREADS = 16  # they wait for the disk or the network


class ImageInput(NamedTuple):
    """An image file.

    Attributes:
      name: identifies its poses in the results.
      path: of the file.
      upright: whether to apply the EXIF orientation.
      has_pages: whether the file has several images, of which the first is read.
    """

    name: str
    path: pathlib.Path
    upright: bool = True
    has_pages: bool = False

    def read(self) -> UInt8[np.ndarray, "h w 3"]:
        """The image, RGB.

        Raises:
          ImageError: the image cannot be read.
        """
        return read_image(self.path, upright=self.upright)


class UnreadableInput(NamedTuple):
    """A video that cannot be opened; it counts as one frame without an image.

    Attributes:
      name: identifies it among the inputs.
      path: of the file.
      error: why it cannot be opened.
    """

    name: str
    path: pathlib.Path
    error: str


Input = ImageInput | VideoInput | UnreadableInput


class FoundFiles(NamedTuple):
    """The files that arguments name.

    Attributes:
      inputs: images and videos.
      passed_over: files in folders that are neither.
    """

    inputs: list[Input]
    passed_over: list[pathlib.Path]


class Frame(NamedTuple):
    """An image, a frame of a video, or the reason why it could not be read.

    Attributes:
      name: identifies its poses in the results; unique among the inputs.
      image: RGB; None if it cannot be read.
      video: the video that the frame is part of, if any.
      index: number of the frame in the video, from 0.
      error: why there is no image, or no result.
      time: of a webcam, seconds since its first frame in this run; else None.
    """

    name: str
    image: UInt8[np.ndarray, "h w 3"] | None
    video: VideoInput | None = None
    index: int = 0
    error: str = ""
    time: float | None = None


def find_inputs(
    arguments: Sequence[str], output_folder: pathlib.Path | None = None, upright: bool = True
) -> list[Input]:
    """The inputs of `find_files`; the log counts the files that it passes over."""
    inputs, passed_over = find_files(arguments, output_folder, upright)
    if passed_over:
        logging.getLogger(__name__).warning(describe_passed_over(passed_over))
    return inputs


def find_files(
    arguments: Sequence[str], output_folder: pathlib.Path | None = None, upright: bool = True
) -> FoundFiles:
    """The images and videos that `arguments` name, in that order; files of a folder by name.

    An argument is an image, a video, a folder (the images and videos in it and its subfolders), a
    list (.txt, one path per line, relative to the list), or the number of a webcam. Animated images
    are videos. Poses are identified by file names without folders; for folders, by paths relative
    to the folder. If these names are ambiguous, all inputs are named by paths relative to their
    common parent folder. Inputs that are given twice are processed once.

    Args:
      arguments: as on the command line.
      output_folder: the folder of the results; drawings inside it are not taken as inputs.
      upright: apply the EXIF orientation of images.

    Raises:
      UserError: an argument does not exist or is empty, a webcam cannot be read, or no input can
        be opened.
    """
    silence_opencv()
    out = output_folder and output_folder.resolve()
    try:
        parts = [_files_of(argument, out) for argument in arguments]
    except OSError as error:  # the name is too long, or a folder is not readable
        raise UserError(f"{error.filename}: {error.strerror}; check the path") from None
    found = list(dict.fromkeys(item for part in parts for item in part.inputs))
    passed_over = list(dict.fromkeys(path for part in parts for path in part.passed_over))
    unreadable = [item.error for item in found if isinstance(item, UnreadableInput)]
    if unreadable and len(unreadable) == len(found):
        count = f"none of the {len(found):,} videos can be read: " if len(found) > 1 else ""
        raise UserError(count + unreadable[0])
    paged = [item.path for item in found if isinstance(item, ImageInput) and item.has_pages]
    if paged:
        line = "images with several pages, of which only the first is read: %d (%s)"
        logging.getLogger(__name__).warning(line, len(paged), _some_names(paged))
    found = [
        item._replace(upright=upright) if isinstance(item, ImageInput) else item for item in found
    ]
    if not _are_names_unique(found):
        found = _named_by_common_folder(found)
    # The same path may have been written in two ways.
    return FoundFiles(list({item.name: item for item in found}.values()), passed_over)


def describe_passed_over(paths: Sequence[pathlib.Path]) -> str:
    """Such as `passed over 2 files that are neither image nor video (a.txt, b.json)`."""
    files = "1 file that is" if len(paths) == 1 else f"{len(paths):,} files that are"
    return f"passed over {files} neither image nor video ({_some_names(paths)})"


def count_frames(inputs: Sequence[Input]) -> int | None:
    """The total number of images and frames; None if unknown."""
    counts = [item.num_frames if isinstance(item, VideoInput) else 1 for item in inputs]
    return None if None in counts else sum(count for count in counts if count)


def frame_names(inputs: Sequence[Input]) -> Iterator[str]:
    """The names of all images, and of all frames of videos whose length is known."""
    for item in inputs:
        if isinstance(item, VideoInput):
            yield from (item.frame_name(index) for index in range(item.num_frames or 0))
        else:
            yield item.name


def read_frames(
    inputs: Sequence[Input], done: Collection[str] = ()
) -> Generator[Frame, None, None]:
    """Frames of all inputs in their order; threads decode images ahead.

    Args:
      inputs: of `find_files`.
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
            yield from map_ahead(_read, remaining, _DECODING_THREADS, ahead=_DECODING_THREADS)


def _files_of(argument: str, out: pathlib.Path | None) -> FoundFiles:
    path = pathlib.Path(argument)
    if argument.isascii() and argument.isdigit() and not path.exists():
        return FoundFiles([open_video(f"webcam{argument}", int(argument))], [])
    if not path.exists():
        raise UserError(f"{argument}: no such file or folder; check the path")
    if path.is_dir():
        return _files_in_folder(path, out)
    if path.suffix.lower() == ".txt":
        return FoundFiles(_inputs_in_list(path), [])
    return FoundFiles([_named_input(path, kind_of(path))], [])


def _kinds_of(paths: Sequence[pathlib.Path]) -> Iterator[tuple[pathlib.Path, Kind]]:
    return zip(paths, map_ahead(kind_of, paths, _OPENING_THREADS), strict=True)


def _named_input(path: pathlib.Path, kind: Kind) -> Input:
    """The input of a file that the user names; what is neither image nor video cannot be read."""
    return _input_of_file(path, path.name, kind) or ImageInput(path.name, path)


def _input_of_file(path: pathlib.Path, name: str, kind: Kind) -> Input | None:
    if kind in (Kind.IMAGE, Kind.PAGES):
        return ImageInput(name, path, has_pages=kind == Kind.PAGES)
    if kind == Kind.OTHER:
        return None
    stem = pathlib.PurePosixPath(name).with_suffix("").as_posix()
    if kind == Kind.ANIMATION:
        return open_animation(stem, path)
    try:
        return open_video(stem, str(path))
    except UserError as error:
        return UnreadableInput(name, path, str(error))


def _files_in_folder(folder: pathlib.Path, out: pathlib.Path | None) -> FoundFiles:
    inputs, passed_over = [], []
    for path, kind in _kinds_of(_walk(folder, out)):
        item = _input_of_file(path, path.relative_to(folder).as_posix(), kind)
        if item is not None:
            inputs.append(item)
        elif not _is_result(path, folder, out):
            passed_over.append(path)
    if not inputs:
        others = f", but {describe_passed_over(passed_over)}" if passed_over else ""
        raise UserError(f"{folder}: no images or videos there{others}; check the path")
    return FoundFiles(inputs, passed_over)


def _walk(folder: pathlib.Path, out: pathlib.Path | None) -> list[pathlib.Path]:
    """All files in a folder and its subfolders, sorted; not those in the folder of drawings.

    Links to folders are followed, but every folder is visited once.
    """

    def fail(error: OSError) -> None:
        raise error

    files, visited = [], set()
    for parent, subfolders, names in os.walk(folder, onerror=fail, followlinks=True):
        place = pathlib.Path(parent).resolve()
        if place in visited or (out and place.is_relative_to(out / output_names.DRAWINGS)):
            subfolders.clear()
            continue
        visited.add(place)
        subfolders.sort()
        files += [pathlib.Path(parent, name) for name in names]
    return sorted(files)


def _is_result(path: pathlib.Path, folder: pathlib.Path, out: pathlib.Path | None) -> bool:
    """Whether a file of an input folder is a result: any file in an output folder of its own."""
    if out is None:
        return False
    if folder.resolve() == out:
        return output_names.is_result(path, out)
    return path.resolve().is_relative_to(out)


def _inputs_in_list(path: pathlib.Path) -> list[Input]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a list of paths ({error}); give a text file") from None
    files = [path.parent / line.strip() for line in lines if line.strip()]
    if not files:
        raise UserError(f"{path}: the list is empty; write one path per line")
    inputs: list[Input] = []
    for file, kind in _kinds_of(files):
        if kind == Kind.OTHER and file.is_dir():
            raise UserError(f"{path}: {file} is a folder; give folders as inputs, not in a list")
        # Missing images are reported when they are read, like damaged ones.
        inputs.append(_named_input(file, kind))
    return inputs


def _video_frames(video: VideoInput, done: Collection[str]) -> Iterator[Frame]:
    """The frames that are not in `done`; the others are not decoded."""
    start = 0
    if isinstance(video.source, int):
        start = sum(bool(re.fullmatch(rf"{re.escape(video.name)}_\d{{6,}}\.jpg", n)) for n in done)
    try:
        began = time.monotonic()
        for index, image in read_video(video, lambda i: video.frame_name(i) in done, start):
            error = f"{video.source}: frame {index} cannot be decoded" if image is None else ""
            seconds = time.monotonic() - began if isinstance(video.source, int) else None
            yield Frame(video.frame_name(index), image, video, index, error, seconds)
    except UserError as error:  # the file has been there when the inputs were found
        yield Frame(video.frame_name(start), None, video, start, str(error))


def _read(item: ImageInput | UnreadableInput) -> Frame:
    if isinstance(item, UnreadableInput):
        return Frame(item.name, None, error=item.error)
    try:
        return Frame(item.name, item.read())
    except ImageError as error:
        return Frame(item.name, None, error=str(error))


def _are_names_unique(items: Sequence[Input]) -> bool:
    """Whether names are unique, including those of the frames of videos."""
    names = {item.name for item in items}
    frames = [re.fullmatch(r"(.+)_\d{6,}\.jpg", item.name) for item in items]
    videos = {item.name for item in items if isinstance(item, VideoInput)}
    return len(names) == len(items) and not any(frame and frame[1] in videos for frame in frames)


def _named_by_common_folder(items: list[Input]) -> list[Input]:
    """The inputs, named by their paths relative to their common parent folder."""
    paths = [item.source if isinstance(item, VideoInput) else item.path for item in items]
    # Absolute, without `..`: result files get these names and must stay in their folder.
    files = [
        path if isinstance(path, int) else pathlib.Path(os.path.abspath(path)) for path in paths
    ]
    root = os.path.commonpath([file.parent for file in files if not isinstance(file, int)])
    return [
        item if isinstance(file, int) else item._replace(name=file.relative_to(root).as_posix())
        for item, file in zip(items, files, strict=True)
    ]


def _some_names(paths: Sequence[pathlib.Path]) -> str:
    """The names of the first three files, on one line."""
    names = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in names)
