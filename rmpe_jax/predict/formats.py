"""Poses in the forms that other programs read: COCO's results, AlphaPose's and OpenPose's JSON.

Each form is a pure function of one picture's poses, and a writer that takes a stream of pictures
and holds one at a time. Coordinates are image pixels, rounded to a thousandth, scores to 1e-6. No
form knows NaN: a joint that is not finite is written as (0, 0) with score 0, the way all of them
spell a joint that is not there. docs/formats.md shows an example of each.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rmpe_jax import skeletons
from rmpe_jax.evaluation.results import PERSON, ImageId, coco_results, picture_stem
from rmpe_jax.files import write_json, write_json_list
from rmpe_jax.inference.poses import Poses
from rmpe_jax.skeletons import Skeleton

OPENPOSE_VERSION = 1.3  # of OpenPose 1.7's JSON

# OpenPose's "COCO" model of 18 joints, in its order.
_RIGHT_LEFT = ("right", "left")
OPENPOSE_JOINTS = (
    *("nose", "neck"),
    *(f"{side}_{part}" for side in _RIGHT_LEFT for part in ("shoulder", "elbow", "wrist")),
    *(f"{side}_{part}" for side in _RIGHT_LEFT for part in ("hip", "knee", "ankle")),
    *(f"{side}_{part}" for part in ("eye", "ear") for side in _RIGHT_LEFT),
)
_NECK = OPENPOSE_JOINTS.index("neck")
_SHOULDERS = [OPENPOSE_JOINTS.index(f"{side}_shoulder") for side in _RIGHT_LEFT]


class PicturePoses(NamedTuple):
    """The people found in one picture, and which picture that is.

    Attributes:
      name: of the picture's file, without folders or relative to the folder that was asked for.
      size: (height, width) in pixels.
      poses: in the pixels of that picture.
    """

    name: str
    size: tuple[int, int]
    poses: Poses


def joint_rows(poses: Poses) -> Float[np.ndarray, "n k 3"]:
    """(x, y, score) of every joint as files hold it: rounded, zeros where it is not finite."""
    rows = [np.asarray(poses.keypoints, np.float64), np.asarray(poses.keypoint_scores)[..., None]]
    joints = np.concatenate([rows[0].round(3), rows[1].astype(np.float64).round(6)], -1)
    return np.where(np.isfinite(joints).all(-1, keepdims=True), joints, 0)


def image_id_of(name: str) -> ImageId:
    """A picture's id: an integer for names such as COCO's `000000000139.jpg`, else the name."""
    stem = picture_stem(name)
    return int(stem) if stem.isascii() and stem.isdecimal() else name


def coco_records(picture: PicturePoses, skeleton: Skeleton) -> list[dict]:
    """Records of COCO's result form, one a person.

    The joints are COCO's 17 where the skeleton has them all, so that COCO's evaluation reads the
    file; else the skeleton's own, in its order.
    """
    poses, joints = picture.poses, joint_rows(picture.poses)
    chosen = skeletons.COCO.indices_in(skeleton)
    if (chosen >= 0).all():
        joints = joints[:, chosen]
    return coco_results(
        [image_id_of(picture.name)] * len(joints),
        joints[..., :2],
        joints[..., 2],
        poses.scores,
        poses.bboxes,
        poses.bbox_scores,
    )


def alphapose_records(picture: PicturePoses) -> list[dict]:
    """Records of AlphaPose's `alphapose-results.json`, one a person, with all joints.

    The score is AlphaPose's: the mean of the joints' scores, plus the box's, plus 1.25 times the
    best joint's. `idx` is what AlphaPose writes without tracking.
    """
    poses, joints = picture.poses, joint_rows(picture.poses)
    names, sure = [picture.name] * len(joints), joints[..., 2]
    scores = sure.mean(-1) + poses.bbox_scores + 1.25 * sure.max(-1)
    records = coco_results(names, joints[..., :2], sure, scores, poses.bboxes)
    return [
        {key: value for key, value in record.items() if key != "bbox"}
        | {"box": record["bbox"], "idx": [0.0]}
        for record in records
    ]


def coco_from_alphapose(records: Iterable[dict]) -> list[dict]:
    """AlphaPose's records as COCO's results: same joints, same score, the box where it has one.

    AlphaPose's own score is not that of our COCO results, and it does not keep the detector's.
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


def openpose_document(picture: PicturePoses, skeleton: Skeleton) -> dict:
    """OpenPose's JSON of one picture, with the 18 joints of its COCO model.

    Its neck is the mean of the shoulders, score included. Joints that the skeleton lacks are zeros.
    """
    found = joint_rows(picture.poses)
    joints = np.zeros((len(found), len(OPENPOSE_JOINTS), 3))
    for j, joint in enumerate(OPENPOSE_JOINTS):
        if joint in skeleton.joints:
            joints[:, j] = found[:, skeleton.index(joint)]
    shoulders = joints[:, _SHOULDERS]
    there = (shoulders[..., 2] > 0).all(-1)
    joints[there, _NECK] = shoulders[there].mean(1)
    return {"version": OPENPOSE_VERSION, "people": [_openpose_person(pose) for pose in joints]}


def _openpose_person(joints: Float[np.ndarray, "18 3"]) -> dict:
    parts = ("face", "hand_left", "hand_right")
    person = {"person_id": [-1], "pose_keypoints_2d": joints.reshape(-1).round(6).tolist()}
    person |= {f"{part}_keypoints_2d": [] for part in parts}
    return person | {f"{part}_keypoints_3d": [] for part in ("pose", *parts)}


def write_coco(
    path: str | os.PathLike, pictures: Iterable[PicturePoses], skeleton: Skeleton
) -> None:
    """Write `coco_records` of all pictures as one file.

    Raises:
      UserError: the file cannot be written, or a person's score or box is not finite.
    """
    write_json_list(path, (record for p in pictures for record in coco_records(p, skeleton)))


def write_alphapose(
    path: str | os.PathLike, pictures: Iterable[PicturePoses], skeleton: Skeleton
) -> None:
    """Write `alphapose_records` of all pictures as one file, in the skeleton's joint order.

    Raises:
      UserError: as in `write_coco`.
    """
    del skeleton  # AlphaPose's file has all joints of whatever network, and does not say which
    write_json_list(path, (record for p in pictures for record in alphapose_records(p)))


def write_openpose(
    folder: str | os.PathLike, pictures: Iterable[PicturePoses], skeleton: Skeleton
) -> None:
    """Write a file `STEM_keypoints.json` for each picture, as OpenPose's `--write_json` does.

    Folders in a name become part of the stem: `a/b.jpg` is `a_b_keypoints.json`. Where a stem comes
    twice, as of `b.jpg` and `b.png`, the second keeps its extension: `b.png_keypoints.json`. Where
    that comes twice too, as of `a/b.png` and `a_b.png`, the next gets an underscore more. Stems too
    long for a file's name are cut, and end with a hash of what they were.

    Raises:
      UserError: as in `write_coco`.
    """
    used = set()
    for picture in pictures:
        flat = picture.name.replace("\\", "/").strip("/").replace("/", "_")
        stem = flat if picture_stem(flat) in used else picture_stem(flat)
        stem = _shortened(stem)
        while stem in used:
            stem += "_"
        used.add(stem)
        document = openpose_document(picture, skeleton)
        write_json(pathlib.Path(folder) / f"{stem}_keypoints.json", document)


def _shortened(stem: str, length: int = 200) -> str:
    """`stem`, in at most so many bytes: file systems take 255, and there is more to come."""
    name = os.fsencode(stem)
    if len(name) <= length:
        return stem
    return f"{name[: length - 9].decode(errors='ignore')}-{hashlib.sha1(name).hexdigest()[:8]}"
