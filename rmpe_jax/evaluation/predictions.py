"""Poses predicted by a network in the boxes of a dataset.

Each process decodes the images of its share of the boxes, its devices share each batch, and all
processes get all poses.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.data.eval_pipeline import CropRequest, Unreadable, eval_batches, log_unreadable
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.devices import local_copies, local_mesh, put_rows
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import DatasetBoxes
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.processes import in_every_process, is_first_process, share_of
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


class _Poses(NamedTuple):
    """What one process finds in its share of the boxes."""

    keypoints: Float[np.ndarray, "m k 2"]
    scores: Float[np.ndarray, "m k"]
    unreadable: Unreadable


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
    """Runs a network on all boxes of a dataset, on all devices of all processes.

    With several processes, all call this at the same place and get the same result. Process 0 logs
    the unreadable images of all.

    Args:
      predict: from `top_down.prediction.make_predict`.
      variables: of the network, as `devices.local_copies` takes them.
      dataset: the images.
      boxes: the boxes to crop people by.
      skeleton: of the network.
      crop: crops of the network.
      batch_size: crops per batch on each device.
      num_threads: threads that decode images, in each process.
      show_progress: print a progress line on stderr.

    Raises:
      UserError: the network does not have the joints of the skeleton.
    """
    mesh = local_mesh()
    variables = local_copies(variables, mesh)
    share = share_of(boxes.image_index)
    requests = [
        CropRequest(dataset.images[image].path, bbox, index)
        for index, (image, bbox) in enumerate(
            zip(boxes.image_index[share], boxes.bboxes[share], strict=True)
        )
    ]

    def poses_of_share() -> _Poses:
        k = skeleton.num_keypoints
        keypoints = np.full((len(requests), k, 2), np.nan, np.float32)
        scores = np.zeros((len(requests), k), np.float32)
        unreadable: list[Unreadable] = []
        batches = eval_batches(
            requests,
            crop=crop,
            batch_size=batch_size * mesh.size,
            num_threads=num_threads,
            report=unreadable.append,
        )
        if show_progress:
            num_batches = -(-len(requests) // (batch_size * mesh.size))
            batches = progress(batches, num_batches, "batches of people")
        for batch in batches:
            crops, image_from_crop = put_rows((batch["image"], batch["image_from_crop"]), mesh)
            found = predict(variables, crops, image_from_crop)
            skeleton.check_num_keypoints(found[0].shape[1], f"{dataset.name}: predictions")
            rows, valid = batch["index"], batch["valid"]
            for target, values in zip((keypoints, scores), found, strict=True):
                target[rows[valid]] = np.asarray(values)[valid]
        return _Poses(keypoints, scores, *unreadable)

    found = in_every_process(poses_of_share)
    if is_first_process():
        errors = [error for poses in found for error in poses.unreadable.errors]
        log_unreadable(Unreadable(errors, sum(p.unreadable.num_images for p in found)))
    return PosePredictions(
        dataset,
        boxes,
        np.concatenate([poses.keypoints for poses in found]),
        np.concatenate([poses.scores for poses in found]),
        skeleton,
    )


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
