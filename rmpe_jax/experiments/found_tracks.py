"""Tracked poses of files, by the frames of annotated videos.

Poses belong to the frame whose name ends with the name of their image, or the other way round;
folders count, extensions do not.
"""

import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from rmpe_jax.data.posetrack import read_posetrack
from rmpe_jax.data.tracks import TrackedPeople, TrackedVideo
from rmpe_jax.errors import UserError
from rmpe_jax.predict.journal import read_journal
from rmpe_jax.skeletons import Skeleton, get_skeleton

_FrameName = tuple[str, ...]  # folders and file name without extension


def found_people(
    videos: Sequence[TrackedVideo], path: str | os.PathLike
) -> list[list[TrackedPeople]]:
    """The people found in each frame of each video, in the joints of the video.

    Joints that the poses lack have score 0. The log counts people without a track, frames without
    poses, images that are not frames of the videos, and annotated joints that the poses lack.

    Args:
      videos: annotated.
      path: `poses.jsonl` of `rmpe predict --track`, or files in PoseTrack18's format.

    Raises:
      UserError: the poses cannot be read, have no tracks, or are not of these videos.
    """
    skeleton, found = found_poses(videos, path)
    log = logging.getLogger(__name__)
    ids = [people.ids for frames in found for people in frames]
    without_track, total = sum(int((i < 0).sum()) for i in ids), sum(map(len, ids))
    if total and without_track == total:
        raise UserError(f"{path}: nobody has a track_id: predict with --track")
    if without_track:
        log.warning("%s: people without a track are left out: %d of %d", path, without_track, total)
    annotated = {
        video.skeleton.joints[joint]
        for video in videos
        for frame in video.frames
        for joint in np.flatnonzero(frame.people.keypoint_scores.sum(0))
    }
    if lacking := [joint for joint in sorted(annotated) if joint not in skeleton.joints]:
        line = "%s: annotated joints that the poses lack count as missed in PoseTrack's MOTA: %s"
        log.warning(line, path, ", ".join(lacking))
    return [
        [in_joints(people, skeleton, video.skeleton) for people in frames]
        for video, frames in zip(videos, found, strict=True)
    ]


def found_poses(
    videos: Sequence[TrackedVideo], path: str | os.PathLike
) -> tuple[Skeleton, list[list[TrackedPeople]]]:
    """The joints of the poses, and the people found in each frame of each video, tracked or not.

    The log counts frames without poses, and images that are not frames of the videos.

    Args:
      videos: annotated.
      path: `poses.jsonl` of `rmpe predict`, or files in PoseTrack18's format.

    Raises:
      UserError: the poses cannot be read, or are not of these videos.
    """
    skeleton, found = _read_poses(pathlib.Path(path))
    place_of = _find_frames(videos, found, path)
    people = [[TrackedPeople.none(skeleton.num_keypoints)] * len(video.frames) for video in videos]
    for name, (video, frame) in place_of.items():
        people[video][frame] = found[name]
    labeled = {
        (v, f) for v, video in enumerate(videos) for f, frame in enumerate(video.frames)
        if frame.is_labeled
    }  # fmt: skip
    if missing := len(labeled - set(place_of.values())):
        line = "%s: %d of %d annotated frames have no poses: everybody in them counts as missed"
        logging.getLogger(__name__).warning(line, path, missing, len(labeled))
    return skeleton, people


def _read_poses(path: pathlib.Path) -> tuple[Skeleton, dict[str, TrackedPeople]]:
    """The joints of the poses in a file, and the people found in each frame by its name."""
    if path.suffix != ".jsonl":
        videos = read_posetrack(path)
        found = [(frame.name, frame.people) for video in videos for frame in video.frames]
        return videos[0].skeleton, dict(found)
    skeleton = _skeleton_of(path)
    people = {}
    for result in read_journal(path, skeleton):
        poses = result.poses
        ids = np.full(len(poses.scores), -1) if result.track_ids is None else result.track_ids
        people[result.name] = TrackedPeople(
            poses.keypoints.astype(np.float64),
            poses.keypoint_scores.astype(np.float64),
            poses.bboxes.astype(np.float64),
            np.full((len(ids), 4), np.nan),
            ids.astype(int),
        )
    return skeleton, people


def _skeleton_of(path: pathlib.Path) -> Skeleton:
    """The skeleton that the first line of a journal names."""
    try:
        with open(path, encoding="utf-8") as file:
            name = json.loads(file.readline())["skeleton"]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from None
    except (ValueError, KeyError, TypeError):
        line = f"{path}: line 1 does not have the poses of an image"
        raise UserError(f"{line}: give poses.jsonl of rmpe predict") from None
    return get_skeleton(str(name))


def in_joints(people: TrackedPeople, own: Skeleton, other: Skeleton) -> TrackedPeople:
    """The same people in the joints of another skeleton; those that are missing have score 0."""
    order = other.indices_in(own)
    scores = np.where(order >= 0, people.keypoint_scores[:, order], 0)
    return people._replace(keypoints=people.keypoints[:, order], keypoint_scores=scores)


def _find_frames(
    videos: Sequence[TrackedVideo], found: Mapping[str, TrackedPeople], path: str | os.PathLike
) -> dict[str, tuple[int, int]]:
    """Video and frame of the poses of each name; poses of other frames are left out and counted."""
    endings: dict[_FrameName, list[tuple[int, int]]] = {}
    whole: dict[_FrameName, tuple[int, int]] = {}
    for v, video in enumerate(videos):
        for f, frame in enumerate(video.frames):
            parts = _parts(frame.name)
            whole[parts] = (v, f)
            for start in range(len(parts)):
                endings.setdefault(parts[start:], []).append((v, f))
    places: dict[str, tuple[int, int]] = {}
    unknown = []
    for name in found:
        parts = _parts(name)
        places_here = endings.get(parts, [])
        if not places_here:
            ends = (whole.get(parts[start:]) for start in range(1, len(parts)))
            places_here = [place for place in ends if place is not None][:1]
        if len(places_here) > 1:
            first, second = (videos[v].frames[f].name for v, f in places_here[:2])
            raise UserError(
                f"{path}: {name} may be {first} or {second}: predict the folder that holds the "
                "folders of all videos"
            )
        if places_here:
            places[name] = places_here[0]
        else:
            unknown.append(name)
    if not places:
        example = f" ({unknown[0]})" if unknown else ""
        raise UserError(
            f"{path}: none of its {len(unknown)} images{example} is an annotated frame, such as "
            f"{videos[0].frames[0].name}: give the poses of these videos"
        )
    if unknown:
        line = "%s: %d images that are not annotated frames are left out (the first: %s)"
        logging.getLogger(__name__).warning(line, path, len(unknown), unknown[0])
    if len(set(places.values())) < len(places):
        raise UserError(f"{path}: two of its images are the same annotated frame: remove one")
    return places


def _parts(name: str) -> _FrameName:
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    return tuple(part for part in path.with_suffix("").parts if part not in ("/", "."))
