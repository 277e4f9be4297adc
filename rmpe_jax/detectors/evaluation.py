"""How well a detector finds people: average precision on a data set of COCO's form."""

import numpy as np

from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.detectors.protocol import Detector
from rmpe_jax.evaluation.coco import box_ap
from rmpe_jax.evaluation.results import PERSON
from rmpe_jax.ops import geometry


def detection_results(detector: Detector, dataset: PoseDataset) -> list[dict]:
    """The detector's boxes on all pictures of a data set, as records of COCO's result form.

    A picture that cannot be read has none: its people count as missed.
    """
    results = []
    for picture in dataset.images:
        try:
            image = read_image(picture.path)
        except ImageError:
            continue
        found = detector(image, picture.path.name)
        boxes = geometry.xywh_from_xyxy(np.asarray(found.bboxes, np.float64)).round(2)
        results += [
            {
                "image_id": picture.image_id,
                "category_id": PERSON,
                "bbox": box.tolist(),
                "score": round(float(score), 5),
            }
            for box, score in zip(boxes, found.scores, strict=True)
        ]
    return results


def detector_ap(detector: Detector, dataset: PoseDataset) -> tuple[dict[str, float], list[dict]]:
    """Box AP and AP50 of a detector, and its results.

    Raises:
      UserError: the annotations are not of COCO's form.
    """
    results = detection_results(detector, dataset)
    return box_ap(dataset.annotations, results), results
