"""Poses predicted by a network in the boxes of a dataset."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.data.eval_pipeline import CropRequest, eval_batches
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import DatasetBoxes
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.progress import progress
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.top_down.prediction import PredictFn


@dataclasses.dataclass(frozen=True)
class PosePredictions:
    """One pose per box of a dataset.

    Creating one raises a `UserError` if the keypoints do not have the joints of the skeleton.

    Attributes:
      dataset: the annotated images.
      boxes: the boxes that people were cropped by.
      keypoints: image pixels. All NaN if there is no pose because the image is unreadable.
      keypoint_scores: 0 to 1.
      skeleton: the joints of `keypoints`.
    """

    dataset: PoseDataset
    boxes: DatasetBoxes
    keypoints: Float[np.ndarray, "m k 2"]
    keypoint_scores: Float[np.ndarray, "m k"]
    skeleton: Skeleton

    def __post_init__(self) -> None:
        what = f"{self.dataset.name}: predictions"
        self.skeleton.check_num_keypoints(self.keypoints.shape[1], what)

    def in_dataset_skeleton(self) -> "PosePredictions":
        """The same poses in the joint set of the dataset.

        Raises:
          UserError: the network lacks one of the joints.
        """
        joints = _joints_of(self.dataset.skeleton, self.skeleton)
        return dataclasses.replace(
            self,
            keypoints=self.keypoints[:, joints],
            keypoint_scores=self.keypoint_scores[:, joints],
            skeleton=self.dataset.skeleton,
        )


def predict_dataset(
    predict: PredictFn,
    variables: Any,
    dataset: PoseDataset,
    boxes: DatasetBoxes,
    skeleton: Skeleton,
    crop: CropSpec,
    *,
    batch_size: int = 32,
    num_threads: int = 2,
    show_progress: bool = False,
) -> PosePredictions:
    """Runs a network on all boxes of a dataset.

    Args:
      predict: from `top_down.prediction.make_predict`.
      variables: of the network.
      dataset: the images.
      boxes: the boxes to crop people by.
      skeleton: of the network.
      crop: crops of the network.
      batch_size: crops per batch.
      num_threads: threads that decode images.
      show_progress: print a progress line on stderr.

    Raises:
      UserError: the network does not have the joints of the skeleton.
    """
    k = skeleton.num_keypoints
    keypoints = np.full((len(boxes), k, 2), np.nan, np.float32)
    scores = np.zeros((len(boxes), k), np.float32)
    requests = [
        CropRequest(dataset.images[image].path, bbox, index)
        for index, (image, bbox) in enumerate(zip(boxes.image_index, boxes.bboxes, strict=True))
    ]
    batches = eval_batches(requests, crop=crop, batch_size=batch_size, num_threads=num_threads)
    if show_progress:
        batches = progress(batches, -(-len(boxes) // batch_size), "batches of people")
    for batch in batches:
        found = predict(variables, batch["image"], batch["image_from_crop"])
        skeleton.check_num_keypoints(found[0].shape[1], f"{dataset.name}: predictions")
        rows, valid = batch["index"], batch["valid"]
        for target, values in zip((keypoints, scores), found, strict=True):
            target[rows[valid]] = np.asarray(values)[valid]
    return PosePredictions(dataset, boxes, keypoints, scores, skeleton)


def _joints_of(wanted: Skeleton, available: Skeleton) -> Int[np.ndarray, " k"]:
    """For each joint of `wanted` its index in `available`.

    Raises:
      UserError: one is missing.
    """
    indices = wanted.indices_in(available)
    if (indices < 0).any():
        missing = ", ".join(np.array(wanted.joints)[indices < 0])
        raise UserError(
            f"a network with {available.name} joints has no {missing}, which {wanted.name} "
            "is evaluated on: evaluate on a dataset with its joints, or train on the union"
        )
    return indices
