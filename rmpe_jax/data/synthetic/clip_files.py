"""Writes clips as images with PoseTrack18's annotations."""

import os
import pathlib
from collections.abc import Iterable

import cv2
import numpy as np

from rmpe_jax.data.posetrack import write_posetrack
from rmpe_jax.data.synthetic.motion import Clip, clip_images, make_clip
from rmpe_jax.data.tracks import TrackedFrame, TrackedPeople, TrackedVideo
from rmpe_jax.files import atomic_write
from rmpe_jax.skeletons import COCO


def clip_video(clip: Clip, name: str) -> TrackedVideo:
    """The people of a clip who are present in each frame, with COCO's joints.

    Frames are called `NAME/000000.jpg`, and so on.
    """
    frames = []
    for number, ids in enumerate(clip.ids):
        present = ids > 0
        columns = clip.keypoints, clip.visibility > 0, clip.bboxes, clip.head_boxes
        people = TrackedPeople(
            *(column[number, present].astype(np.float64) for column in columns), ids=ids[present]
        )
        frames.append(TrackedFrame(f"{name}/{number:06d}.jpg", people))
    return TrackedVideo(name, COCO, tuple(frames))


def write_clips(folder: str | os.PathLike, seeds: Iterable[int], num_frames: int = 100) -> None:
    """Write `images/clip_SEED/NUMBER.jpg` and, last, the annotations `posetrack.json`.

    Args:
      folder: created with its parents if missing.
      seeds: one for each clip.
      num_frames: of each clip.

    Raises:
      UserError: the folder cannot be written, or an argument is out of range.
    """
    folder = pathlib.Path(folder)
    videos = []
    for seed in seeds:
        video = clip_video(make_clip(seed, num_frames), f"clip_{seed:06d}")
        for frame, image in zip(video.frames, clip_images(seed, num_frames), strict=True):
            with atomic_write(folder / "images" / frame.name, "wb") as file:
                file.write(cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
        videos.append(video)
    write_posetrack(folder / "posetrack.json", videos)
