"""Labeled people as files in COCO's formats: annotations, and a detector's boxes."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.labels import LabeledPeople, MergeRule
from rmpe_jax.data.readers.categories import PERSON
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton


def coco_image_ids(dataset: PoseDataset) -> list[int]:
    """The dataset's ids of the images if they are numbers, else 1, 2, …, as COCO asks for."""
    ids = [image_id for image_id in dataset.image_ids if isinstance(image_id, int)]
    return ids if len(ids) == len(dataset.images) else list(range(1, len(dataset.images) + 1))


def coco_annotations(
    dataset: PoseDataset,
    image_ids: Sequence[int],
    labeled: Sequence[LabeledPeople],
    folder: pathlib.Path,
    rule: MergeRule,
) -> dict[str, Any]:
    """The content of an annotation file.

    Beside COCO's fields an annotation has `keypoint_scores` and `score`, see `LabeledPeople`. Its
    `id` is that in `labeled`; if there are ids below 1, which COCO's tools do not take, all are
    larger by the same number.

    Args:
      dataset: the images, with their sizes.
      image_ids: of the images, see `coco_image_ids`.
      labeled: the people of each image.
      folder: that file names are relative to.
      rule: how the labels were merged, to be recorded.
    """
    shift = 1 - min((int(people.person_ids.min(initial=1)) for people in labeled), default=1)
    images, annotations = [], []
    for image_id, record, people in zip(image_ids, dataset.images, labeled, strict=True):
        width, height = record.declared_size or (0, 0)
        name = os.path.relpath(record.path, folder.resolve())
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        annotations += [
            _annotation(people, person, image_id, shift) for person in range(len(people.bboxes))
        ]
    info = {"description": f"{dataset.name}, labeled by rmpe label", "rule": rule.settings()}
    categories = [_category(rule.skeleton)]
    return {
        "info": info,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def box_record(image_id: int, bbox: Float[np.ndarray, " 4"], score: float) -> dict[str, Any]:
    """A box (xyxy image pixels) as a record of COCO's result format."""
    return {
        "image_id": image_id,
        "category_id": PERSON,
        "bbox": _xywh(bbox),
        "score": round(float(score), 5),
    }


def _category(skeleton: Skeleton) -> dict[str, Any]:
    return {
        "id": PERSON,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(skeleton.joints),
        "skeleton": (skeleton.limb_indices + 1).tolist(),
    }


def _annotation(people: LabeledPeople, person: int, image_id: int, shift: int) -> dict[str, Any]:
    visibility = people.visibility[person]
    points = people.keypoints[person].astype(np.float64).round(3).tolist()
    joints = [[*point, int(v)] for point, v in zip(points, visibility, strict=True)]
    return {
        "id": int(people.person_ids[person]) + shift,
        "image_id": image_id,
        "category_id": PERSON,
        "iscrowd": int(people.iscrowd[person]),
        "num_keypoints": int((visibility > 0).sum()),
        "keypoints": [value for joint in joints for value in joint],
        "keypoint_scores": people.keypoint_scores[person].astype(np.float64).round(4).tolist(),
        "score": round(float(people.scores[person]), 4),
        "bbox": _xywh(people.bboxes[person]),
        "area": float(people.area[person]),
    }


def _xywh(bbox: Float[np.ndarray, " 4"]) -> list[float]:
    return geometry.xywh_from_xyxy(bbox.astype(np.float64)).round(3).tolist()
