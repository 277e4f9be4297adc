"""People and poses in the form of `mpii_map`, from data sets, results and MPII's own file."""

import logging
import os
from collections.abc import Collection
from typing import Any

import numpy as np
import scipy.io

from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import MPII

HEAD_SIZE_SHARE = 0.6  # of the head rectangle's diagonal: MPII's head size


def mpii_ground_truth(dataset: PoseDataset) -> list[dict]:
    """The people of a data set with MPII's joints, for `mpii_map`.

    People without head size (MPII's json has none where head or neck are not annotated) get the
    median of the data set's share of the box's height; the log says how many.

    Raises:
      UserError: the data set has other joints, or no head sizes at all.
    """
    if dataset.skeleton != MPII:
        raise UserError(f"{dataset.name} has {dataset.skeleton.name} joints: mAP is MPII's metric")
    heights = np.concatenate([p.bboxes[:, 3] - p.bboxes[:, 1] for p in dataset.images])
    sizes = np.concatenate([picture.head_sizes for picture in dataset.images])
    known = sizes > 0
    if not known.any():
        raise UserError(f"{dataset.name} has no head sizes: mAP cannot be computed")
    share = float(np.median(sizes[known] / heights[known]))
    if not known.all():
        logging.getLogger(__name__).warning(
            "%s: %d people have no head size: %.2f of the box's height stands in",
            dataset.name,
            np.sum(~known),
            share,
        )
    return [_entry(picture, share) for picture in dataset.images]


def _entry(picture: ImageRecord, share: float) -> dict:
    heights = picture.bboxes[:, 3] - picture.bboxes[:, 1]
    sizes = np.where(picture.head_sizes > 0, picture.head_sizes, share * heights)
    rows = zip(picture.keypoints, picture.visibility > 0, sizes, strict=True)
    people = [{"joints": j, "annotated": a, "head_size": s} for j, a, s in rows]
    return {"image": picture.image_id, "people": people}


def mpii_predictions(results: list[dict]) -> list[dict]:
    """Results of COCO's form with MPII's joints as predictions for `mpii_map`.

    Every record is one pose: what pose NMS removes must be gone before.
    """
    by_image: dict[Any, list[dict]] = {}
    for result in results:
        pose = np.reshape(result["keypoints"], (MPII.num_keypoints, 3))
        person = {"joints": pose[:, :2], "scores": pose[:, 2]}
        by_image.setdefault(result["image_id"], []).append(person)
    return [{"image": image, "people": people} for image, people in by_image.items()]


def read_mpii_mat(path: str | os.PathLike, images: Collection[str] | None = None) -> list[dict]:
    """Ground truth for `mpii_map` from MPII's release, `mpii_human_pose_v1_u12_1.mat`.

    What is read of it (MATLAB 5): `RELEASE.annolist`, for each picture `image.name` and
    `annorect`, an array of people (or nothing); of a person the head rectangle `x1`, `y1`, `x2`,
    `y2` and `annopoints.point`, an array of `x`, `y` and `id` (0 to 15). Coordinates are as
    written, pixels of the pictures as released. The head size is 0.6 times the rectangle's
    diagonal. People without joints (all of the test set's) and pictures without people are left
    out. Groups (the toolkit's `groups_v12.mat`) are not read: a picture is one group.

    Args:
      path: the file.
      images: file names of the pictures wanted; all of them if not given.

    Raises:
      UserError: the file is missing, not MATLAB's, or not of that form.
    """
    if not os.path.exists(path):
        raise UserError(f"no annotation file {path}: check the path")
    try:
        content = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)
    except Exception as error:  # SciPy raises many kinds
        raise UserError(f"{path} is not a MATLAB 5 file: fetch it again") from error
    try:
        pictures = np.atleast_1d(content["RELEASE"].annolist)
        wanted = [p for p in pictures if images is None or p.image.name in images]
        entries = [{"image": str(p.image.name), "people": _people(p)} for p in wanted]
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        line = f"{path} has another layout than MPII's release ({error})"
        raise UserError(f"{line}: use its annotation file") from error
    return [entry for entry in entries if entry["people"]]


def _people(picture: Any) -> list[dict]:
    people = [_person(r) for r in np.atleast_1d(getattr(picture, "annorect", []))]
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
    return HEAD_SIZE_SHARE * float(np.hypot(width, height))
