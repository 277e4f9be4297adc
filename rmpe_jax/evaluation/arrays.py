"""COCO annotations and results as padded arrays, for `ops.average_precision`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.evaluation.coco import Annotations, load_ground_truth
from rmpe_jax.evaluation.results import ImageId
from rmpe_jax.ops.average_precision import GroundTruth, ScoredPoses
from rmpe_jax.ops.padding import bucket_size, pad_people
from rmpe_jax.skeletons import get_skeleton
from rmpe_jax.skeletons.skeleton import UNNAMED_PREFIX


def ground_truth_arrays(
    annotations: Annotations, num_keypoints: int, image_ids: Sequence[ImageId]
) -> GroundTruth:
    """Annotated people as arrays with axes (image, person, ...).

    Args:
      annotations: COCO keypoint ground truth, a file or its content, or a dataset. The joints of a
        file are in its order.
      num_keypoints: of each person.
      image_ids: the images, in the order of the first axis; people of others are dropped.

    Raises:
      UserError: it is not COCO keypoint ground truth of this number of joints.
    """
    dataset = load_ground_truth(annotations, get_skeleton(f"{UNNAMED_PREFIX}{num_keypoints}"))
    index_of = {image_id: i for i, image_id in enumerate(image_ids)}
    records = [record for record in dataset.images if record.image_id in index_of]
    counts = [len(record.bboxes) for record in records]
    index = np.repeat([index_of[record.image_id] for record in records], counts).astype(np.int64)
    visibility = _joined([r.visibility for r in records], num_keypoints)
    iscrowd = _joined([r.iscrowd for r in records]).astype(bool)
    columns = (
        _joined([r.keypoints for r in records], num_keypoints, 2),
        visibility,
        _joined([r.bboxes for r in records], 4),
        _joined([r.area for r in records]),
        iscrowd,
        iscrowd | ~visibility.any(-1),
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


def _joined(arrays: Sequence[np.ndarray], *shape: int) -> Float[np.ndarray, "n *shape"]:
    # float64, for callers that compute in float64
    return np.concatenate([np.zeros((0, *shape)), *arrays])


def _floats(values: Sequence, *shape: int) -> Float[np.ndarray, "n *shape"]:
    return np.array(values, np.float64).reshape(-1, *shape)
