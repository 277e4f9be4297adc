"""Readers of COCO-WholeBody (Jin et al., ECCV 2020) and Halpe-FullBody, in COCO's format."""

import os
import pathlib
from typing import Any

import numpy as np

from rmpe_jax.data.readers.annotations import field, numbers
from rmpe_jax.data.readers.coco import coco_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.files import read_json
from rmpe_jax.skeletons import COCO_WHOLEBODY, HALPE136, Skeleton

# COCO-WholeBody stores joints in several fields: name -> number of joints, in skeleton order.
_FIELDS = {
    "keypoints": 17,
    "foot_kpts": 6,
    "face_kpts": 68,
    "lefthand_kpts": 21,
    "righthand_kpts": 21,
}
# Halpe uses the images of HICO-DET for training and of COCO for validation.
_HALPE_IMAGES = {"train": "hico_20160224_det/images/train2015", "val": "val2017"}


def read_coco_wholebody(folder: str | os.PathLike, split: str) -> PoseDataset:
    """One split of COCO-WholeBody, "train" or "val" (or "train2017", "val2017").

    Reads `annotations/coco_wholebody_SPLIT_v1.0.json` with the images in `SPLIT2017/`.

    Raises:
      UserError: the annotation file is unusable.
    """
    split = split.removesuffix("2017")
    path = pathlib.Path(folder) / "annotations" / f"coco_wholebody_{split}_v1.0.json"
    images = pathlib.Path(folder) / f"{split}2017"
    document = read_whole_body_annotations(path, COCO_WHOLEBODY)
    return coco_dataset(document, path, images, f"coco_wholebody/{split}", COCO_WHOLEBODY)


def read_halpe(folder: str | os.PathLike, split: str, skeleton: Skeleton = HALPE136) -> PoseDataset:
    """One split of Halpe-FullBody, "train" or "val", with all 136 joints or the first 26.

    Reads `annotations/halpe_SPLIT_v1.json`. Images: HICO-DET's in
    `hico_20160224_det/images/train2015/` for "train", COCO's in `val2017/` for "val", else those in
    `SPLIT/`.

    Raises:
      UserError: the annotation file is unusable.
    """
    path = pathlib.Path(folder) / "annotations" / f"halpe_{split}_v1.json"
    images = pathlib.Path(folder) / _HALPE_IMAGES.get(split, split)
    document = read_whole_body_annotations(path, skeleton)
    return coco_dataset(document, path, images, f"{skeleton.name}/{split}", skeleton)


def read_whole_body_annotations(path: str | os.PathLike, skeleton: Skeleton) -> dict[str, Any]:
    """Read an annotation file and convert it to COCO's format: all joints in "keypoints".

    The joint fields of COCO-WholeBody are concatenated. Of Halpe's 136 joints the first
    `skeleton.num_keypoints` are taken. Visibilities in these files may be fractions (the confidence
    of an annotation tool); values above 0 are rounded to COCO's 1 or 2. `num_keypoints` counts the
    labeled joints of the result.

    Raises:
      UserError: the file is missing or not in this format.
    """
    document = read_json(path, "annotation file")
    entries = field(document, "annotations", str(path), list)
    joined = [
        _join_fields(entry, skeleton, f"{path}: annotation number {place}")
        for place, entry in enumerate(entries)
        if not isinstance(entry, dict) or entry.get("category_id", 1) == 1  # people
    ]
    return {**document, "annotations": joined}


def _join_fields(entry: Any, skeleton: Skeleton, where: str) -> dict[str, Any]:
    if skeleton.name == COCO_WHOLEBODY.name:
        parts = [numbers(entry, name, 3 * count, where) for name, count in _FIELDS.items()]
        joints = np.concatenate(parts).reshape(-1, 3)
    else:
        length = len(field(entry, "keypoints", where, list))
        has_all = length == 3 * HALPE136.num_keypoints
        count = HALPE136.num_keypoints if has_all else skeleton.num_keypoints
        joints = numbers(entry, "keypoints", 3 * count, where)
        joints = joints.reshape(-1, 3)[: skeleton.num_keypoints]
    visibility = np.where(joints[:, 2:] > 0, np.clip(np.rint(joints[:, 2:]), 1, 2), 0)
    joints = np.where(visibility > 0, np.concatenate([joints[:, :2], visibility], 1), 0)
    keypoints = joints.astype(float).ravel().tolist()
    return {**entry, "keypoints": keypoints, "num_keypoints": int((visibility > 0).sum())}
