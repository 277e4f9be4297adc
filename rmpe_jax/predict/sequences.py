"""Which inputs are one video for tracking, in which order, and at what time each frame was taken.

A video, webcam or animation is one. The images of one folder are the frames of one video, in the
order of their names with numbers in them compared as numbers; subfolders are videos of their own.
"""

import os
import re
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from rmpe_jax.predict.inputs import ImageInput, Input
from rmpe_jax.predict.videos import DEFAULT_FRAME_RATE, VideoInput

_FRAME_NAME = re.compile(r"(.+)_(\d{6,})\.jpg", re.DOTALL)  # of `VideoInput.frame_name`


class Video(NamedTuple):
    """What has track ids of its own.

    Attributes:
      name: for people; may not be unique.
      key: unique.
      frame_rate: frames per second; of a folder of images 25, because it is not known.
      is_live: whether it is a webcam, so that time passes between two runs.
    """

    name: str
    key: Hashable
    frame_rate: float
    is_live: bool = False


class Place(NamedTuple):
    """A frame's place in its video: the video, and the number of the frame from 0."""

    video: Video
    index: int

    @property
    def time(self) -> float:
        """Seconds since the start of the video."""
        return self.index / self.video.frame_rate


class Sequences:
    """The videos of a run, and the place of each frame in them.

    Attributes:
      inputs: in the order in which they must be read: images of a folder follow each other.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        """Sort the inputs of `inputs.find_files` into videos."""
        groups: dict[Hashable, list[Input]] = {}
        for item in inputs:
            groups.setdefault(_key(item), []).append(item)
        self.inputs: list[Input] = []
        self._videos: dict[str, Video] = {}
        self._places: dict[str, Place] = {}
        for key, items in groups.items():
            images = sorted(
                (item for item in items if isinstance(item, ImageInput)), key=_natural_order
            )
            self.inputs += images or items
            if images:
                video = Video(images[0].path.absolute().parent.name, key, DEFAULT_FRAME_RATE)
                places = {image.name: Place(video, i) for i, image in enumerate(images)}
                self._places.update(places)
            elif isinstance(item := items[0], VideoInput):
                is_live = isinstance(item.source, int)
                self._videos[item.name] = Video(item.name, key, item.frame_rate, is_live)

    def place(self, name: str) -> Place | None:
        """The place of the frame of this name; None if it is not among the inputs."""
        if name in self._places:
            return self._places[name]
        match = _FRAME_NAME.fullmatch(name)
        video = self._videos.get(match[1]) if match else None
        return Place(video, int(match[2])) if match and video else None


def _key(item: Input) -> Hashable:
    """The same for all frames of a video."""
    if isinstance(item, ImageInput):
        return os.path.abspath(item.path.parent)
    return item


def _natural_order(image: ImageInput) -> tuple[list[str | int], str]:
    """Sorts `frame10.png` after `frame9.png`."""
    parts = re.split(r"([0-9]+)", image.path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], image.name
