"""Similarity of expected and found people against OKS, numerical means and IoU."""

import numpy as np
import pytest
from walkers import SIGMAS, K, people_at

from rmpe_jax.ops.geometry import box_area, box_iou
from rmpe_jax.ops.oks import oks
from rmpe_jax.tracking.similarity import expected_oks, similarity


@pytest.fixture
def poses():
    rng = np.random.default_rng(0)
    expected = people_at(rng.uniform(0, 30, (3, 2)))
    found = people_at(rng.uniform(0, 30, (4, 2)))
    return expected, found


def test_without_variance_it_is_the_oks(poses):
    expected, found = poses
    sure = np.random.default_rng(1).uniform(size=(3, K)) < 0.6
    area = box_area(expected.bboxes)
    counted = np.repeat(sure[:, None], 4, 1)
    value = expected_oks(
        expected.keypoints, np.zeros((3, K)), found.keypoints, counted, area, SIGMAS
    )
    by_oks = oks(found.keypoints, expected.keypoints, sure.astype(int), area, SIGMAS)
    np.testing.assert_allclose(value, by_oks.T, rtol=1e-5)
    assert value.max() > 0.1


def test_with_variance_it_is_the_mean_oks(poses):
    expected, found = poses
    rng = np.random.default_rng(2)
    variance = rng.uniform(1, 40, (3, K))
    area = box_area(expected.bboxes)
    counted = np.ones((3, 4, K), bool)
    value = expected_oks(expected.keypoints, variance, found.keypoints, counted, area, SIGMAS)
    noise = rng.normal(size=(20000, 3, K, 2)) * np.sqrt(variance)[..., None]
    drawn = expected.keypoints + noise
    sampled = oks(
        np.broadcast_to(found.keypoints, (20000, 4, K, 2)), drawn, np.ones((20000, 3, K)),
        np.broadcast_to(area, (20000, 3)), SIGMAS,
    ).mean(0)  # fmt: skip
    np.testing.assert_allclose(value, sampled.T, atol=0.005)
    assert value.max() > 0.1


def test_boxes_decide_where_few_joints_are_sure_in_both(poses):
    expected, found = poses
    sure = np.ones((3, K), bool)
    sure[1, 3:] = False
    found_sure = np.ones((4, K), bool)
    found_sure[2, 3:] = False
    zeros = np.zeros((3, K))
    args = (expected.keypoints, zeros, sure, expected.bboxes)
    value = similarity(*args, found.keypoints, found_sure, found.bboxes, SIGMAS, 4)
    by_box = box_iou(expected.bboxes, found.bboxes)
    np.testing.assert_array_equal(value[1], by_box[1])
    np.testing.assert_array_equal(value[:, 2], by_box[:, 2])
    with_three = similarity(*args, found.keypoints, found_sure, found.bboxes, SIGMAS, 3)
    assert (with_three[1] != by_box[1]).any()
    np.testing.assert_array_equal(value[0, :2], with_three[0, :2])


def test_a_skeleton_with_few_joints_needs_all_of_them(poses):
    expected, found = poses
    args = (expected.keypoints[:, :2], np.zeros((3, 2)), np.ones((3, 2), bool), expected.bboxes)
    args += (found.keypoints[:, :2], np.ones((4, 2), bool), found.bboxes, SIGMAS[:2])
    np.testing.assert_array_equal(similarity(*args, 4), similarity(*args, 2))
