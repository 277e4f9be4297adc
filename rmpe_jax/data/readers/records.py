"""The one form in which every data set's annotations are held once read."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture and the people annotated in it, in image pixels.

    Attributes:
      image_id: the data set's own name for the picture (COCO: int; others: file name).
      path: the picture's file.
      keypoints: (n, k, 2) float32, in the data set's skeleton; anything where visibility is 0.
      visibility: (n, k) COCO's 0 not annotated, 1 occluded, 2 visible.
      bboxes: (n, 4) float32 xyxy.
      area: (n,) float32 square pixels: COCO's segment area, elsewhere the box's.
      iscrowd: (n,) a region of several people; never trained on, ignored in evaluation.
      head_sizes: (n,) float32 pixels, the unit of PCKh; NaN where unknown.
      person_ids: (n,) the data set's annotation ids.
    """

    image_id: int | str
    path: pathlib.Path
    keypoints: Float[np.ndarray, "n k 2"]
    visibility: UInt8[np.ndarray, "n k"]
    bboxes: Float[np.ndarray, "n 4"]
    area: Float[np.ndarray, " n"]
    iscrowd: Bool[np.ndarray, " n"]
    head_sizes: Float[np.ndarray, " n"]
    person_ids: np.ndarray


def trainable(picture: Picture) -> Bool[np.ndarray, " n"]:
    """Which people can be trained on: not a crowd, a joint labelled, and a box with area."""
    labelled = (picture.visibility > 0).any(-1)
    return labelled & ~picture.iscrowd & (geometry.box_area(picture.bboxes) > 0)


def pick_joints(
    keypoints: Float[np.ndarray, "*n k 2"],
    visibility: UInt8[np.ndarray, "*n k"],
    indices: Int[np.ndarray, " j"],
) -> tuple[Float[np.ndarray, "*n j 2"], UInt8[np.ndarray, "*n j"]]:
    """The joints at `indices`, which `Skeleton.indices_in` gives; not annotated where -1.

    Joints that are not annotated are put at (0, 0).
    """
    picked = np.where(indices >= 0, visibility[..., indices], 0).astype(np.uint8)
    points = np.where(picked[..., None] > 0, keypoints[..., indices, :], 0).astype(np.float32)
    return points, picked


@dataclasses.dataclass(frozen=True)
class PoseDataset:
    """The pictures of one split of one data set.

    Attributes:
      name: for messages and file names, such as `coco/val2017`.
      skeleton: the joint set of every picture's keypoints.
      pictures: in the order of the annotation file.
      annotations: the annotation file itself, for protocols that evaluate on files.
    """

    name: str
    skeleton: Skeleton
    pictures: tuple[Picture, ...]
    annotations: pathlib.Path

    @property
    def num_people(self) -> int:
        return sum(len(picture.bboxes) for picture in self.pictures)
