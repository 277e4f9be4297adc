"""Selection of the boxes to report among a network's candidates."""

import logging

import cv2
import numpy as np
from jaxtyping import Float

from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.ops import geometry


def select_boxes(
    bboxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    image_size: tuple[int, int],
    *,
    score_threshold: float,
    nms_iou: float,
    max_boxes: int,
    name: str = "",
) -> Boxes:
    """Apply a threshold and greedy NMS (OpenCV's), and clip boxes to the image; best first.

    Boxes and scores that are not finite are skipped with a warning in the log.

    Args:
      bboxes: xyxy image pixels.
      scores: of a person.
      image_size: (height, width).
      score_threshold: boxes with lower scores are left out.
      nms_iou: of two boxes with a larger IoU only the better one stays; 1 keeps all.
      max_boxes: maximum number of boxes.
      name: of the image, for the log.
    """
    finite = np.isfinite(bboxes).all(-1) & np.isfinite(scores)
    # Boxes below the threshold are not reported, finite or not.
    if broken := int((~finite & ~(scores < score_threshold)).sum()):
        line = "image %s: %d boxes of the detector are not finite and are skipped"
        logging.getLogger(__name__).warning(line, name, broken)
    # The part inside the image must have area, but NMS uses the full boxes.
    inside = geometry.clip_boxes(bboxes, image_size)
    usable = finite & (scores >= score_threshold) & (geometry.box_area(inside) > 0)
    bboxes, scores, inside = bboxes[usable], scores[usable], inside[usable]
    bboxes_xywh = geometry.xywh_from_xyxy(bboxes.astype(np.float64))
    kept = cv2.dnn.NMSBoxes(bboxes_xywh, scores, 0.0, nms_iou)  # type: ignore[arg-type]
    kept = np.asarray(kept, np.int64).reshape(-1)[:max_boxes]
    return Boxes(inside[kept].astype(np.float32), scores[kept].astype(np.float32))
