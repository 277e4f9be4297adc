"""The common form of all datasets' annotations."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """The annotations of one image with n people, in image pixels.

    Attributes:
      image_id: the dataset's id of the image (COCO: int; others: file name).
      path: the image file.
      keypoints: (n, k, 2) float32, joints of the dataset's skeleton; arbitrary where visibility is
        0.
      visibility: (n, k) as in COCO: 0 not annotated, 1 occluded, 2 visible.
      bboxes: (n, 4) float64 xyxy; float32 would move some overlaps across a threshold of AP.
      area: (n,) float64 square pixels: the segment's area in COCO, the box's in other datasets.
      iscrowd: (n,) whether the entry is a region of several people; never trained on, ignored in
        evaluation.
      head_sizes: (n,) float32 pixels, the unit of PCKh; NaN where unknown.
      person_ids: (n,) the dataset's annotation ids.
      declared_size: (width, height) of the image in pixels according to the annotation file; None
        if the file does not say.
      crowd_index: how crowded the image is according to CrowdPose, 0 to 1; None in other datasets.
    """

    image_id: int | str
    path: pathlib.Path
    keypoints: Float[np.ndarray, "n k 2"]
    visibility: UInt8[np.ndarray, "n k"]
    bboxes: Float[np.ndarray, "n 4"]
    area: Float[np.ndarray, " n"]
    iscrowd: Bool[np.ndarray, " n"]
    head_sizes: Float[np.ndarray, " n"]
    person_ids: Int[np.ndarray, " n"]
    declared_size: tuple[int, int] | None = None
    crowd_index: float | None = None


def trainable(record: ImageRecord) -> Bool[np.ndarray, " n"]:
    """Which people can be trained on: not a crowd, at least one labeled joint, a box with area."""
    labeled = (record.visibility > 0).any(-1)
    return labeled & ~record.iscrowd & (geometry.box_area(record.bboxes) > 0)


def pick_joints(
    keypoints: Float[np.ndarray, "*n k 2"],
    visibility: UInt8[np.ndarray, "*n k"],
    indices: Int[np.ndarray, " j"],
) -> tuple[Float[np.ndarray, "*n j 2"], UInt8[np.ndarray, "*n j"]]:
    """Select the joints at `indices`, as from `Skeleton.indices_in`.

    Where an index is -1 the joint is not annotated. Joints that are not annotated are at (0, 0).
    """
    picked = np.where(indices >= 0, visibility[..., indices], 0).astype(np.uint8)
    points = np.where(picked[..., None] > 0, keypoints[..., indices, :], 0).astype(np.float32)
    return points, picked


@dataclasses.dataclass(frozen=True)
class PoseDataset:
    """The images and annotations of one split of a dataset.

    Attributes:
      name: for messages and file names, such as `coco/val2017`.
      skeleton: the joints of all keypoints.
      images: in the order of the annotation file.
      annotations: the annotation file.
      num_without_area: number of people that the reader has skipped because their box has no area.
    """

    name: str
    skeleton: Skeleton
    images: tuple[ImageRecord, ...]
    annotations: pathlib.Path
    num_without_area: int = 0

    @property
    def image_ids(self) -> list[int | str]:
        """The dataset's own names of its images."""
        return [record.image_id for record in self.images]

    @property
    def num_people(self) -> int:
        """Number of annotated people, crowds included."""
        return sum(len(record.bboxes) for record in self.images)
