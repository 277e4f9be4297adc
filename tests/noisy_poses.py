"""Random results like those of a network on a detector's boxes."""

import numpy as np

from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.ops import geometry


def noisy_results(ground_truth, detections, seed, noise=0.05):
    """A pose in every detected box: that of the annotated person it overlaps most, with noise.

    The noise grows as the overlap shrinks. A box without a person gets random joints. Joint scores
    fall with the joint's error, so that confidence is informative.
    """
    rng = np.random.default_rng(seed)
    people = {}
    for annotation in ground_truth["annotations"]:
        if not annotation["iscrowd"]:
            people.setdefault(annotation["image_id"], []).append(annotation)
    poses = [_pose(rng, d, people.get(d["image_id"], []), noise) for d in detections]
    keypoints, scores = (np.array(column) for column in zip(*poses, strict=True))
    bboxes = geometry.xyxy_from_xywh(np.array([d["bbox"] for d in detections], np.float64))
    bbox_scores = np.array([d["score"] for d in detections])
    image_ids = [d["image_id"] for d in detections]
    person_scores = bbox_scores * scores.mean(-1)
    return coco_results(image_ids, keypoints, scores, person_scores, bboxes, bbox_scores)


def _pose(rng, detection, people, noise):
    x, y, w, h = detection["bbox"]
    box = geometry.xyxy_from_xywh(np.array([[x, y, w, h]], np.float64))
    keypoints = rng.uniform([x, y], [x + w, y + h], (17, 2))
    scores = rng.uniform(0, 0.5, 17)
    if not people:
        return keypoints, scores
    bboxes = geometry.xyxy_from_xywh(np.array([p["bbox"] for p in people], np.float64))
    overlap = geometry.box_iou(box, bboxes)[0]
    person, iou = people[overlap.argmax()], overlap.max()
    joints = np.reshape(person["keypoints"], (-1, 3))
    labeled = joints[:, 2] > 0
    error = rng.normal(0, 1, (17, 2)) * noise * np.sqrt(person["area"]) * np.exp(2 * (0.8 - iou))
    found = labeled & (rng.uniform(size=17) < 2 * iou)
    keypoints = np.where(found[:, None], joints[:, :2] + error, keypoints)
    relative = np.linalg.norm(error, axis=-1) / np.sqrt(person["area"] + 1)
    scores = np.where(found, np.exp(-6 * relative) * rng.uniform(0.8, 1, 17), scores)
    return keypoints, scores
