"""COCO annotations and results as padded arrays, for `ops.average_precision`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.evaluation.coco import Annotations, load_ground_truth
from rmpe_jax.evaluation.results import ImageId
from rmpe_jax.ops import geometry
from rmpe_jax.ops.average_precision import GroundTruth, ScoredPoses
from rmpe_jax.ops.padding import bucket_size, pad_people


def ground_truth_arrays(
    annotations: Annotations, num_keypoints: int, image_ids: Sequence[ImageId]
) -> GroundTruth:
    """Annotated people as arrays with axes (image, person, ...).

    Args:
      annotations: COCO keypoint ground truth, a file or its content.
      num_keypoints: of each person.
      image_ids: the images, in the order of the first axis; people of others are dropped.

    Raises:
      UserError: it is not COCO keypoint ground truth.
    """
    index_of = {image_id: i for i, image_id in enumerate(image_ids)}
    content = load_ground_truth(annotations, num_keypoints)
    people = [a for a in content["annotations"] if a["image_id"] in index_of]
    index = np.array([index_of[a["image_id"]] for a in people], np.int64)
    joints = _floats([a["keypoints"] for a in people], num_keypoints, 3)
    iscrowd = np.array([bool(a["iscrowd"]) for a in people], bool)
    unlabeled = np.array([a["num_keypoints"] == 0 for a in people], bool)
    columns = (
        joints[..., :2],
        joints[..., 2],
        geometry.xyxy_from_xywh(_floats([a["bbox"] for a in people], 4)),
        _floats([a["area"] for a in people]),
        iscrowd,
        iscrowd | unlabeled,
    )
    valid, padded = pad_people(index, len(image_ids), _people_per_image(index), *columns)
    return GroundTruth._make([*padded, valid])


def detection_arrays(
    results: Sequence[dict], num_keypoints: int, image_ids: Sequence[ImageId]
) -> ScoredPoses:
    """Results as arrays with axes (image, pose, ...).

    Args:
      results: records of COCO's result format.
      num_keypoints: of each pose.
      image_ids: the images, in the order of the first axis; results on others are dropped.
    """
    index_of = {image_id: i for i, image_id in enumerate(image_ids)}
    found = [r for r in results if r["image_id"] in index_of]
    index = np.array([index_of[r["image_id"]] for r in found], np.int64)
    keypoints = _floats([r["keypoints"] for r in found], num_keypoints, 3)[..., :2]
    boxes = [r.get("bbox") for r in found]
    # As in pycocotools: the area of a pose is that of its box, or of the extent of its joints.
    area = [
        box[2] * box[3] if box else np.prod(np.ptp(pose, 0))
        for box, pose in zip(boxes, keypoints, strict=True)
    ]
    columns = keypoints, _floats([r["score"] for r in found]), _floats(area)
    valid, padded = pad_people(index, len(image_ids), _people_per_image(index), *columns)
    return ScoredPoses._make([*padded, valid])


def _people_per_image(index: Int[np.ndarray, " n"]) -> int:
    return bucket_size(int(np.bincount(index).max(initial=0)))


def _floats(values: Sequence, *shape: int) -> Float[np.ndarray, "n *shape"]:
    # float64, for callers that compute in float64
    return np.array(values, np.float64).reshape(-1, *shape)
