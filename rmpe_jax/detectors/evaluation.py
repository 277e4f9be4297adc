"""Evaluation of detectors: average precision on a dataset in COCO's format."""

import numpy as np

from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.detectors.protocol import Detector
from rmpe_jax.evaluation.coco import box_ap
from rmpe_jax.evaluation.results import PERSON
from rmpe_jax.ops import geometry


def detection_results(detector: Detector, dataset: PoseDataset) -> list[dict]:
    """The detector's boxes on all images of a dataset, as records of COCO's result format.

    Unreadable images get no boxes, so their people count as missed.
    """
    results = []
    for record in dataset.images:
        try:
            image = read_image(record.path)
        except ImageError:
            continue
        found = detector(image, record.path.name)
        boxes = geometry.xywh_from_xyxy(np.asarray(found.bboxes, np.float64)).round(2)
        results += [
            {
                "image_id": record.image_id,
                "category_id": PERSON,
                "bbox": box.tolist(),
                "score": round(float(score), 5),
            }
            for box, score in zip(boxes, found.scores, strict=True)
        ]
    return results


def detector_ap(detector: Detector, dataset: PoseDataset) -> tuple[dict[str, float], list[dict]]:
    """Box AP and AP50 of a detector on the people of a dataset, and its results."""
    results = detection_results(detector, dataset)
    return box_ap(dataset, results), results
