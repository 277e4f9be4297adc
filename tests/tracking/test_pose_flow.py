"""PoseFlow on clips whose right answer is known, and its parts against exhaustive search."""

import itertools

import numpy as np
import pytest
import walkers
from walkers import SIGMAS, line, people_at, permuted

from rmpe_jax.errors import UserError
from rmpe_jax.tracking import Detections, FlowParams, track_by_pose_flow
from rmpe_jax.tracking.pose_flow import _best_flow, _flow_nms, _gains, _stitch

PARAMS = FlowParams(window=20, max_gap=3)


def track(detections, params=PARAMS):
    return track_by_pose_flow(detections, SIGMAS, params)


def crossing(num_frames=40):
    return np.stack(
        [line((100, 100), (6, 0), num_frames), line((340, 130), (-6, 0), num_frames)], 1
    )


def test_two_people_cross():
    ids = track(people_at(crossing()))
    assert (ids == ids[0]).all()
    assert sorted(ids[0]) == [1, 2]


@pytest.mark.parametrize(("gap", "same"), [(3, True), (4, False)])
def test_gaps_up_to_the_limit(gap, same):
    present = np.ones((40, 2), bool)
    present[10 : 10 + gap, 0] = False
    ids = track(
        people_at(line((100, 100), (3, 0), 40)[:, None] + [[0, 0], [200, 0]], present=present)
    )
    assert (ids[~present] == -1).all()
    assert len(set(ids[:, 1])) == 1
    assert (ids[9, 0] == ids[10 + gap, 0]) == same
    assert len(set(ids[present])) == (2 if same else 3)


def test_identities_continue_over_windows():
    ids = track(people_at(crossing(75)), PARAMS._replace(window=10))
    assert (ids == ids[0]).all()


def double():
    """Someone who is found twice, a pixel apart."""
    return np.stack([line((100, 100), (4, 0), 12), line((101, 101), (4, 0), 12)], 1)


def test_the_double_of_a_person_gets_no_id():
    centers = double()
    ids = track(people_at(centers, scores=[0.9, 0.5]))
    np.testing.assert_array_equal(ids, np.tile([1, -1], (12, 1)))


def test_a_double_fills_the_frames_in_which_the_person_is_missed():
    centers = double()
    present = np.ones((12, 2), bool)
    present[5:8, 0] = False
    ids = track(people_at(centers, scores=[0.9, 0.5], present=present))
    np.testing.assert_array_equal(ids, [[1, -1]] * 5 + [[-1, 1]] * 3 + [[1, -1]] * 4)


def test_people_with_low_scores_get_no_id():
    ids = track(
        people_at(np.tile([[[100.0, 100.0], [300.0, 100.0]]], (5, 1, 1)), scores=[0.9, 0.1])
    )
    np.testing.assert_array_equal(ids, np.tile([1, -1], (5, 1)))


def test_uncertain_poses_are_linked_by_their_boxes():
    found = people_at(np.tile([[[100.0, 100.0], [160.0, 100.0]]], (8, 1, 1)), scores=[0.9, 0.8])
    order = np.where(np.arange(8)[:, None] % 2 == 0, [0, 1], [1, 0])
    swapped = permuted(found, order)._replace(bboxes=found.bboxes)
    np.testing.assert_array_equal(track(swapped), order + 1)
    low = np.full_like(found.keypoint_scores, 0.1)
    ids = track(swapped._replace(keypoint_scores=low))
    assert (ids == ids[0]).all()
    assert sorted(ids[0]) == [1, 2]


def test_a_flow_maximizes_confidence_times_similarity():
    """The dynamic programme against all flows."""
    rng = np.random.default_rng(0)
    for _ in range(15):
        scores = rng.uniform(0.2, 1, (4, 2)) * (rng.uniform(size=(4, 2)) > 0.2)
        later = rng.uniform(0, 1, (2, 4, 2, 2))
        if not scores.any():
            continue
        found = _best_flow(np.where(scores > 0, scores, -np.inf), _gains(scores, later, 0.3))
        flows = [np.array(flow) for flow in itertools.product([-1, 0, 1], repeat=4)]
        best = max(flow_value(flow, scores, later) for flow in flows)
        np.testing.assert_allclose(flow_value(found, scores, later), best)


def flow_value(flow, scores, later):
    """The sum of confidences of a flow, -inf if it cannot be."""
    frames = np.flatnonzero(flow >= 0)
    if not len(frames) or (scores[frames, flow[frames]] == 0).any():
        return -np.inf
    value = scores[frames[0], flow[frames[0]]]
    for a, b in itertools.pairwise(frames):
        if b - a > len(later):
            return -np.inf
        linked = later[b - a - 1, a, flow[a], flow[b]]
        if linked < 0.3:
            return -np.inf
        value += linked * scores[b, flow[b]]
    return value


def test_flow_nms_takes_the_median_of_the_common_frames():
    flows = [np.array([0, 0, 0, -1]), np.array([1, 1, 1, 1])]
    scores = np.full((4, 2), 0.5)
    same = np.tile(np.eye(2), (4, 1, 1))
    same[:, 0, 1] = same[:, 1, 0] = [0.9, 0.9, 0.1, 0.0]
    # The longer flow has the higher sum and stays; in each frame it has a person already.
    kept = _flow_nms(flows, scores, same, PARAMS)
    np.testing.assert_array_equal(kept, [[1, 1, 1, 1]])
    same[1, 0, 1] = same[1, 1, 0] = 0.1
    kept = _flow_nms(flows, scores, same, PARAMS)
    np.testing.assert_array_equal(kept, [[1, 1, 1, 1], [0, 0, 0, -1]])


def test_stitching_follows_the_most_shared_people():
    ids = np.array([[1, 2], [1, 2], [2, 1], [-1, -1]], np.int32)
    flows = [np.array([0, 0, 0, 0]), np.array([1, 1, 1, 1])]
    next_id = _stitch(ids, flows, 3)
    np.testing.assert_array_equal(ids, [[1, 2], [1, 2], [2, 1], [1, 2]])
    assert next_id == 3


def test_ids_are_unique_in_a_frame_and_never_used_twice():
    detections = walkers.crowd(3, num_frames=60, miss=0.4)
    ids = track(detections, PARAMS._replace(window=8))
    numbers = ids[ids >= 0]
    assert set(numbers) == set(range(1, numbers.max() + 1))
    for one in set(numbers):
        frames = np.flatnonzero((ids == one).any(1))
        assert np.diff(frames).max(initial=1) <= PARAMS.max_gap + 1
        assert ((ids == one).sum(1) <= 1).all()
    assert (ids[~detections.valid] == -1).all()


def test_order_of_people_does_not_matter():
    """Up to the names of the identities."""
    clip = walkers.crowd(0)
    rng = np.random.default_rng(5)
    order = np.array([rng.permutation(clip.valid.shape[1]) for _ in clip.valid])
    expected = np.take_along_axis(track(clip), order, 1)
    found = track(permuted(clip, order))
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(set(found.ravel().tolist())) == len(set(expected.ravel().tolist()))


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (1, 1), (5, 2)])
def test_nobody(shape):
    nobody = people_at(np.zeros((*shape, 2)), present=False)
    np.testing.assert_array_equal(track(nobody), np.full(shape, -1))


def test_values_that_are_not_finite():
    found = people_at(np.tile([[[100.0, 100.0], [300.0, 100.0]]], (6, 1, 1)))
    keypoints, bboxes = found.keypoints.copy(), found.bboxes.copy()
    keypoints[:, 0, 3:9] = np.nan
    bboxes[4, 1, 2] = np.inf
    ids = track(Detections(keypoints, found.keypoint_scores, bboxes, found.scores, found.valid))
    np.testing.assert_array_equal(ids, [[1, 2]] * 4 + [[1, -1], [1, 2]])


def test_the_window_has_two_frames_or_more():
    with pytest.raises(UserError, match="window is 1: use 2 frames or more"):
        track(people_at(np.zeros((3, 1, 2))), PARAMS._replace(window=1))
