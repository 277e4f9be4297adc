"""Mean signed error of joints that are nearly right: it shows a wrong alignment of heatmaps.

A network decoded with the alignment of another one puts every joint aside by about a crop pixel.
That costs several points of AP without a visible mistake.
"""

import logging
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.ops.geometry import CropSpec

NEAR = 0.03  # of the crop's longer side: farther joints are mistakes, not offsets
SUSPICIOUS = 0.25  # crop pixels


class Offsets(NamedTuple):
    """Mean signed errors, predicted minus annotated, in crop pixels; NaN where no joint is near.

    Attributes:
      mean: over all joints that are near their annotation, (x, y).
      standard_error: of `mean`, as if joints were independent.
      by_joint: over those of each joint.
      counts: how many of each joint are near.
    """

    mean: Float[np.ndarray, " 2"]
    standard_error: Float[np.ndarray, " 2"]
    by_joint: Float[np.ndarray, "k 2"]
    counts: Int[np.ndarray, " k"]


def joint_offsets(predictions: PosePredictions, crop: CropSpec) -> Offsets:
    """Offsets of the joints in boxes of annotated people; boxes of a detector are left out.

    Args:
      predictions: in the joint set of the dataset or of another that has its joints.
      crop: how people were cropped, which gives the size of a crop pixel.
    """
    predictions = predictions.in_dataset_skeleton()
    boxes, images = predictions.boxes, predictions.dataset.images
    rows = np.flatnonzero(boxes.person_index >= 0)
    people = [(images[i], p) for i, p in zip(boxes.image_index, boxes.person_index, strict=True)]
    k = predictions.skeleton.num_keypoints
    annotated = np.array([people[row][0].keypoints[people[row][1]] for row in rows])
    labeled = np.array([people[row][0].visibility[people[row][1]] > 0 for row in rows], bool)
    annotated, labeled = annotated.reshape(-1, k, 2), labeled.reshape(-1, k)
    affines = crop.image_from_crop(boxes.bboxes[rows])
    scale = np.stack([affines[:, 0, 0], affines[:, 1, 1]], -1)  # image pixels per crop pixel
    error = (predictions.keypoints[rows] - annotated) / scale[:, None]
    near = np.linalg.norm(error, axis=-1) <= NEAR * max(crop.input_size)  # False for NaN
    near &= labeled
    error = np.where(near[..., None], error, 0)
    total, counts = error.sum(0), near.sum(0)
    with np.errstate(invalid="ignore"):
        mean = total.sum(0) / counts.sum()
        variance = (error**2).sum((0, 1)) / counts.sum() - mean**2
        standard_error = np.sqrt(np.maximum(variance, 0) / counts.sum())
        return Offsets(mean, standard_error, total / counts[:, None], counts)


def warn_of_offset(name: str, offsets: Offsets) -> None:
    """Log that joints lie aside by more than `SUSPICIOUS` crop pixels, and not by chance.

    Args:
      name: of the dataset.
      offsets: of its people.
    """
    size = np.abs(offsets.mean)
    if ((size > SUSPICIOUS) & (size > 3 * offsets.standard_error)).any():  # False for NaN
        line = (
            "%s: joints that are nearly right lie %+.2f crop pixels aside in x and %+.2f in y: "
            "the alignment of the heatmaps may be wrong, see docs/interop.md"
        )
        logging.getLogger(__name__).warning(line, name, *offsets.mean)
