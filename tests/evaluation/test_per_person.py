"""Each annotated person's best pose."""

import numpy as np
import pytest

from rmpe_jax.evaluation.boxes import DatasetBoxes, load_boxes
from rmpe_jax.evaluation.per_person import score_people
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.skeletons import COCO


@pytest.fixture
def dataset(make_dataset):
    """Two people in the first image, none in the second, one in the third."""
    rng = np.random.default_rng(0)
    people = rng.uniform(0, 100, (3, 17, 2))
    return make_dataset(COCO, [people[:2], people[:0], people[2:]])


def poses_of(dataset):
    return np.concatenate([p.keypoints for p in dataset.images]).astype(np.float64)


def best_poses(dataset, boxes, poses):
    scores = np.ones(poses.shape[:2])
    return score_people(PosePredictions(dataset, boxes, poses, scores, COCO))


def detections(image_index):
    n = len(image_index)
    return DatasetBoxes(np.array(image_index), np.zeros((n, 4)), np.ones(n), np.full(n, -1))


def test_own_box_counts_with_ground_truth_boxes(dataset):
    boxes = load_boxes(dataset, "gt")
    poses = poses_of(dataset)
    people = best_poses(dataset, boxes, poses)
    np.testing.assert_allclose(people.oks, 1)
    np.testing.assert_array_equal(people.box_index, [0, 1, 2])
    np.testing.assert_array_equal(people.image_index, [0, 0, 2])
    np.testing.assert_array_equal(people.person_index, [0, 1, 0])
    swapped = best_poses(dataset, boxes, poses[[1, 0, 2]])
    assert (swapped.oks[:2] < 0.5).all()
    np.testing.assert_array_equal(swapped.box_index, [0, 1, 2])


def test_most_similar_pose_counts_with_a_detector(dataset):
    poses = poses_of(dataset)
    offered = np.stack([poses[2], poses[1], poses[0] + 3, poses[0] + 1])
    people = best_poses(dataset, detections([0, 0, 0, 0]), offered)
    np.testing.assert_array_equal(people.box_index, [3, 1, -1])
    assert people.oks[0] < people.oks[1] == pytest.approx(1)
    assert people.oks[2] == 0


def test_nan_does_not_match(dataset):
    poses = poses_of(dataset)
    poses[1] = np.nan
    people = best_poses(dataset, load_boxes(dataset, "gt"), poses)
    np.testing.assert_allclose(people.oks, [1, 0, 1])
