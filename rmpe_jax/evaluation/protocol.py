"""From a network's poses on people's boxes to the metrics that fit the data set.

Shared by the training loop and `eval.py`: `boxes_of` says which boxes to run the network on,
`evaluate` scores what it found there.

With ground-truth boxes there is one box per annotated person who is no crowd and has a labelled
joint, with box score 1: what the literature reports as "AP with ground-truth boxes". With a
detector's boxes, every box of its file is a candidate.
"""

import dataclasses
import logging
import os

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.data.readers.whole_body import whole_body_truth
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.coco import coco_ap
from rmpe_jax.evaluation.mpii import mpii_map
from rmpe_jax.evaluation.mpii_people import mpii_ground_truth, mpii_predictions
from rmpe_jax.evaluation.nms import Nms, suppressed
from rmpe_jax.evaluation.pckh import head_sizes_from_keypoints, pckh
from rmpe_jax.evaluation.results import coco_results, load_detections
from rmpe_jax.evaluation.whole_body import whole_body_ap
from rmpe_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class PersonBoxes:
    """The boxes to look for a person in, over all pictures of a data set.

    Attributes:
      picture_index: (m,) index into `PoseDataset.pictures`, ascending.
      bboxes: (m, 4) float32 xyxy image pixels.
      scores: (m,) float32, the detector's; 1 for ground truth.
      person_index: (m,) index into the picture's people, -1 for a detector's box.
    """

    picture_index: Int[np.ndarray, " m"]
    bboxes: Float[np.ndarray, "m 4"]
    scores: Float[np.ndarray, " m"]
    person_index: Int[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.bboxes)


def boxes_of(
    dataset: PoseDataset, boxes: str | os.PathLike, skip_unknown: bool = False
) -> PersonBoxes:
    """The boxes to evaluate on: `"gt"`, or a detections file (see `results.load_detections`).

    Raises:
      UserError: the file cannot be used, or has boxes of pictures that `dataset` does not have
        (these are left out with `skip_unknown`).
    """
    if boxes == "gt":
        return _annotated_people(dataset)
    found = load_detections(boxes, dataset, skip_unknown)
    no_person = np.full(len(found.bboxes), -1)
    return PersonBoxes(found.picture_index, found.bboxes, found.scores, no_person)


def evaluate(
    dataset: PoseDataset,
    person_boxes: PersonBoxes,
    keypoints: Float[np.ndarray, "m j 2"],
    keypoint_scores: Float[np.ndarray, "m j"],
    model_skeleton: Skeleton,
    nms: Nms | None = None,
) -> tuple[dict[str, float], list[dict]]:
    """Metrics of the data set's own benchmark, and the poses in COCO's result form.

    COCO's joints are scored by `coco_ap` on the annotation file, MPII's and LSP's by `pckh` on the
    boxes of annotated people, MPII's on a detector's boxes by `mpii_map`.

    Args:
      keypoints: image pixels, one pose per box, in `model_skeleton`. A pose that is all NaN (its
        picture could not be read) is none: it gives no result and its person counts as missed.
      keypoint_scores: 0 to 1.
      model_skeleton: the network's joint set; it must have the data set's joints, as the union has.
      nms: what thins the results out before they are scored (see `nms.open_nms`). PCKh, which
        takes one pose of each person, is of the poses before it.

    Returns:
      The metrics, fractions for COCO and percent for MPII and LSP, and one result per pose in the
      data set's joint set.

    Raises:
      UserError: the network lacks joints of the data set, the data set has no protocol here, or
        PCKh is asked for on boxes that belong to nobody.
    """
    joints = model_joints(model_skeleton, dataset.skeleton)
    keypoints, keypoint_scores = keypoints[:, joints], keypoint_scores[:, joints]
    results = _results(dataset, person_boxes, keypoints, keypoint_scores)
    if nms is not None:
        image_ids = [picture.image_id for picture in dataset.pictures]
        results = suppressed(results, dataset.skeleton.num_keypoints, image_ids, nms)
    known_people = (person_boxes.person_index >= 0).all()
    if dataset.skeleton.name == "lsp" or (dataset.skeleton.name == "mpii" and known_people):
        return _pckh_of(dataset, person_boxes, keypoints), results
    return score_results(dataset, results), results


def score_results(dataset: PoseDataset, results: list[dict]) -> dict[str, float]:
    """The benchmark's metrics of several people in a picture: COCO's AP, or MPII's mAP.

    Of joint sets with feet, faces or hands, COCO's AP with their own sigmas, also by part.

    Args:
      results: COCO's result form in the data set's joint set, after NMS.

    Raises:
      UserError: the data set has no such benchmark here.
    """
    if dataset.skeleton.name == "coco":
        image_ids = [picture.image_id for picture in dataset.pictures]
        return coco_ap(dataset.annotations, results, image_ids=image_ids)
    if dataset.skeleton.part_sizes:
        truth = whole_body_truth(dataset.annotations, dataset.skeleton)
        image_ids = [picture.image_id for picture in dataset.pictures]
        return whole_body_ap(truth, results, dataset.skeleton, image_ids)
    if dataset.skeleton.name == "mpii":
        metrics = mpii_map(mpii_ground_truth(dataset), mpii_predictions(results))
        return {"mAP": metrics.pop("mAP")} | metrics
    raise UserError(
        f"{dataset.name}: no metric for {dataset.skeleton.name} joints: use COCO, MPII or LSP"
    )


def person_scores(
    keypoint_scores: Float[np.ndarray, "m k"],
    bbox_scores: Float[np.ndarray, " m"],
    threshold: float = 0.2,
) -> Float[np.ndarray, " m"]:
    """Score of a pose: box score times the mean of the joint scores above `threshold`.

    The rescoring of "Simple Baselines for Human Pose Estimation and Tracking" (Xiao et al., ECCV
    2018, its COCO evaluation), which most top-down results since then are reported with. A pose
    without any joint above the threshold scores 0.
    """
    sure = keypoint_scores > threshold
    total = np.where(sure, keypoint_scores, 0).sum(-1)
    return bbox_scores * total / np.maximum(sure.sum(-1), 1)


def _annotated_people(dataset: PoseDataset) -> PersonBoxes:
    people = [
        (i, person)
        for i, picture in enumerate(dataset.pictures)
        for person in np.flatnonzero(~picture.iscrowd & (picture.visibility > 0).any(-1))
    ]
    picture_index, person_index = np.array(people, np.int64).reshape(-1, 2).T
    bboxes = [dataset.pictures[i].bboxes[person] for i, person in people]
    bboxes = np.array(bboxes, np.float32).reshape(-1, 4)
    return PersonBoxes(picture_index, bboxes, np.ones(len(bboxes), np.float32), person_index)


def _results(
    dataset: PoseDataset,
    person_boxes: PersonBoxes,
    keypoints: np.ndarray,
    keypoint_scores: np.ndarray,
) -> list[dict]:
    found = ~np.isnan(keypoints).all((1, 2))
    if not found.all():
        missed = int(np.sum(~found))
        logging.getLogger(__name__).warning("%s: %d boxes have no pose", dataset.name, missed)
    scores = person_scores(keypoint_scores, person_boxes.scores)
    return coco_results(
        [dataset.pictures[i].image_id for i in person_boxes.picture_index[found]],
        keypoints[found],
        keypoint_scores[found],
        scores[found],
        person_boxes.bboxes[found],
        person_boxes.scores[found],
    )


def model_joints(model_skeleton: Skeleton, skeleton: Skeleton) -> Int[np.ndarray, " k"]:
    """For each joint of `skeleton` its index among the network's.

    Raises:
      UserError: the network lacks one.
    """
    indices = skeleton.indices_in(model_skeleton)
    if (indices < 0).any():
        missing = ", ".join(np.array(skeleton.joints)[indices < 0])
        raise UserError(
            f"a network with {model_skeleton.name} joints has no {missing}, which {skeleton.name} "
            "is evaluated on: evaluate on a data set of its own joints, or train on the union"
        )
    return indices


def _pckh_of(
    dataset: PoseDataset, person_boxes: PersonBoxes, keypoints: np.ndarray
) -> dict[str, float]:
    if (person_boxes.person_index < 0).any():
        raise UserError(
            f"{dataset.name}: PCKh needs to know which person a box belongs to: evaluate with "
            "the ground truth's boxes (gt)"
        )
    k = dataset.skeleton.num_keypoints
    people = list(zip(person_boxes.picture_index, person_boxes.person_index, strict=True))
    gt = np.array([dataset.pictures[i].keypoints[p] for i, p in people]).reshape(-1, k, 2)
    annotated = np.array([dataset.pictures[i].visibility[p] > 0 for i, p in people]).reshape(-1, k)
    head_sizes = np.array([dataset.pictures[i].head_sizes[p] for i, p in people])
    measured = head_sizes_from_keypoints(gt, annotated, dataset.skeleton)
    head_sizes = np.where(head_sizes > 0, head_sizes, measured)
    return pckh(keypoints, gt, annotated, head_sizes, skeleton=dataset.skeleton)
