"""Small files with several images: videos, animations, pages."""

import pathlib

import cv2
import numpy as np

SIZE = (48, 64)
STEP = 20  # frame i has this gray value, times i + 1


def frames(count: int) -> list[np.ndarray]:
    return [np.full((*SIZE, 3), STEP * (i + 1), np.uint8) for i in range(count)]


def write_video(path: pathlib.Path, count: int = 5, rate: float = 12) -> pathlib.Path:
    codec = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), codec, rate, SIZE[::-1])
    for frame in frames(count):
        writer.write(frame)
    writer.release()
    return path


def write_animation(path: pathlib.Path, count: int, milliseconds: int = 40) -> pathlib.Path:
    animation = cv2.Animation()
    animation.frames = frames(count)
    animation.durations = [milliseconds] * count
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwriteanimation(str(path), animation)
    return path


def write_pages(path: pathlib.Path) -> pathlib.Path:
    assert cv2.imwritemulti(str(path), frames(3))
    return path
