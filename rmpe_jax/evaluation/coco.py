"""COCO's average precision of poses and of boxes, computed by pycocotools.

The ground truth is what `data.readers` reads: pycocotools gets ids, numbers of keypoints and areas
from here, not from the file.
"""

import collections
import contextlib
import io
import logging
import os
import pathlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float
from pycocotools.coco import COCO as CocoApi
from pycocotools.cocoeval import COCOeval

from rmpe_jax.data.readers.categories import PERSON, category_of
from rmpe_jax.data.readers.coco import coco_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.bootstrap import RankedPoses
from rmpe_jax.evaluation.results import person_among
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import COCO, Skeleton, get_skeleton
from rmpe_jax.skeletons.skeleton import UNNAMED_PREFIX

# A file, its content, or a dataset that has been read.
Annotations = str | os.PathLike | dict | PoseDataset

# In the order of `COCOeval.stats` of pycocotools for keypoints.
METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")

Sigmas = Sequence[float] | Float[np.ndarray, " k"]

_NO_JOINTS = Skeleton("boxes", (), (), ())


def coco_ap(
    annotations: Annotations,
    results: list[dict],
    sigmas: Sigmas | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> dict[str, float]:
    """Average precision and recall of poses by object keypoint similarity (OKS).

    Args:
      annotations: COCO keypoint ground truth, a file or its content, or a dataset.
      results: records of COCO's result format, with `keypoints` (x, y, anything) * k and `score`.
        Those of other categories than person are left out and counted in the log.
      sigmas: (k,) OKS sigma of each joint in the order of the annotations; by default those of the
        dataset's skeleton, or COCO's 17.
      image_ids: images to evaluate on; by default all of the ground truth.

    Returns:
      `METRICS` as fractions; M and L are medium and large people. -1 if the ground truth has
      nobody of that size (pycocotools' convention).

    Raises:
      UserError: ground truth or results do not have this format, a result is not finite, or it is
        on an image that the ground truth does not have.
    """
    if sigmas is not None:
        skeleton = get_skeleton(f"{UNNAMED_PREFIX}{len(sigmas)}")
    else:
        skeleton = annotations.skeleton if isinstance(annotations, PoseDataset) else COCO
        sigmas = skeleton.oks_sigmas
    dataset = load_ground_truth(annotations, skeleton)
    metrics = pose_ap(coco_content(dataset), results, sigmas, image_ids)
    warn_of_nobody(dataset, metrics)
    return metrics


def box_ap(annotations: Annotations, detections: list[dict]) -> dict[str, float]:
    """Average precision of person boxes.

    Args:
      annotations: COCO ground truth with boxes, a file or its content, or a dataset.
      detections: records of COCO's result format, with `bbox` xywh and `score`. Those of other
        categories than person are left out and counted in the log.

    Returns:
      `AP`, over IoU .50 to .95, and `AP50`, as fractions; -1 if all people are crowds.

    Raises:
      UserError: as `coco_ap`.
    """
    dataset = load_ground_truth(annotations, _NO_JOINTS)
    content = coco_content(dataset)
    stats = _stats(content, _checked(detections, content, "bbox", 4), "bbox")
    metrics = {"AP": stats[0], "AP50": stats[1]}
    warn_of_nobody(dataset, metrics)
    return metrics


def load_ground_truth(annotations: Annotations, skeleton: Skeleton) -> PoseDataset:
    """Read COCO ground truth as `data.readers.coco` does; a dataset is returned as it is.

    Args:
      annotations: COCO ground truth, a file or its content, or a dataset.
      skeleton: its joints. If they have no names, as those of `get_skeleton("unnamed_14")`, they
        are in the order of the file.

    Raises:
      UserError: it does not have this format, or a dataset has another number of joints.
    """
    if isinstance(annotations, PoseDataset):
        given, needed = annotations.skeleton.num_keypoints, skeleton.num_keypoints
        if skeleton.joints and given != needed:
            line = f"{annotations.name} has {given} joints, not {needed}"
            raise UserError(f"{line}: give the sigmas of its joints")
        return annotations
    if isinstance(annotations, dict):
        document, path = annotations, pathlib.Path("the ground truth")
    else:
        document, path = read_json(annotations, "annotation file"), pathlib.Path(annotations)
    return coco_dataset(document, path, None, str(path), skeleton)


def coco_content(dataset: PoseDataset) -> dict:
    """The people of any dataset as COCO keypoint ground truth, in the dataset's joint set."""
    annotations = []
    for record in dataset.images:
        boxes = geometry.xywh_from_xyxy(record.bboxes)
        labeled = record.visibility[..., None] > 0
        joints = np.where(labeled, record.keypoints, 0)
        joints = np.concatenate([joints, record.visibility[..., None]], -1)
        for person in range(len(boxes)):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 means "no match" in pycocotools
                    "image_id": record.image_id,
                    "category_id": PERSON,
                    "iscrowd": int(record.iscrowd[person]),
                    "num_keypoints": int((record.visibility[person] > 0).sum()),
                    "keypoints": joints[person].ravel().tolist(),
                    "bbox": boxes[person].tolist(),
                    "area": float(record.area[person]),
                }
            )
    images = [{"id": image_id} for image_id in dataset.image_ids]
    return {"images": images, "annotations": annotations}


def pose_ap(
    content: dict,
    results: list[dict],
    sigmas: Sigmas,
    image_ids: Sequence[int | str] | None = None,
) -> dict[str, float]:
    """`coco_ap` on ground truth made here.

    Args:
      content: as from `coco_content`; `area` and `num_keypoints` are used as they are.
      results: as in `coco_ap`.
      sigmas: (k,) OKS sigma of each joint.
      image_ids: images to evaluate on; by default all.

    Returns:
      `METRICS`.

    Raises:
      UserError: as `coco_ap`.
    """
    checked = _checked(results, content, "keypoints", 3 * len(sigmas))
    stats = _stats(content, checked, "keypoints", sigmas, image_ids)
    return dict(zip(METRICS, stats, strict=True))


def ranked_poses(dataset: PoseDataset, results: list[dict]) -> RankedPoses:
    """How poses match people, for `bootstrap.resampled_ap`; `coco_ap` is the AP of all images.

    Args:
      dataset: the annotated images.
      results: as in `coco_ap`.

    Raises:
      UserError: as `coco_ap`.
    """
    content, sigmas = coco_content(dataset), dataset.skeleton.oks_sigmas
    checked = _checked(results, content, "keypoints", 3 * len(sigmas))
    evaluation: Any = _evaluated(content, checked, "keypoints", sigmas)
    num_images = len(evaluation.params.imgIds)
    # pycocotools has the images for each area range, all areas first, and None for empty images.
    found = [
        (number, image)
        for number, image in enumerate(evaluation.evalImgs[:num_images])
        if image is not None
    ]
    thresholds = len(evaluation.params.iouThrs)
    people = np.zeros(num_images, int)
    for number, image in found:
        people[number] = np.sum(image["gtIgnore"] == 0)
    scores = np.concatenate([np.zeros(0), *(image["dtScores"] for _, image in found)])
    order = np.argsort(-scores, kind="mergesort")  # as in pycocotools
    matched, ignored = (
        np.concatenate([np.zeros((thresholds, 0)), *(image[key] for _, image in found)], -1) != 0
        for key in ("dtMatches", "dtIgnore")
    )
    numbers = np.repeat([n for n, _ in found], [len(image["dtScores"]) for _, image in found])
    return RankedPoses(
        numbers.astype(int)[order],
        (matched & ~ignored)[:, order],
        (~matched & ~ignored)[:, order],
        people,
    )


def warn_of_nobody(dataset: PoseDataset, metrics: dict[str, float]) -> None:
    """Log that AP is -1 because nobody in the evaluated images counts."""
    if metrics["AP"] == -1:
        line = (
            "%s: nobody is evaluated (AP -1): the evaluated images have only crowds and people "
            "without labeled joints, or nobody"
        )
        logging.getLogger(__name__).warning(line, dataset.name)


def _stats(
    content: dict,
    results: list[dict],
    kind: Literal["keypoints", "bbox"],
    sigmas: Sigmas | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> list[float]:
    """pycocotools' figures; `results` are those of `_checked`."""
    evaluation: Any = _evaluated(content, results, kind, sigmas, image_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def _evaluated(
    content: dict,
    results: list[dict],
    kind: Literal["keypoints", "bbox"],
    sigmas: Sigmas | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> COCOeval:
    """pycocotools' matches of the poses or boxes of each image; `results` as in `_stats`."""
    # pycocotools sorts images by id, which fails for numbers among names. The order decides which
    # of two equal scores counts first.
    names = sorted(
        (image["id"] for image in content["images"]), key=lambda i: (isinstance(i, str), i)
    )
    number_of = {name: number for number, name in enumerate(names)}
    unknown = [name for name in image_ids or () if name not in number_of]
    if unknown:
        raise UserError(f"image_ids has {unknown[0]!r}, which the ground truth has not: remove it")
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = _api(content["annotations"], number_of), _api(results, number_of)
        evaluation = COCOeval(truth, found, kind)
        params: Any = evaluation.params
        params.catIds = [PERSON]
        params.imgIds = [number_of[name] for name in (names if image_ids is None else image_ids)]
        if sigmas is not None:
            params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluation.evaluate()
    return evaluation


def _api(records: list[dict], number_of: Mapping[int | str, int]) -> CocoApi:
    api = CocoApi()
    numbered = [{**record, "image_id": number_of[record["image_id"]]} for record in records]
    api.dataset = cast(
        Any,
        {
            "images": [{"id": number} for number in number_of.values()],
            "annotations": numbered,
            "categories": [{"id": PERSON, "name": "person"}],
        },
    )
    api.createIndex()
    return api


def _checked(
    results: list[dict], content: dict, key: Literal["keypoints", "bbox"], length: int
) -> list[dict]:
    """The results on people with the values that pycocotools needs, and nothing else."""
    category_ids = [category_of(r, f"result {n}", PERSON) for n, r in enumerate(results)]
    person = person_among(collections.Counter(category_ids), "the result list")
    people = [(n, results[n]) for n, i in enumerate(category_ids) if i == person]
    if others := len(results) - len(people):
        line = "results of other categories than %d, person, are left out: %d"
        logging.getLogger(__name__).warning(line, person, others)
    _check_images([result for _, result in people], {image["id"] for image in content["images"]})
    checked = []
    for number, result in people:
        where = f"result {number} (image {result['image_id']})"
        if missing := sorted({key, "score"} - result.keys()):
            raise UserError(f"{where} has no {', '.join(missing)}: give COCO's result format")
        values, score = _floats(result[key]), _floats(result["score"])
        if values.shape != (length,):
            raise UserError(
                f"{where} has {key} of shape {values.shape} instead of {length} values: "
                "give results in the joint set of the ground truth"
            )
        if score.shape or not (np.isfinite(values).all() and np.isfinite(score)):
            raise UserError(f"{where} has {key} or a score that is not a finite number: fix it")
        box = values if key == "bbox" else _box(result, values, where)
        checked.append(
            {
                "id": len(checked) + 1,
                "image_id": result["image_id"],
                "category_id": PERSON,
                "iscrowd": 0,
                "score": float(score),
                "keypoints": values,
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
            }
        )
    return checked


def _check_images(results: list[dict], known: set) -> None:
    ids = [result.get("image_id") for result in results]
    is_known = [isinstance(i, Hashable) and i in known for i in ids]
    unknown = list(dict.fromkeys(repr(i) for i, ok in zip(ids, is_known, strict=True) if not ok))
    if unknown:
        first = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise UserError(
            f"{len(unknown)} images of the results are not in the ground truth ({first}): "
            "give results and ground truth of the same images"
        )


def _box(result: dict, keypoints: Float[np.ndarray, " n"], where: str) -> Float[np.ndarray, " 4"]:
    """The box (xywh) of a pose, or else the extent of its joints, as in pycocotools."""
    if not result.get("bbox"):
        points = keypoints.reshape(-1, 3)[:, :2]
        return np.concatenate([points.min(0), np.ptp(points, 0)])
    box = _floats(result["bbox"])
    if box.shape != (4,) or not np.isfinite(box).all():
        raise UserError(f"{where} has bbox that is not four finite numbers: fix it or leave it out")
    return box


def _floats(values: Any) -> Float[np.ndarray, "..."]:
    """Values as an array; NaN if they are not numbers."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.asarray(values, object)
    is_number = array.dtype.kind in "biuf"
    return array.astype(np.float64) if is_number else np.full(array.shape, np.nan)
