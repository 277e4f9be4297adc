"""Frames of videos, webcams and animated images, one at a time."""

import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from rmpe_jax.data.images import ImageError, opencv_path, to_rgb
from rmpe_jax.errors import UserError
from rmpe_jax.predict.media import silence_opencv

DEFAULT_FRAME_RATE = 25.0  # of videos that do not specify one, and of folders of frames
_TIMED_FRAMES = 8  # of an animation, which its frame rate is computed from
_CHUNK_BYTES = 2**27  # of frames that are decoded together


class VideoInput(NamedTuple):
    """A video file, a webcam, or an animated image.

    Attributes:
      name: of the file, without extension; or `webcam0`.
      source: path of the file, or number of the webcam.
      frame_rate: frames per second.
      num_frames: according to the file; None if unknown.
      is_animation: whether it is an image file (GIF, WebP, PNG, AVIF).
    """

    name: str
    source: str | int
    frame_rate: float
    num_frames: int | None
    is_animation: bool = False

    def frame_name(self, index: int) -> str:
        """The name of a frame, such as `clip_000120.jpg`."""
        return f"{self.name}_{index:06}.jpg"


def open_video(name: str, source: str | int) -> VideoInput:
    """A video file or webcam as an input.

    Raises:
      UserError: it cannot be read.
    """
    capture = _capture(source)
    rate = capture.get(cv2.CAP_PROP_FPS)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if isinstance(source, str) else 0
    capture.release()
    rate = rate if np.isfinite(rate) and rate > 0 else DEFAULT_FRAME_RATE
    return VideoInput(name, source, rate, count if count > 0 else None)


def open_animation(name: str, path: pathlib.Path) -> VideoInput:
    """An animated image as an input; its frame rate is the mean of its first frames."""
    _, animation = cv2.imreadanimation(opencv_path(path), 0, _TIMED_FRAMES)
    milliseconds = float(np.mean(animation.durations)) if len(animation.durations) else 0.0
    rate = 1000 / milliseconds if milliseconds > 0 else DEFAULT_FRAME_RATE
    return VideoInput(name, os.fspath(path), rate, cv2.imcount(opencv_path(path)), True)


def read_video(
    video: VideoInput, is_done: Callable[[int], bool], start: int = 0
) -> Iterator[tuple[int, UInt8[np.ndarray, "_h _w 3"] | None]]:
    """Yield the numbers and images of the frames that are not done; None if one is damaged.

    Args:
      video: of `open_video` or `open_animation`.
      is_done: whether to skip the frame of this number; frames of videos are not decoded then.
      start: number of the first frame of a webcam.

    Raises:
      UserError: it cannot be opened.
    """
    frames = _animation_frames(video) if video.is_animation else _video_frames(video)
    count = 0
    for count, retrieve in enumerate(frames, 1):
        index = start + count - 1
        if not is_done(index):
            yield index, retrieve()
    # The frame count of many files is off by a few frames.
    if video.num_frames and count < 0.9 * video.num_frames:
        line = "video %s ends after %d of %d frames: it may be damaged"
        logging.getLogger(__name__).warning(line, video.source, count, video.num_frames)


_RetrieveFn = Callable[[], UInt8[np.ndarray, "_h _w 3"] | None]


def _video_frames(video: VideoInput) -> Iterator[_RetrieveFn]:
    capture = _capture(video.source)

    def retrieve() -> UInt8[np.ndarray, "h w 3"] | None:
        is_decoded, image = capture.retrieve()
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if is_decoded else None

    try:
        yield retrieve
        while capture.grab():
            yield retrieve
    finally:
        capture.release()


def _animation_frames(video: VideoInput) -> Iterator[_RetrieveFn]:
    """Chunks of frames, because to decode a frame OpenCV decodes all frames before it."""
    path, count, start = opencv_path(str(video.source)), 1, 0
    while start < (video.num_frames or 0):
        _, animation = cv2.imreadanimation(path, start, count)
        frames = animation.frames
        if not frames:
            if not start:
                yield lambda: None
            return
        yield from (functools.partial(_rgb_if_possible, frame) for frame in frames)
        start += len(frames)
        count = max(_CHUNK_BYTES // frames[0].nbytes, 1)


def _rgb_if_possible(decoded: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "h w 3"] | None:
    try:
        return to_rgb(decoded, "")
    except ImageError:
        return None


def _capture(source: str | int) -> cv2.VideoCapture:
    """An open video that has grabbed its first frame."""
    silence_opencv()
    is_file = isinstance(source, str)
    capture = cv2.VideoCapture(opencv_path(source) if is_file else source)
    if not capture.isOpened() or not capture.grab():
        what = f"{'video' if is_file else 'webcam'} {source}"
        raise UserError(f"{what} cannot be read: check that it is there and not damaged")
    return capture
