"""PoseTrack18's JSON of videos, read and written (Andriluka et al., CVPR 2018; posetrack.net).

A file is COCO's annotation format with the frames of one video, or of several. An image has
`file_name`, `frame_id`, `vid_id`, `is_labeled`, and `ignore_regions_x` and `ignore_regions_y`, the
polygons in which people are not annotated. An annotation is a person in a frame: `track_id`,
`keypoints`, `bbox` and `bbox_head`; files of predictions have the `scores` of the joints too.

The 17 joints are nose, head_bottom, head_top and, as in COCO, ears to ankles. The ears are never
annotated. COCO's eyes are missing in PoseTrack, and head_bottom and head_top are missing in COCO.
"""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.readers.annotations import (
    NUMBER,
    check_coordinates,
    check_unique,
    extent_box,
    field,
    identifier,
    numbers,
)
from rmpe_jax.data.readers.categories import (
    PERSON,
    category_of,
    joint_order,
    person_category,
    read_categories,
)
from rmpe_jax.data.tracks import TrackedFrame, TrackedPeople, TrackedVideo
from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json, write_json
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import POSETRACK

# PoseTrack's names of joints that are spelled otherwise here.
_NAMES = {"upper_neck": "head_bottom"}
_PEOPLE_PER_FRAME = 100  # PoseTrack's ids of annotations are frame_id * 100 + number
_FRAMES_PER_VIDEO = 10**4


def read_posetrack(path: str | os.PathLike) -> list[TrackedVideo]:
    """The videos in a file, or in the files `*.json` of a folder, in the order of their names.

    People without joints are left out, as in PoseTrack's evaluation. A person without `track_id`
    gets the id -1. A box is by default around the joints. Joints are ordered by their names, if
    the file names them.

    Raises:
      UserError: there is no such file, or it is not of this format.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return _videos_of(path)
    files = sorted(path.glob("*.json"))
    if not files:
        raise UserError(f"{path} has no file *.json: give the folder of PoseTrack's annotations")
    return [video for file in files for video in _videos_of(file)]


def posetrack_document(videos: Iterable[TrackedVideo]) -> dict[str, Any]:
    """The content of a file with these videos.

    Joints are found by their names; those that the skeleton of the people lacks have visibility 0
    and score 0. People without a track have no `track_id`. Coordinates are rounded to a thousandth
    of a pixel. Heads of unknown size have no `bbox_head`.

    Args:
      videos: annotated or found people.

    Raises:
      UserError: PoseTrack's ids have no room for so many frames of a video or people of a frame.
    """
    images, annotations = [], []
    for number, video in enumerate(videos, 1):
        order = POSETRACK.indices_in(video.skeleton)
        _require_room(video)
        for place, frame in enumerate(video.frames):
            frame_id = number * _FRAMES_PER_VIDEO + place
            images.append(_image(frame, frame_id, f"{number:06d}", len(video.frames)))
            annotations += [
                _annotation(frame.people, person, order, frame_id)
                for person in range(len(frame.people.ids))
            ]
    joints = [_NAMES.get(joint, joint) for joint in POSETRACK.joints]
    skeleton = (POSETRACK.limb_indices + 1).tolist()
    category = {"id": PERSON, "name": "person", "keypoints": joints, "skeleton": skeleton}
    return {"images": images, "annotations": annotations, "categories": [category]}


def _require_room(video: TrackedVideo) -> None:
    most = max((len(frame.people.ids) for frame in video.frames), default=0)
    for count, limit, what in (
        (len(video.frames), _FRAMES_PER_VIDEO, "frames in a video"),
        (most, _PEOPLE_PER_FRAME, "people in a frame"),
    ):
        if count > limit:
            raise UserError(
                f"{video.name}: PoseTrack's ids have room for {limit:,} {what}, not for {count:,}: "
                "split the video, or leave some out"
            )


def write_posetrack(path: str | os.PathLike, videos: Iterable[TrackedVideo]) -> None:
    """Write `posetrack_document` to a file.

    Raises:
      UserError: the file cannot be written, or a coordinate is not finite.
    """
    write_json(path, posetrack_document(videos))


def _videos_of(path: pathlib.Path) -> list[TrackedVideo]:
    where = f"PoseTrack file {path}"
    document = read_json(path, "PoseTrack file")
    images = field(document, "images", where, list)
    entries = field(document, "annotations", where, list)
    known = read_categories(document, where)
    category = person_category(known, where)
    order = joint_order(known.get(category, {}), POSETRACK, where)
    called = [f"{where}: image number {place}" for place in range(len(images))]
    ids = [identifier(i, "id", w, (*NUMBER, str)) for i, w in zip(images, called, strict=True)]
    check_unique(ids, f"{where}: 'id' of the images")
    people: dict[Any, list[tuple[Any, ...]]] = {image_id: [] for image_id in ids}
    for place, entry in enumerate(entries):
        name = f"{where}: annotation number {place}"
        image_id = identifier(entry, "image_id", name, (*NUMBER, str))
        if image_id not in people:
            raise UserError(f"{name} refers to image {image_id!r}, which is not in 'images'")
        if category_of(entry, name, category) == category and entry.get("keypoints"):
            person = _person(entry, order, name)
            people[image_id] += [person] if (person[1] > 0).any() else []
    frames: dict[str, list[tuple[int, TrackedFrame]]] = {}
    for place, (image, image_id, name) in enumerate(zip(images, ids, called, strict=True)):
        video = str(image.get("vid_id") or path.stem)
        number = identifier(image, "frame_id", name) if "frame_id" in image else place
        frame = _frame(image, _stack(people[image_id]), name)
        check_unique([i for i in frame.people.ids.tolist() if i >= 0], f"{name}: 'track_id'")
        frames.setdefault(video, []).append((number, frame))
    if not frames:
        raise UserError(f"{where} has no images: give the annotations of a video")
    names = list(frames) if len(frames) > 1 else [path.stem]
    ordered = [sorted(of_video, key=lambda item: item[0]) for of_video in frames.values()]
    return [
        TrackedVideo(name, POSETRACK, tuple(frame for _, frame in of_video))
        for name, of_video in zip(names, ordered, strict=True)
    ]


def _person(entry: dict, order: np.ndarray, where: str) -> tuple[Any, ...]:
    """The fields of `TrackedPeople` for one person."""
    joints = numbers(entry, "keypoints", (POSETRACK.num_keypoints, 3), where)[order]
    scores = np.clip(joints[:, 2], 0, 1)
    if entry.get("scores"):
        given = numbers(entry, "scores", (POSETRACK.num_keypoints,), where)[order]
        scores = np.where(scores > 0, np.clip(given, 0, 1), 0)
    points = np.where(scores[:, None] > 0, joints[:, :2], 0)
    check_coordinates(points, "keypoints", where)
    if entry.get("bbox") is None:
        bbox = extent_box(points, (scores > 0).astype(np.uint8))
    else:
        bbox = geometry.xyxy_from_xywh(numbers(entry, "bbox", (4,), where))
        check_coordinates(bbox, "bbox", where)
    head = np.full(4, np.nan)
    if entry.get("bbox_head"):
        head = geometry.xyxy_from_xywh(numbers(entry, "bbox_head", (4,), where))
        check_coordinates(head, "bbox_head", where)
    has_track = entry.get("track_id") is not None
    track = identifier(entry, "track_id", where) if has_track else -1
    return points, scores, bbox, head if geometry.box_area(head) > 0 else head * np.nan, track


def _stack(rows: Sequence[tuple[Any, ...]]) -> TrackedPeople:
    if not rows:
        return TrackedPeople.none(POSETRACK.num_keypoints)
    *columns, ids = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    return TrackedPeople(*columns, ids=ids.astype(int))


def _frame(image: dict, people: TrackedPeople, where: str) -> TrackedFrame:
    name = field(image, "file_name", where, str).replace("\\", "/")
    sides = [image.get(f"ignore_regions_{axis}") or [] for axis in "xy"]
    try:
        ignored = tuple(
            np.stack([np.asarray(x, float), np.asarray(y, float)], -1)
            for x, y in zip(*sides, strict=True)
        )
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where} has ignore_regions_x and ignore_regions_y that do not fit each other: fix "
            "the file"
        ) from None
    return TrackedFrame(name, people, bool(image.get("is_labeled", True)), ignored)


def _image(frame: TrackedFrame, frame_id: int, video_id: str, num_frames: int) -> dict[str, Any]:
    image: dict[str, Any] = {
        "id": frame_id,
        "frame_id": frame_id,
        "vid_id": video_id,
        "nframes": num_frames,
        "file_name": frame.name,
        "is_labeled": frame.is_labeled,
    }
    if frame.ignored:
        for axis, name in enumerate(("ignore_regions_x", "ignore_regions_y")):
            image[name] = [polygon[:, axis].tolist() for polygon in frame.ignored]
    return image


def _annotation(
    people: TrackedPeople, person: int, order: np.ndarray, frame_id: int
) -> dict[str, Any]:
    scores = np.where(order >= 0, people.keypoint_scores[person, order], 0)
    points = np.where(scores[:, None] > 0, people.keypoints[person, order], 0)
    points = points.astype(np.float64).round(3).tolist()
    joints = [[*point, int(score > 0)] for point, score in zip(points, scores, strict=True)]
    entry = {
        "id": frame_id * _PEOPLE_PER_FRAME + person,
        "image_id": frame_id,
        "category_id": PERSON,
        "keypoints": [value for joint in joints for value in joint],
        "scores": scores.astype(np.float64).round(4).tolist(),
        "bbox": _xywh(people.bboxes[person]),
    }
    if np.isfinite(people.head_boxes[person]).all():
        entry["bbox_head"] = _xywh(people.head_boxes[person])
    if people.ids[person] >= 0:
        entry["track_id"] = int(people.ids[person])
    return entry


def _xywh(bbox: Float[np.ndarray, " 4"]) -> list[float]:
    return geometry.xywh_from_xyxy(bbox.astype(np.float64)).round(3).tolist()
