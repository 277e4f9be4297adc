"""Ground truth and predictions for `mpii_map`, from datasets, results and MPII's own file."""

import logging
import os
from collections.abc import Collection
from typing import Any

import numpy as np
import scipy.io
from jaxtyping import Float

from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import MPII

HEAD_SIZE_FRACTION = 0.6  # of the head rectangle's diagonal: MPII's head size


def mpii_ground_truth(dataset: PoseDataset) -> list[dict]:
    """The people of a dataset with MPII's joints, for `mpii_map`.

    People without a head size (MPII's JSON has none if head or neck is not annotated) get the
    height of their box times the median ratio of head size and height in the dataset. Their number
    is logged.

    Raises:
      UserError: the dataset has other joints, or no head sizes at all.
    """
    if dataset.skeleton != MPII:
        raise UserError(f"{dataset.name} has {dataset.skeleton.name} joints: mAP is MPII's metric")
    heights = np.concatenate([_heights(record) for record in dataset.images])
    sizes = np.concatenate([record.head_sizes for record in dataset.images])
    known = sizes > 0
    if not known.any():
        raise UserError(f"{dataset.name} has no head sizes: mAP cannot be computed")
    ratio = float(np.median(sizes[known] / heights[known]))
    if not known.all():
        logging.getLogger(__name__).warning(
            "%s: %d people have no head size: %.2f of the height of their box is used",
            dataset.name,
            np.sum(~known),
            ratio,
        )
    return [_entry(record, ratio) for record in dataset.images]


def _heights(record: ImageRecord) -> Float[np.ndarray, " n"]:
    return record.bboxes[:, 3] - record.bboxes[:, 1]


def _entry(record: ImageRecord, ratio: float) -> dict:
    sizes = np.where(record.head_sizes > 0, record.head_sizes, ratio * _heights(record))
    rows = zip(record.keypoints, record.visibility > 0, sizes, strict=True)
    people = [{"joints": j, "annotated": a, "head_size": s} for j, a, s in rows]
    return {"image": record.image_id, "people": people}


def mpii_predictions(results: list[dict]) -> list[dict]:
    """Results in COCO's format with MPII's joints, as predictions for `mpii_map`.

    Each record is one pose, so the results must be those after NMS.
    """
    by_image: dict[Any, list[dict]] = {}
    for result in results:
        pose = np.reshape(result["keypoints"], (MPII.num_keypoints, 3))
        person = {"joints": pose[:, :2], "scores": pose[:, 2]}
        by_image.setdefault(result["image_id"], []).append(person)
    return [{"image": image, "people": people} for image, people in by_image.items()]


def read_mpii_mat(path: str | os.PathLike, images: Collection[str] | None = None) -> list[dict]:
    """Ground truth for `mpii_map` from MPII's release, `mpii_human_pose_v1_u12_1.mat`.

    It reads these fields of the file (MATLAB 5): `RELEASE.annolist`, and for each image
    `image.name` and `annorect`, an array of people (or empty); for each person the head rectangle
    `x1`, `y1`, `x2`, `y2`, and `annopoints.point`, an array of `x`, `y` and `id` (0 to 15).
    Coordinates are pixels of the released images. The head size is 0.6 times the diagonal of the
    rectangle. People without joints (all people of the test set) and images without people are
    skipped. Groups (`groups_v12.mat` of the toolkit) are not read: each image is one group.

    Args:
      path: the file.
      images: file names of the images to read; by default all.

    Raises:
      UserError: the file is missing, is not a MATLAB file, or has another structure.
    """
    if not os.path.exists(path):
        raise UserError(f"no annotation file {path}: check the path")
    try:
        content = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)
    except Exception as error:  # SciPy raises many kinds
        raise UserError(f"{path} is not a MATLAB 5 file: download it again") from error
    try:
        annotations = np.atleast_1d(content["RELEASE"].annolist)
        chosen = [a for a in annotations if images is None or a.image.name in images]
        entries = [{"image": str(a.image.name), "people": _people(a)} for a in chosen]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        line = f"{path} has another layout than MPII's release ({error})"
        raise UserError(f"{line}: use the annotation file of the release") from error
    return [entry for entry in entries if entry["people"]]


def _people(annotation: Any) -> list[dict]:
    people = [_person(r) for r in np.atleast_1d(getattr(annotation, "annorect", []))]
    return [person for person in people if person["annotated"].any()]


def _person(rectangle: Any) -> dict:
    joints = np.full((MPII.num_keypoints, 2), np.nan)
    annopoints = getattr(rectangle, "annopoints", None)
    for point in np.atleast_1d(getattr(annopoints, "point", [])):
        joints[int(point.id)] = point.x, point.y
    annotated = ~np.isnan(joints).any(-1)
    head_size = _head_size(rectangle) if annotated.any() else np.nan
    return {"joints": joints, "annotated": annotated, "head_size": head_size}


def _head_size(rectangle: Any) -> float:
    width, height = rectangle.x2 - rectangle.x1, rectangle.y2 - rectangle.y1
    return HEAD_SIZE_FRACTION * float(np.hypot(width, height))
