"""From boxes to poses: crop on the host, network and decoding in one compiled function."""

from typing import Any

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.eval_pipeline import PersonBox, eval_batches
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.evaluation.protocol import PersonBoxes
from rmpe_jax.top_down.prediction import Predict


def predict_boxes(
    predict: Predict,
    variables: Any,
    dataset: PoseDataset,
    boxes: PersonBoxes,
    *,
    num_keypoints: int,
    input_size: tuple[int, int],
    padding: float,
    batch_size: int = 32,
    num_threads: int = 2,
) -> tuple[Float[np.ndarray, "m k 2"], Float[np.ndarray, "m k"]]:
    """Poses in all boxes of a data set: keypoints in image pixels, and scores.

    The rows of boxes whose picture cannot be read are NaN, with scores 0.
    """
    keypoints = np.full((len(boxes), num_keypoints, 2), np.nan, np.float32)
    scores = np.zeros((len(boxes), num_keypoints), np.float32)
    items = [
        PersonBox(dataset.pictures[picture].path, bbox, index)
        for index, (picture, bbox) in enumerate(zip(boxes.picture_index, boxes.bboxes, strict=True))
    ]
    batches = eval_batches(
        items,
        input_size=input_size,
        padding=padding,
        batch_size=batch_size,
        num_threads=num_threads,
    )
    for batch in batches:
        found = predict(variables, batch["image"], batch["image_from_crop"])
        rows, valid = batch["index"], batch["valid"]
        for target, values in zip((keypoints, scores), found, strict=True):
            target[rows[valid]] = np.asarray(values)[valid]
    return keypoints, scores
