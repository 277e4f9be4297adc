"""Box NMS, OKS-NMS and soft OKS-NMS against plain loops."""

import functools

import jax
import numpy as np
import pytest
from scenes import random_scenes

from rmpe_jax.ops import geometry
from rmpe_jax.ops.oks import oks
from rmpe_jax.pose_nms.baselines import box_nms, oks_nms, soft_oks_nms
from rmpe_jax.skeletons import COCO


def greedy(ranks, overlap, threshold):
    remaining, kept = list(np.argsort(-ranks, kind="stable")), []
    while remaining:
        best = remaining[0]
        kept.append(best)
        remaining = [j for j in remaining[1:] if overlap[best, j] <= threshold]
    return sorted(kept)


def pairwise_oks(keypoints, bboxes):
    """At the mean area of the two boxes."""
    area = geometry.box_area(bboxes)
    visible = np.ones((len(area), COCO.num_keypoints))
    rows = [
        oks(keypoints[i : i + 1], keypoints, visible, (area[i] + area) / 2, COCO.sigmas)
        for i in range(len(area))
    ]
    return np.concatenate([np.zeros((0, len(area))), *rows])


def soften(scores, overlap, threshold):
    scores, waiting = scores.copy(), list(range(len(scores)))
    while waiting:
        best = max(waiting, key=lambda j: scores[j])
        waiting.remove(best)
        scores[waiting] *= np.exp(-(overlap[best, waiting] ** 2) / threshold)
    return scores


@pytest.fixture(scope="module")
def scenes():
    return random_scenes(3, 200)


def images(scenes, found):
    """For each image the valid candidates in float64, their indices and the result."""
    for i in range(len(scenes.valid)):
        index = np.flatnonzero(scenes.valid[i])
        values = [np.asarray(column[i], np.float64)[index] for column in scenes[:4]]
        yield index, values, jax.tree.map(lambda v, i=i: v[i], found)


@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_box_nms(scenes, threshold):
    nms = jax.jit(jax.vmap(box_nms, (0, None)))
    found = jax.device_get(nms(scenes, threshold))
    for index, (keypoints, scores, bboxes, bbox_scores), one in images(scenes, found):
        kept = index[greedy(bbox_scores, geometry.box_iou(bboxes, bboxes), threshold)]
        np.testing.assert_array_equal(np.flatnonzero(one.keep), kept)
        inside = np.isin(index, kept)
        np.testing.assert_array_equal(one.keypoints[kept], keypoints[inside])
        expected = bbox_scores[inside] * scores[inside].mean(-1)
        np.testing.assert_allclose(one.scores[kept], expected, atol=1e-6)
    assert 0.1 < found.keep[scenes.valid].mean() < 0.95


def test_oks_nms(scenes):
    nms = jax.jit(jax.vmap(functools.partial(oks_nms, sigmas=COCO.sigmas, threshold=0.7)))
    found = jax.device_get(nms(scenes))
    for index, (keypoints, scores, bboxes, bbox_scores), one in images(scenes, found):
        overlap = pairwise_oks(keypoints, bboxes)
        kept = index[greedy(bbox_scores * scores.mean(-1), overlap, 0.7)]
        np.testing.assert_array_equal(np.flatnonzero(one.keep), kept)
    assert 0.1 < found.keep[scenes.valid].mean() < 0.95


def test_soft_oks_nms(scenes):
    nms = jax.jit(jax.vmap(functools.partial(soft_oks_nms, sigmas=COCO.sigmas, threshold=0.5)))
    found = jax.device_get(nms(scenes))
    np.testing.assert_array_equal(found.keep, scenes.valid)
    for index, (keypoints, scores, bboxes, bbox_scores), one in images(scenes, found):
        before = bbox_scores * scores.mean(-1)
        expected = soften(before, pairwise_oks(keypoints, bboxes), 0.5)
        np.testing.assert_allclose(one.scores[index], expected, atol=1e-6)
        assert (one.scores[~np.isin(np.arange(10), index)] == 0).all()
