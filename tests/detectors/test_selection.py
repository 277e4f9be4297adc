"""Threshold, NMS and clipping, compared with a plain greedy NMS."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmpe_jax.detectors.selection import select_boxes

OPTIONS = {"score_threshold": 0.1, "nms_iou": 0.5, "max_boxes": 100}
SIZE = (100, 200)


def iou(a, b):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def greedy(bboxes, scores, threshold):
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if all(iou(bboxes[i], bboxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@given(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_it_agrees_with_plain_greedy_nms(seed, count, threshold):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, (count, 2))
    bboxes = np.concatenate([corners, corners + rng.uniform(20, 50, (count, 2))], -1)
    bboxes, scores = bboxes.astype(np.float32), rng.uniform(0.1, 1, count).astype(np.float32)
    found = select_boxes(bboxes, scores, SIZE, **OPTIONS | {"nms_iou": threshold})
    kept = greedy(bboxes.astype(np.float64), scores, threshold)
    np.testing.assert_array_equal(found.bboxes, bboxes[kept])
    np.testing.assert_array_equal(found.scores, scores[kept])


def test_scores_equal_to_the_threshold_pass():
    bboxes = np.float32([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]])
    scores = np.float32([0.0999, 0.1, 0.5])
    found = select_boxes(bboxes, scores, SIZE, **OPTIONS)
    np.testing.assert_array_equal(found.scores, scores[[2, 1]])


def test_boxes_are_clipped_after_nms():
    """The first two have an IoU of one half, and are equal inside the image."""
    bboxes = np.float32([[-30, 10, 30, 40], [0, 10, 30, 40], [150, 90, 250, 150]])
    found = select_boxes(bboxes, np.float32([0.9, 0.8, 0.7]), SIZE, **OPTIONS | {"nms_iou": 0.6})
    assert found.bboxes.tolist() == [[0, 10, 30, 40], [0, 10, 30, 40], [150, 90, 200, 100]]


@pytest.mark.parametrize(
    "bbox", [[5, 5, 5, 9], [9, 9, 5, 5], [-9, 0, 0, 9], [200, 0, 210, 9], [0, 100, 9, 120]]
)
def test_boxes_without_area_in_the_image_are_skipped(bbox):
    found = select_boxes(np.float32([bbox]), np.float32([0.9]), SIZE, **OPTIONS)
    assert found.bboxes.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.bboxes.dtype == found.scores.dtype == np.float32


def test_values_that_are_not_finite_are_skipped_and_logged(caplog):
    bboxes = np.tile(np.float32([0, 0, 9, 9]), (4, 1))
    bboxes[0, 2], bboxes[1, 0] = np.nan, np.inf
    scores = np.float32([0.9, 0.8, np.nan, 0.7])
    found = select_boxes(bboxes, scores, SIZE, **OPTIONS, name="a.jpg")
    np.testing.assert_array_equal(found.scores, scores[3:])
    assert "image a.jpg: 3 boxes of the detector are not finite" in caplog.text
    caplog.clear()
    select_boxes(bboxes[:2], np.float32([0.01, 0.02]), SIZE, **OPTIONS)
    assert caplog.text == ""  # below the threshold anyway


def test_the_maximum_number_of_boxes():
    corners = np.mgrid[:10, :10].reshape(2, -1).T * 10.0
    bboxes = np.concatenate([corners, corners + 9], -1).astype(np.float32)
    scores = np.linspace(0.2, 0.9, 100, dtype=np.float32)
    found = select_boxes(bboxes, scores, SIZE, **OPTIONS | {"max_boxes": 7})
    np.testing.assert_array_equal(found.scores, scores[:-8:-1])
