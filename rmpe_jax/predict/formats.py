"""Poses in the file formats of other programs: COCO results, AlphaPose's and OpenPose's JSON.

Each format has a pure function of the poses of one image, and a writer that takes a stream of
images and holds one at a time. Coordinates are image pixels, rounded to a thousandth; scores are
rounded to 1e-6. No format allows NaN: a joint that is not finite is written as (0, 0) with score 0,
which means a missing joint in all of them. docs/formats.md shows an example of each format.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax import skeletons
from rmpe_jax.evaluation.results import PERSON, ImageId, coco_results, image_stem
from rmpe_jax.files import write_json, write_json_list
from rmpe_jax.inference.poses import Poses
from rmpe_jax.skeletons import Skeleton

OPENPOSE_VERSION = 1.3  # of the JSON of OpenPose 1.7

# The 18 joints of OpenPose's "COCO" model, in its order.
_RIGHT_LEFT = ("right", "left")
OPENPOSE_JOINTS = (
    *("nose", "neck"),
    *(f"{side}_{part}" for side in _RIGHT_LEFT for part in ("shoulder", "elbow", "wrist")),
    *(f"{side}_{part}" for side in _RIGHT_LEFT for part in ("hip", "knee", "ankle")),
    *(f"{side}_{part}" for part in ("eye", "ear") for side in _RIGHT_LEFT),
)
_NECK = OPENPOSE_JOINTS.index("neck")
_SHOULDERS = [OPENPOSE_JOINTS.index(f"{side}_shoulder") for side in _RIGHT_LEFT]


class ImagePoses(NamedTuple):
    """The people found in one image, and the image's name and size.

    Attributes:
      name: of the image file, without folders, or relative to the folder given as input.
      size: (height, width) in pixels.
      poses: in pixels of the image.
      track_ids: of each person, from 1 and unique in a video, -1 for people without a track; None
        if the run does not track.
      time: of a webcam, seconds since its first frame in the run that took it; else None.
    """

    name: str
    size: tuple[int, int]
    poses: Poses
    track_ids: Int[np.ndarray, " n"] | None = None
    time: float | None = None


def joint_rows(poses: Poses) -> Float[np.ndarray, "n k 3"]:
    """(x, y, score) of every joint as in files: rounded, zeros where it is not finite."""
    rows = [np.asarray(poses.keypoints, np.float64), np.asarray(poses.keypoint_scores)[..., None]]
    joints = np.concatenate([rows[0].round(3), rows[1].astype(np.float64).round(6)], -1)
    return np.where(np.isfinite(joints).all(-1, keepdims=True), joints, 0)


def as_written(poses: Poses) -> Poses:
    """The poses as they are read from a journal: rounded, zeros where a joint is not finite."""
    joints = joint_rows(poses)
    decimals = {"scores": 6, "bboxes": 3, "bbox_scores": 6}
    return Poses(
        joints[..., :2].astype(np.float32),
        joints[..., 2].astype(np.float32),
        **{
            name: np.asarray(getattr(poses, name), np.float64).round(places).astype(np.float32)
            for name, places in decimals.items()
        },
    )


def image_id_of(name: str) -> ImageId:
    """An image's id: an integer for names such as COCO's `000000000139.jpg`, else the name."""
    stem = image_stem(name)
    return int(stem) if stem.isascii() and stem.isdecimal() else name


def coco_records(result: ImagePoses, skeleton: Skeleton) -> list[dict]:
    """Records of COCO's result format, one per person.

    If the skeleton has all of COCO's 17 joints, the records have these, so that COCO's evaluation
    can read the file; otherwise they have the skeleton's joints in its order. In a tracked run each
    has a `track_id`, None if the person has no track.

    Raises:
      UserError: the poses do not have the joints of the skeleton.
    """
    _check_joints(result, skeleton)
    poses, joints = result.poses, joint_rows(result.poses)
    chosen = skeletons.COCO.indices_in(skeleton)
    if (chosen >= 0).all():
        joints = joints[:, chosen]
    records = coco_results(
        [image_id_of(result.name)] * len(joints),
        joints[..., :2],
        joints[..., 2],
        poses.scores,
        poses.bboxes,
        poses.bbox_scores,
    )
    ids = track_ids_or_none(result)
    if ids is None:
        return records
    return [{**record, "track_id": i} for record, i in zip(records, ids, strict=True)]


def track_ids_or_none(result: ImagePoses) -> list[int | None] | None:
    """The track id of each person, None for people without a track; None if the run has none."""
    if result.track_ids is None:
        return None
    return [i if i > 0 else None for i in result.track_ids.tolist()]


def alphapose_records(result: ImagePoses) -> list[dict]:
    """Records of AlphaPose's `alphapose-results.json`, one per person, with all joints.

    The score is AlphaPose's: the mean of the joint scores, plus the box score, plus 1.25 times the
    highest joint score. `idx` is the track id, -1 for people without a track; in runs that do not
    track it is what AlphaPose writes without tracking.
    """
    poses, joints = result.poses, joint_rows(result.poses)
    names, joint_scores = [result.name] * len(joints), joints[..., 2]
    scores = joint_scores.mean(-1) + poses.bbox_scores + 1.25 * joint_scores.max(-1)
    records = coco_results(names, joints[..., :2], joint_scores, scores, poses.bboxes)
    ids = [[0.0]] * len(records) if result.track_ids is None else result.track_ids.tolist()
    return [
        {key: value for key, value in record.items() if key != "bbox"}
        | {"box": record["bbox"], "idx": i}
        for record, i in zip(records, ids, strict=True)
    ]


def coco_from_alphapose(records: Iterable[dict]) -> list[dict]:
    """AlphaPose's records as COCO results: same joints, same score, and the box if there is one.

    The score remains AlphaPose's, which differs from that of our COCO results. The detector's
    score is not part of AlphaPose's records.
    """
    return [
        {
            "image_id": image_id_of(str(record["image_id"])),
            "category_id": record.get("category_id", PERSON),
            "keypoints": record["keypoints"],
            "score": record["score"],
        }
        | ({"bbox": record["box"]} if "box" in record else {})
        for record in records
    ]


def openpose_document(result: ImagePoses, skeleton: Skeleton) -> dict:
    """OpenPose's JSON of one image, with the 18 joints of its COCO model.

    The neck is the mean of the shoulders, score included. Joints that the skeleton lacks are zeros.
    `person_id` is the track id, -1 for people without one.

    Raises:
      UserError: the poses do not have the joints of the skeleton.
    """
    _check_joints(result, skeleton)
    ours = joint_rows(result.poses)
    joints = np.zeros((len(ours), len(OPENPOSE_JOINTS), 3))
    for j, joint in enumerate(OPENPOSE_JOINTS):
        if joint in skeleton.joints:
            joints[:, j] = ours[:, skeleton.index(joint)]
    shoulders = joints[:, _SHOULDERS]
    has_both = (shoulders[..., 2] > 0).all(-1)
    joints[has_both, _NECK] = shoulders[has_both].mean(1)
    ids = [-1] * len(joints) if result.track_ids is None else result.track_ids.tolist()
    people = [_openpose_person(pose, i) for pose, i in zip(joints, ids, strict=True)]
    return {"version": OPENPOSE_VERSION, "people": people}


def _check_joints(result: ImagePoses, skeleton: Skeleton) -> None:
    skeleton.check_num_keypoints(result.poses.keypoints.shape[1], f"{result.name}: poses")


def _openpose_person(joints: Float[np.ndarray, "18 3"], person_id: int) -> dict:
    parts = ("face", "hand_left", "hand_right")
    person = {"person_id": [person_id], "pose_keypoints_2d": joints.reshape(-1).round(6).tolist()}
    person |= {f"{part}_keypoints_2d": [] for part in parts}
    return person | {f"{part}_keypoints_3d": [] for part in ("pose", *parts)}


def write_coco(path: str | os.PathLike, results: Iterable[ImagePoses], skeleton: Skeleton) -> None:
    """Write `coco_records` of all images as one file.

    Raises:
      UserError: the file cannot be written, or a person's score or box is not finite.
    """
    write_json_list(path, (record for r in results for record in coco_records(r, skeleton)))


def write_alphapose(
    path: str | os.PathLike, results: Iterable[ImagePoses], skeleton: Skeleton
) -> None:
    """Write `alphapose_records` of all images as one file, in the skeleton's joint order.

    Raises:
      UserError: as in `write_coco`.
    """
    del skeleton  # the file has all joints of the network, without their names
    write_json_list(path, (record for r in results for record in alphapose_records(r)))


def write_openpose(
    folder: str | os.PathLike, results: Iterable[ImagePoses], skeleton: Skeleton
) -> None:
    """Write a file `STEM_keypoints.json` for each image, as OpenPose's `--write_json` does.

    Folders in a name become part of the stem: `a/b.jpg` gives `a_b_keypoints.json`. If two images
    have the same stem, such as `b.jpg` and `b.png`, the second keeps its extension:
    `b.png_keypoints.json`. If that name is taken too, underscores are added. Stems that are too
    long for a file name are cut and end with a hash of the original.

    Raises:
      UserError: as in `write_coco`.
    """
    used = set()
    for result in results:
        flat = result.name.replace("\\", "/").strip("/").replace("/", "_")
        stem = flat if image_stem(flat) in used else image_stem(flat)
        stem = _shortened(stem)
        while stem in used:
            stem += "_"
        used.add(stem)
        document = openpose_document(result, skeleton)
        write_json(pathlib.Path(folder) / f"{stem}_keypoints.json", document)


def _shortened(stem: str, length: int = 200) -> str:
    """`stem` in at most `length` bytes: file systems allow 255, and a suffix is added."""
    name = os.fsencode(stem)
    if len(name) <= length:
        return stem
    return f"{name[: length - 9].decode(errors='ignore')}-{hashlib.sha1(name).hexdigest()[:8]}"
