"""Readers of COCO-WholeBody (Jin et al., ECCV 2020) and Halpe-FullBody, in COCO's format.

Visibilities in these files may be fractions (the confidence of an annotation tool); values above 0
are rounded to COCO's 1 or 2. `num_keypoints` is not read: COCO-WholeBody counts only the body's
joints, and Halpe has 3 everywhere. Names of joints in `categories` are not read either, because
they are not those of all joints.
"""

import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.readers.annotations import field, numbers
from rmpe_jax.data.readers.coco import coco_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.files import read_json
from rmpe_jax.skeletons import COCO_WHOLEBODY, HALPE136, Skeleton

_Joints = Float[np.ndarray, "k 3"]  # x, y, visibility

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
    return _read(path, images, f"coco_wholebody/{split}", COCO_WHOLEBODY, _joints_in_fields)


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
    first = functools.partial(_first_joints, skeleton=skeleton)
    return _read(path, images, f"{skeleton.name}/{split}", skeleton, first)


def _read(
    path: pathlib.Path,
    images: pathlib.Path,
    name: str,
    skeleton: Skeleton,
    read_joints: Callable[[dict, str], _Joints],
) -> PoseDataset:
    return coco_dataset(
        read_json(path, "annotation file"),
        path,
        images,
        name,
        skeleton,
        read_joints=lambda entry, where: _with_whole_visibility(read_joints(entry, where)),
        check_num_keypoints=False,
    )


def _joints_in_fields(entry: dict, where: str) -> _Joints:
    parts = [numbers(entry, name, (count, 3), where) for name, count in _FIELDS.items()]
    return np.concatenate(parts)


def _first_joints(entry: dict, where: str, skeleton: Skeleton) -> _Joints:
    """The first joints in "keypoints" of all 136, or of exactly those of the skeleton."""
    has_all = len(field(entry, "keypoints", where, list)) == 3 * HALPE136.num_keypoints
    count = HALPE136.num_keypoints if has_all else skeleton.num_keypoints
    return numbers(entry, "keypoints", (count, 3), where)[: skeleton.num_keypoints]


def _with_whole_visibility(joints: _Joints) -> _Joints:
    visibility = np.where(joints[:, 2:] > 0, np.clip(np.rint(joints[:, 2:]), 1, 2), 0)
    return np.concatenate([joints[:, :2], visibility], 1)
