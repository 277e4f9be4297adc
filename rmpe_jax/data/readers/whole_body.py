"""Readers of COCO-WholeBody (Jin et al., ECCV 2020) and Halpe-FullBody, of COCO's form."""

import os
import pathlib
from typing import Any

import numpy as np

from rmpe_jax.data.readers.annotations import field, numbers
from rmpe_jax.data.readers.coco import coco_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.files import read_json
from rmpe_jax.skeletons import COCO_WHOLEBODY, HALPE136, Skeleton

# Fields of COCO-WholeBody's annotations in the order of its skeleton, and their numbers of joints.
_FIELDS = {
    "keypoints": 17,
    "foot_kpts": 6,
    "face_kpts": 68,
    "lefthand_kpts": 21,
    "righthand_kpts": 21,
}
# Halpe's pictures: HICO-DET's for training, COCO's for validation.
_HALPE_IMAGES = {"train": "hico_20160224_det/images/train2015", "val": "val2017"}


def read_coco_wholebody(folder: str | os.PathLike, split: str) -> PoseDataset:
    """One split of COCO with whole bodies, "train" or "val" (or "val2017").

    Reads `annotations/coco_wholebody_SPLIT_v1.0.json` with the pictures in `SPLIT2017/`.

    Raises:
      UserError: the annotation file cannot be used.
    """
    split = split.removesuffix("2017")
    path = pathlib.Path(folder) / "annotations" / f"coco_wholebody_{split}_v1.0.json"
    images = pathlib.Path(folder) / f"{split}2017"
    document = whole_body_truth(path, COCO_WHOLEBODY)
    return coco_dataset(document, path, images, f"coco_wholebody/{split}", COCO_WHOLEBODY)


def read_halpe(folder: str | os.PathLike, split: str, skeleton: Skeleton = HALPE136) -> PoseDataset:
    """One split of Halpe-FullBody, "train" or "val", all 136 joints or the first 26.

    Reads `annotations/halpe_SPLIT_v1.json`, with the pictures of HICO-DET in
    `hico_20160224_det/images/train2015/` for training, those of COCO in `val2017/` for validation,
    and those in `SPLIT/` otherwise.

    Raises:
      UserError: the annotation file cannot be used.
    """
    path = pathlib.Path(folder) / "annotations" / f"halpe_{split}_v1.json"
    images = pathlib.Path(folder) / _HALPE_IMAGES.get(split, split)
    document = whole_body_truth(path, skeleton)
    return coco_dataset(document, path, images, f"{skeleton.name}/{split}", skeleton)


def whole_body_truth(path: str | os.PathLike, skeleton: Skeleton) -> dict[str, Any]:
    """An annotation file with the joints of `skeleton` in the field "keypoints" of everybody.

    COCO-WholeBody's parts, fields of their own, are joined; of Halpe's 136 joints the first are
    taken. Labels there may be fractions, how sure an annotator's tool was: all above 0 become
    COCO's 1 or 2. `num_keypoints` is that of these joints.

    Raises:
      UserError: the file is missing or not of this form.
    """
    document = read_json(path, "annotation file")
    entries = field(document, "annotations", str(path), list)
    joined = [
        _joined(entry, skeleton, f"{path}: annotation number {place}")
        for place, entry in enumerate(entries)
        if not isinstance(entry, dict) or entry.get("category_id", 1) == 1  # people
    ]
    return {**document, "annotations": joined}


def _joined(entry: Any, skeleton: Skeleton, where: str) -> dict[str, Any]:
    if skeleton.name == COCO_WHOLEBODY.name:
        parts = [numbers(entry, name, 3 * count, where) for name, count in _FIELDS.items()]
        joints = np.concatenate(parts).reshape(-1, 3)
    else:
        given = len(field(entry, "keypoints", where, list))
        count = HALPE136.num_keypoints if given == 3 * HALPE136.num_keypoints else None
        joints = numbers(entry, "keypoints", 3 * (count or skeleton.num_keypoints), where)
        joints = joints.reshape(-1, 3)[: skeleton.num_keypoints]
    label = np.where(joints[:, 2:] > 0, np.clip(np.rint(joints[:, 2:]), 1, 2), 0)
    joints = np.where(label > 0, np.concatenate([joints[:, :2], label], 1), 0)
    keypoints = joints.astype(float).ravel().tolist()
    return {**entry, "keypoints": keypoints, "num_keypoints": int((label > 0).sum())}
