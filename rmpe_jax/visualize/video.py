"""Video files, written frame by frame."""

import os
import pathlib
from typing import Self

import cv2
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.errors import UserError
from rmpe_jax.files import not_writable


class VideoFile:
    """An MP4 (MPEG-4 part 2) that grows by a frame at a time; a context manager.

    Until the block ends the frames are in a file beside `path`. It takes the place of `path` also
    after an error or an interruption, with the frames so far; without any frame it is not there.
    """

    def __init__(self, path: str | os.PathLike, frame_rate: float, size: tuple[int, int]) -> None:
        """Open the file.

        Args:
          path: ends in `.mp4`.
          frame_rate: frames a second.
          size: (height, width) of every frame; the last row or column of an odd one is left out,
            for MPEG-4 has even sides.

        Raises:
          UserError: no such video can be written there.
        """
        self._path, self._size, self._count = pathlib.Path(path), size, 0
        if self._path.suffix.lower() != ".mp4":
            raise UserError(f"video {path}: only .mp4 is written: end its name in that")
        if not (np.isfinite(frame_rate) and frame_rate > 0):
            raise UserError(f"video {path} cannot have {frame_rate} frames a second: give a rate")
        self._temporary = self._path.with_name(f".{self._path.stem}.{os.getpid()}.tmp.mp4")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(path, error) from None
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        height, width = size
        self._writer = cv2.VideoWriter(str(self._temporary), codec, frame_rate, (width, height))
        if not self._writer.isOpened():
            raise UserError(f"video {path} cannot be opened for writing: check folder and disk")

    def add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Append a frame, RGB of the file's size.

        Raises:
          UserError: the frame is of another size.
        """
        if image.shape[:2] != tuple(self._size):
            # OpenCV drops such frames without a word.
            raise UserError(
                f"video {self._path}: a frame of {image.shape[:2]} does not fit {self._size}"
            )
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._count += 1

    def close(self) -> None:
        """Finish the file and put it in its place.

        Raises:
          UserError: what is on the disk is not the video, as when the disk is full.
        """
        self._writer.release()
        try:
            if self._count and num_frames(self._temporary) != self._count:
                raise UserError(f"video {self._path} is not whole: make room on the disk")
            if self._count:
                os.replace(self._temporary, self._path)
        except OSError as error:
            raise not_writable(self._path, error) from None
        finally:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def num_frames(path: str | os.PathLike) -> int:
    """How many frames a video file says that it has; 0 if it is none."""
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
