"""Evaluation of detectors: average precision on a dataset in COCO's format."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.eval_pipeline import Unreadable, log_unreadable
from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.detectors.points import PointDetector
from rmpe_jax.detectors.protocol import Boxes, Detector
from rmpe_jax.evaluation.coco import box_ap
from rmpe_jax.evaluation.results import PERSON
from rmpe_jax.ops import geometry
from rmpe_jax.processes import in_every_process, in_first_process, is_first_process, share_of


def detection_results(detector: Detector, dataset: PoseDataset) -> list[dict]:
    """The detector's boxes on all images of a dataset, as records of COCO's result format.

    Unreadable images get no boxes, so their people count as missed; a log line counts and names
    them. With several processes, each detects in its share of the images, and all get all boxes.
    """
    share = share_of(np.arange(len(dataset.images)))
    found = in_every_process(lambda: _results(detector, dataset.images[share]))
    errors = [error for _, of_share in found for error in of_share]
    if is_first_process():
        unreadable = Unreadable(errors, len(dataset.images))
        log_unreadable(unreadable, "their people count as missed")
    return [result for results, _ in found for result in results]


def _results(detector: Detector, images: Sequence[ImageRecord]) -> tuple[list[dict], list[str]]:
    """The boxes in some images, and a line for each unreadable one."""
    results: list[dict] = []
    errors: list[str] = []
    for record, found in _boxes_in_each(detector, images, errors):
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
    return results, errors


def _boxes_in_each(
    detector: Detector, images: Sequence[ImageRecord], errors: list[str]
) -> Iterator[tuple[ImageRecord, Boxes]]:
    """The readable ones of some images, with their boxes. `errors` gets a line for each other."""
    readable, decoded = itertools.tee(_decoded(images, errors))
    records = (record for record, _ in readable)
    if isinstance(detector, PointDetector):
        found = detector.on_local_devices(image for _, image in decoded)
    else:
        found = (detector(image, record.path.name) for record, image in decoded)
    return zip(records, found, strict=True)


def _decoded(
    images: Sequence[ImageRecord], errors: list[str]
) -> Iterator[tuple[ImageRecord, UInt8[np.ndarray, "h w 3"]]]:
    for record in images:
        try:
            image = read_image(record.path)
        except ImageError as error:
            errors.append(str(error))
            continue
        yield record, image


def detector_ap(detector: Detector, dataset: PoseDataset) -> tuple[dict[str, float], list[dict]]:
    """Box AP and AP50 of a detector on the people of a dataset, and its results."""
    results = detection_results(detector, dataset)
    return in_first_process(lambda: box_ap(dataset, results)), results
