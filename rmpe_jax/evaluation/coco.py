"""COCO's average precision of poses and of boxes, by pycocotools."""

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.results import PERSON
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry

Annotations = str | os.PathLike | dict

# The order of pycocotools' `COCOeval.stats` for keypoints.
METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
_NUM_COCO_KEYPOINTS = 17


def coco_ap(
    annotations: Annotations,
    results: list[dict],
    sigmas: Sequence[float] | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> dict[str, float]:
    """Average precision and recall of poses by object keypoint similarity (OKS).

    Args:
      annotations: COCO keypoint ground truth, a file or what it holds.
      results: records of COCO's result form, with `keypoints` (x, y, anything) * k and `score`.
      sigmas: per joint OKS sigmas (k,); COCO's 17 if not given.
      image_ids: evaluate on these pictures only; on all of the ground truth if not given.

    Returns:
      `METRICS` as fractions; M and L are medium and large people. -1 where the ground truth has
      nobody of that size (pycocotools' convention); all 0 if there are no results.

    Raises:
      UserError: ground truth or results are not of that form, results are not finite, or
        name pictures that the ground truth does not have.
    """
    num_keypoints = _NUM_COCO_KEYPOINTS if sigmas is None else len(sigmas)
    ground_truth = load_ground_truth(annotations, num_keypoints)
    if not results:
        return dict.fromkeys(METRICS, 0.0)
    _check_results(results, ground_truth, "keypoints", 3 * num_keypoints)
    stats = _evaluate(ground_truth, results, "keypoints", sigmas, image_ids)
    return dict(zip(METRICS, stats, strict=True))


def box_ap(annotations: Annotations, detections: list[dict]) -> dict[str, float]:
    """Average precision of person boxes: AP over IoU .50 to .95, and AP50.

    Args:
      annotations: COCO keypoint ground truth, a file or what it holds.
      detections: records of COCO's result form, with `bbox` xywh and `score`.

    Raises:
      UserError: as `coco_ap`.
    """
    ground_truth = load_ground_truth(annotations, None)
    people = [d for d in detections if d.get("category_id") == PERSON]
    if not people:
        return {"AP": 0.0, "AP50": 0.0}
    _check_results(people, ground_truth, "bbox", 4)
    stats = _evaluate(ground_truth, people, "bbox")
    return {"AP": stats[0], "AP50": stats[1]}


def _evaluate(
    ground_truth: dict,
    results: list[dict],
    kind: Literal["keypoints", "bbox"],
    sigmas: Sequence[float] | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> list[float]:
    copies: Any = [dict(result) for result in results]  # pycocotools writes into them
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = cast(Any, ground_truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copies), kind)
        params: Any = evaluation.params
        params.catIds = [PERSON]
        if image_ids is not None:
            params.imgIds = list(image_ids)
        if sigmas is not None:
            params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def load_ground_truth(annotations: Annotations, num_keypoints: int | None) -> dict:
    """The people of the ground truth, with all that pycocotools takes for granted.

    What `data.coco` reads without is filled in as it does there: the box's area, say.

    Args:
      annotations: COCO keypoint ground truth, a file or what it holds.
      num_keypoints: that everybody must have; None if poses are not needed.

    Raises:
      UserError: not of that form.
    """
    is_dict = isinstance(annotations, dict)
    name = "the ground truth" if is_dict else f"annotation file {annotations}"
    content = annotations if is_dict else read_json(annotations, "annotation file")
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise UserError(f"{name} lacks images or annotations: give COCO's form")
    people = [_person(a, num_keypoints, name) for a in content["annotations"] if _is_person(a)]
    categories = [{"id": PERSON, "name": "person"}]
    return {"images": content["images"], "annotations": people, "categories": categories}


def coco_content(dataset: PoseDataset) -> dict:
    """Any data set's people as COCO keypoint ground truth, in its own joint set."""
    annotations = []
    for picture in dataset.images:
        boxes = geometry.xywh_from_xyxy(picture.bboxes)
        labelled = picture.visibility[..., None] > 0
        joints = np.where(labelled, picture.keypoints, 0)
        joints = np.concatenate([joints, picture.visibility[..., None]], -1)
        for person in range(len(boxes)):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 is "no match" to pycocotools
                    "image_id": picture.image_id,
                    "category_id": PERSON,
                    "iscrowd": int(picture.iscrowd[person]),
                    "num_keypoints": int((picture.visibility[person] > 0).sum()),
                    "keypoints": joints[person].ravel().tolist(),
                    "bbox": boxes[person].tolist(),
                    "area": float(picture.area[person]),
                }
            )
    images = [{"id": picture.image_id} for picture in dataset.images]
    return {"images": images, "annotations": annotations}


def _is_person(annotation: dict) -> bool:
    return annotation.get("category_id", PERSON) == PERSON


def _person(annotation: dict, num_keypoints: int | None, name: str) -> dict:
    where = f"{name}: annotation {annotation.get('id', 'without id')}"
    needed = ("id", "image_id", "bbox") + (("keypoints",) if num_keypoints else ())
    if missing := [key for key in needed if key not in annotation]:
        raise UserError(f"{where} has no {', '.join(missing)}: add it")
    visibility = annotation.get("keypoints", [])[2::3]
    if num_keypoints and len(visibility) != num_keypoints:
        raise UserError(
            f"{where} has {len(visibility)} keypoints instead of {num_keypoints}: mend it or give "
            "the sigmas of its joint set"
        )
    defaults = {
        "category_id": PERSON,
        "iscrowd": 0,
        "area": annotation["bbox"][2] * annotation["bbox"][3],
        "num_keypoints": sum(v > 0 for v in visibility),
    }
    return {**defaults, **annotation}


def _check_results(results: list[dict], ground_truth: dict, field: str, length: int) -> None:
    _check_images(results, {image["id"] for image in ground_truth["images"]})
    for number, result in enumerate(results):
        where = f"result {number} (picture {result['image_id']})"
        if missing := sorted({"category_id", field, "score"} - result.keys()):
            raise UserError(f"{where} has no {', '.join(missing)}: give COCO's result form")
        values = _floats(result[field])
        if values.shape != (length,):
            raise UserError(
                f"{where} has {field} of shape {values.shape} instead of {length} values: "
                "give results of the ground truth's joint set"
            )
        if not (np.isfinite(values).all() and np.isfinite(_floats(result["score"])).all()):
            raise UserError(f"{where} has {field} or a score that is not a finite number: mend it")


def _check_images(results: list[dict], known: set) -> None:
    unknown = {result.get("image_id"): None for result in results}
    unknown = [image_id for image_id in unknown if image_id not in known]
    if unknown:
        first = ", ".join(map(str, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        raise UserError(
            f"{len(unknown)} pictures of the results are not in the ground truth ({first}): "
            "give results and ground truth of the same pictures"
        )


def _floats(values: Any) -> np.ndarray:
    """Values as an array, NaN where they are no numbers."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return np.full(np.shape(values) if np.isscalar(values) else len(values), np.nan)
