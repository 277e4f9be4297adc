"""From a network's many boxes to the few that are reported."""

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
    """Threshold, greedy NMS (OpenCV's), the part inside the picture; best first.

    Boxes and scores that are not finite are left out, with a line in the log.

    Args:
      bboxes: xyxy image pixels.
      scores: of a person.
      image_size: (height, width).
      score_threshold: boxes that score less are left out.
      nms_iou: of two boxes that overlap by more, the better stays; 1 keeps all.
      max_boxes: how many at most.
      name: of the picture, for the log.
    """
    finite = np.isfinite(bboxes).all(-1) & np.isfinite(scores)
    # What scores too low is of no interest, finite or not.
    if broken := int((~finite & ~(scores < score_threshold)).sum()):
        line = "picture %s: %d boxes of the detector are not finite and left out"
        logging.getLogger(__name__).warning(line, name, broken)
    # The part inside must have an area, but overlap is judged on whole boxes.
    inside = geometry.clip_boxes(bboxes, image_size)
    good = finite & (scores >= score_threshold) & (geometry.box_area(inside) > 0)
    bboxes, scores, inside = bboxes[good], scores[good], inside[good]
    bboxes_xywh = geometry.xywh_from_xyxy(bboxes.astype(np.float64))
    kept = cv2.dnn.NMSBoxes(bboxes_xywh, scores, 0.0, nms_iou)  # type: ignore[arg-type]
    kept = np.asarray(kept, np.int64).reshape(-1)[:max_boxes]
    return Boxes(inside[kept].astype(np.float32), scores[kept].astype(np.float32))
