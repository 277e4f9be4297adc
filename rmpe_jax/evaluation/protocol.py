"""Scores predicted poses by the metrics of the dataset's benchmark.

With ground-truth boxes there is one box with score 1 for each annotated person who is not a crowd
and has a labeled joint: the "AP with ground-truth boxes" of the literature. With a detector's
boxes, each box of the file gives a pose.
"""

import logging

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.coco import coco_ap
from rmpe_jax.evaluation.crowdpose import crowdpose_ap
from rmpe_jax.evaluation.mpii import mpii_map
from rmpe_jax.evaluation.mpii_people import mpii_ground_truth, mpii_predictions
from rmpe_jax.evaluation.nms import Nms, apply_nms
from rmpe_jax.evaluation.pckh import head_sizes_from_keypoints, pckh
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.evaluation.whole_body import whole_body_ap


def evaluate(
    predictions: PosePredictions, nms: Nms | None = None
) -> tuple[dict[str, float], list[dict]]:
    """Metrics of the dataset's own benchmark, and the poses in COCO's result format.

    COCO is scored by `coco_ap`, CrowdPose by `crowdpose_ap`, MPII and LSP by `pckh` on the boxes of
    annotated people, and MPII on a detector's boxes by `mpii_map`.

    Args:
      predictions: the network must have the joints of the dataset, as the union of all has. A
        pose that is all NaN gives no result, and its person counts as missed.
      nms: applied before the results are scored (see `nms.open_nms`). PCKh uses one pose per
        person and is computed before NMS.

    Returns:
      The metrics, fractions for COCO and percent for MPII and LSP, and one result per pose in the
      dataset's joint set.

    Raises:
      UserError: the network lacks joints of the dataset, there is no metric for the dataset's
        joints, or PCKh cannot be computed because the boxes are a detector's.
    """
    predictions = predictions.in_dataset_skeleton()
    dataset = predictions.dataset
    results = _results(predictions)
    if nms is not None:
        results = apply_nms(results, dataset.skeleton.num_keypoints, dataset.image_ids, nms)
    known_people = (predictions.boxes.person_index >= 0).all()
    if dataset.skeleton.name == "lsp" or (dataset.skeleton.name == "mpii" and known_people):
        return _pckh_of(predictions), results
    return score_results(dataset, results), results


def score_results(dataset: PoseDataset, results: list[dict]) -> dict[str, float]:
    """Metrics for several people per image: AP of COCO or CrowdPose, or MPII's mAP.

    MPII's `mAP` leaves out the people in images without any pose, as its toolkit does; `mAP_strict`
    counts them as missed.

    For joint sets with feet, faces or hands: COCO's AP with their own sigmas, also for each part.

    Args:
      dataset: the annotated images.
      results: in COCO's result format and the joint set of the dataset, after NMS.

    Raises:
      UserError: there is no such metric for the joints of the dataset.
    """
    if dataset.skeleton.name == "coco":
        return coco_ap(dataset, results)
    if dataset.skeleton.name == "crowdpose":
        return crowdpose_ap(dataset, results)
    if dataset.skeleton.part_sizes:
        return whole_body_ap(dataset, results, dataset.skeleton)
    if dataset.skeleton.name == "mpii":
        truth, poses = mpii_ground_truth(dataset), mpii_predictions(results)
        metrics = mpii_map(truth, poses)
        strict = mpii_map(truth, poses, count_unpredicted=True)
        return {"mAP": metrics.pop("mAP"), "mAP_strict": strict["mAP"]} | metrics
    raise UserError(
        f"{dataset.name}: no metric for {dataset.skeleton.name} joints: use COCO, CrowdPose, "
        "MPII or LSP"
    )


def person_scores(
    keypoint_scores: Float[np.ndarray, "m k"],
    bbox_scores: Float[np.ndarray, " m"],
    threshold: float = 0.2,
) -> Float[np.ndarray, " m"]:
    """Score of a pose: box score times the mean of the joint scores above `threshold`.

    The rescoring in the COCO evaluation of "Simple Baselines for Human Pose Estimation and
    Tracking" (Xiao et al., ECCV 2018), which most later top-down methods use. A pose without any
    joint above the threshold scores 0.
    """
    counted = keypoint_scores > threshold
    total = np.where(counted, keypoint_scores, 0).sum(-1)
    return bbox_scores * total / np.maximum(counted.sum(-1), 1)


def _results(predictions: PosePredictions) -> list[dict]:
    dataset, boxes = predictions.dataset, predictions.boxes
    found = ~np.isnan(predictions.keypoints).all((1, 2))
    if not found.all():
        missed = int(np.sum(~found))
        logging.getLogger(__name__).warning("%s: %d boxes have no pose", dataset.name, missed)
    scores = person_scores(predictions.keypoint_scores, boxes.scores)
    return coco_results(
        [dataset.images[i].image_id for i in boxes.image_index[found]],
        predictions.keypoints[found],
        predictions.keypoint_scores[found],
        scores[found],
        boxes.bboxes[found],
        boxes.scores[found],
    )


def _pckh_of(predictions: PosePredictions) -> dict[str, float]:
    dataset, boxes = predictions.dataset, predictions.boxes
    if (boxes.person_index < 0).any():
        raise UserError(
            f"{dataset.name}: PCKh needs the person of each box: evaluate with ground-truth boxes "
            "(gt)"
        )
    k = dataset.skeleton.num_keypoints
    people = list(zip(boxes.image_index, boxes.person_index, strict=True))
    gt = np.array([dataset.images[i].keypoints[p] for i, p in people]).reshape(-1, k, 2)
    annotated = np.array([dataset.images[i].visibility[p] > 0 for i, p in people]).reshape(-1, k)
    head_sizes = np.array([dataset.images[i].head_sizes[p] for i, p in people])
    measured = head_sizes_from_keypoints(gt, annotated, dataset.skeleton)
    head_sizes = np.where(head_sizes > 0, head_sizes, measured)
    return pckh(predictions.keypoints, gt, annotated, head_sizes, skeleton=dataset.skeleton)
