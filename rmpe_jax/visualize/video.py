"""Writing video files frame by frame."""

import os
import pathlib

import cv2
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.images import opencv_path
from rmpe_jax.errors import UserError
from rmpe_jax.files import not_writable


class VideoFile:
    """An MP4 file (MPEG-4 part 2) that is written frame by frame; a context manager.

    Frames go to a temporary file beside `path`, which replaces `path` at the end of the block. This
    also happens after an error or an interruption, with the frames so far. Without frames, no file
    is written.
    """

    def __init__(self, path: str | os.PathLike, frame_rate: float, size: tuple[int, int]) -> None:
        """Opens the file.

        Args:
          path: file name that ends in `.mp4`.
          frame_rate: frames per second.
          size: (height, width) of every frame. The last row or column of an odd size is dropped,
            because MPEG-4 requires even sizes.

        Raises:
          UserError: the path is not writable, or the file name or the frame rate is invalid.
        """
        self._path, self._size, self._count = pathlib.Path(path), size, 0
        if self._path.suffix.lower() != ".mp4":
            raise UserError(f"video {path}: only .mp4 is supported: use a name that ends in .mp4")
        if not (np.isfinite(frame_rate) and frame_rate > 0):
            raise UserError(
                f"video {path}: {frame_rate} frames per second is invalid: give a positive number"
            )
        self._temporary = self._path.with_name(f".{self._path.stem}.{os.getpid()}.tmp.mp4")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(path, error) from None
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        height, width = size
        temporary = opencv_path(self._temporary)
        self._writer = cv2.VideoWriter(temporary, codec, frame_rate, (width, height))
        if not self._writer.isOpened():
            raise UserError(f"video {path} cannot be written: check the folder and the disk")

    def add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Appends an RGB frame.

        Raises:
          UserError: the frame differs in size from the video.
        """
        if image.shape[:2] != tuple(self._size):
            # OpenCV silently drops such frames.
            raise UserError(
                f"video {self._path}: a frame has size {image.shape[:2]} instead of {self._size}"
            )
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._count += 1

    def close(self) -> None:
        """Finishes the file and moves it to its path.

        Raises:
          UserError: the file on the disk is incomplete, for example because the disk is full.
        """
        self._writer.release()
        try:
            if self._count and num_frames(self._temporary) != self._count:
                raise UserError(f"video {self._path} is incomplete: free space on the disk")
            if self._count:
                os.replace(self._temporary, self._path)
        except OSError as error:
            raise not_writable(self._path, error) from None
        finally:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def num_frames(path: str | os.PathLike) -> int:
    """The number of frames according to the file's header; 0 if the file is not a video."""
    return int(cv2.VideoCapture(opencv_path(path)).get(cv2.CAP_PROP_FRAME_COUNT))
