"""COCO's average precision of poses and of boxes, computed by pycocotools."""

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.results import PERSON
from rmpe_jax.files import read_json
from rmpe_jax.ops import geometry

Annotations = str | os.PathLike | dict  # a file, or its content

# In the order of `COCOeval.stats` of pycocotools for keypoints.
METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
_NUM_COCO_KEYPOINTS = 17

Sigmas = Sequence[float] | Float[np.ndarray, " k"]


def coco_ap(
    annotations: Annotations,
    results: list[dict],
    sigmas: Sigmas | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> dict[str, float]:
    """Average precision and recall of poses by object keypoint similarity (OKS).

    Args:
      annotations: COCO keypoint ground truth, a file or its content.
      results: records of COCO's result format, with `keypoints` (x, y, anything) * k and `score`.
      sigmas: (k,) OKS sigma of each joint; by default COCO's 17.
      image_ids: images to evaluate on; by default all of the ground truth.

    Returns:
      `METRICS` as fractions; M and L are medium and large people. -1 if the ground truth has
      nobody of that size (pycocotools' convention); all 0 if there are no results.

    Raises:
      UserError: ground truth or results do not have this format, a result is not finite, or it is
        on an image that the ground truth does not have.
    """
    num_keypoints = _NUM_COCO_KEYPOINTS if sigmas is None else len(sigmas)
    ground_truth = load_ground_truth(annotations, num_keypoints)
    if not results:
        return dict.fromkeys(METRICS, 0.0)
    _check_results(results, ground_truth, "keypoints", 3 * num_keypoints)
    stats = _evaluate(ground_truth, results, "keypoints", sigmas, image_ids)
    return dict(zip(METRICS, stats, strict=True))


def box_ap(annotations: Annotations, detections: list[dict]) -> dict[str, float]:
    """Average precision of person boxes.

    Args:
      annotations: COCO keypoint ground truth, a file or its content.
      detections: records of COCO's result format, with `bbox` xywh and `score`; other categories
        than person are dropped.

    Returns:
      `AP`, over IoU .50 to .95, and `AP50`, as fractions.

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
    sigmas: Sigmas | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> list[float]:
    copies: Any = [dict(result) for result in results]  # pycocotools modifies them
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
    """The annotated people of COCO ground truth, with all keys that pycocotools requires.

    Missing keys that `data.readers.coco` does not require get the same defaults as there, such as
    the area of the box for `area`.

    Args:
      annotations: COCO keypoint ground truth, a file or its content.
      num_keypoints: required number of keypoints per person; None if poses are not used.

    Returns:
      The content of a COCO annotation file.

    Raises:
      UserError: it does not have this format.
    """
    is_dict = isinstance(annotations, dict)
    name = "the ground truth" if is_dict else f"annotation file {annotations}"
    content = annotations if is_dict else read_json(annotations, "annotation file")
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise UserError(f"{name} has no images or no annotations: give COCO's format")
    people = [_person(a, num_keypoints, name) for a in content["annotations"] if _is_person(a)]
    categories = [{"id": PERSON, "name": "person"}]
    return {"images": content["images"], "annotations": people, "categories": categories}


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


def _is_person(annotation: dict) -> bool:
    return annotation.get("category_id", PERSON) == PERSON


def _person(annotation: dict, num_keypoints: int | None, name: str) -> dict:
    where = f"{name}: annotation {annotation.get('id', 'without id')}"
    required = ("id", "image_id", "bbox") + (("keypoints",) if num_keypoints else ())
    if missing := [key for key in required if key not in annotation]:
        raise UserError(f"{where} has no {', '.join(missing)}: add it")
    visibility = annotation.get("keypoints", [])[2::3]
    if num_keypoints and len(visibility) != num_keypoints:
        raise UserError(
            f"{where} has {len(visibility)} keypoints instead of {num_keypoints}: fix it, or give "
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
        where = f"result {number} (image {result['image_id']})"
        if missing := sorted({"category_id", field, "score"} - result.keys()):
            raise UserError(f"{where} has no {', '.join(missing)}: give COCO's result format")
        values = _floats(result[field])
        if values.shape != (length,):
            raise UserError(
                f"{where} has {field} of shape {values.shape} instead of {length} values: "
                "give results in the joint set of the ground truth"
            )
        if not (np.isfinite(values).all() and np.isfinite(_floats(result["score"])).all()):
            raise UserError(f"{where} has {field} or a score that is not a finite number: fix it")


def _check_images(results: list[dict], known: set) -> None:
    unknown = {result.get("image_id"): None for result in results}
    unknown = [image_id for image_id in unknown if image_id not in known]
    if unknown:
        first = ", ".join(map(str, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        raise UserError(
            f"{len(unknown)} images of the results are not in the ground truth ({first}): "
            "give results and ground truth of the same images"
        )


def _floats(values: Any) -> np.ndarray:
    """Values as an array; NaN if they are not numbers."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return np.full(np.shape(values) if np.isscalar(values) else len(values), np.nan)
