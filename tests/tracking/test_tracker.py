"""The tracker on clips whose right answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import walkers
from walkers import SIGMAS, K, frame, line, people_at, permuted

from rmpe_jax.errors import UserError
from rmpe_jax.tracking import Detections, TrackParams, start_tracks, track_frame, track_video

# People with a score of .3 are doubtful in these clips.
PARAMS = TrackParams(sure_score=0.4, birth_score=0.5)
TRACKS = 8


def track(detections, params=PARAMS, max_tracks=TRACKS):
    return np.asarray(track_video(detections, SIGMAS, params, max_tracks=max_tracks))


def track_by_frames(detections, params=PARAMS, max_tracks=TRACKS):
    """The state after the last frame, and the ids of all."""
    state, ids = start_tracks(max_tracks, K), []
    for index in range(len(detections.valid)):
        state, found = track_frame(state, frame(detections, index), SIGMAS, params)
        ids.append(found)
    return state, np.array(ids)


def test_golden_clip():
    """One goes right; one comes late and goes left; one is doubtful first and then sure."""
    centers = np.stack([line((50, 100), (4, 0), 6), line((300, 100), (-4, 0), 6)], 1)
    centers = np.concatenate([centers, np.full((6, 1, 2), (500, 100))], 1)
    scores = np.full((6, 3), 0.9)
    scores[:, 2] = [0.3, 0.3, 0.9, 0.3, 0.3, 0.9]
    present = np.ones((6, 3), bool)
    present[:2, 1] = False
    present[4, 0] = False
    ids = track(people_at(centers, scores=scores, present=present))
    expected = [[1, -1, -1], [1, -1, -1], [1, 2, 3], [1, 2, 3], [-1, 2, 3], [1, 2, 3]]
    np.testing.assert_array_equal(ids, expected)


def test_two_people_cross():
    centers = np.stack([line((100, 100), (6, 0), 40), line((340, 104), (-6, 0), 40)], 1)
    ids = track(people_at(centers))
    np.testing.assert_array_equal(ids, np.tile([1, 2], (40, 1)))


def test_two_people_cross_and_one_is_hidden_meanwhile():
    centers = np.stack([line((100, 100), (6, 0), 40), line((340, 104), (-6, 0), 40)], 1)
    present = np.ones((40, 2), bool)
    present[17:24, 1] = False
    ids = track(people_at(centers, present=present))
    np.testing.assert_array_equal(ids, np.where(present, [1, 2], -1))


def test_a_miss_of_three_frames():
    present = np.ones((20, 1), bool)
    present[8:11] = False
    ids = track(people_at(line((100, 100), (5, 2), 20)[:, None], present=present))
    np.testing.assert_array_equal(ids, np.where(present, 1, -1))


def test_doubtful_people_keep_a_track_but_start_none():
    centers = np.tile([[[100.0, 100.0], [300.0, 100.0]]], (6, 1, 1))
    scores = np.array([[0.9, 0.3]] * 2 + [[0.3, 0.3]] * 3 + [[0.9, 0.05]])
    ids = track(people_at(centers, scores=scores))
    np.testing.assert_array_equal(ids, [[1, -1]] * 6)


def test_sure_people_come_before_doubtful_ones():
    """A doubtful person fits the track better than the sure one, who still takes it."""
    centers = np.array([[[100.0, 100.0], [0.0, 0.0]], [[103.0, 100.0], [100.0, 100.0]]])
    scores = np.array([[0.9, 0.9], [0.9, 0.3]])
    present = np.array([[True, False], [True, True]])
    ids = track(people_at(centers, scores=scores, present=present))
    np.testing.assert_array_equal(ids, [[1, -1], [1, -1]])


def test_a_lost_track_takes_no_doubtful_person():
    centers = np.tile([[[100.0, 100.0]]], (6, 1, 1))
    present = np.array([[True], [True], [True], [False], [True], [True]])
    scores = np.array([[0.9], [0.9], [0.9], [0.9], [0.3], [0.9]])
    ids = track(people_at(centers, scores=scores, present=present))
    np.testing.assert_array_equal(ids[:, 0], [1, 1, 1, -1, -1, 1])


@pytest.mark.parametrize(("gap", "same"), [(8, True), (9, False)])
def test_reentry_within_and_beyond_the_limit(gap, same):
    present = np.ones((30, 1), bool)
    present[10 : 10 + gap] = False
    centers = line((100, 100), (4, 1), 30)[:, None]
    params = PARAMS._replace(max_missed=8)
    ids = track(people_at(centers, present=present), params)[:, 0]
    assert (ids[:10] == 1).all()
    assert (ids[10 + gap :] == (1 if same else 2)).all()


def test_reentry_by_the_motion_of_the_box():
    """The pose has changed, so its OKS is low, and the box is where it is expected."""
    present = np.ones((24, 1), bool)
    present[10:20] = False
    found = people_at(line((100, 100), (4, 0), 24)[:, None], present=present)
    mirrored = found.bboxes[..., None, 1::2].sum(-1, keepdims=True) - found.keypoints[..., 1:]
    changed = np.concatenate([found.keypoints[..., :1], mirrored], -1)
    late = np.arange(24)[:, None, None, None] >= 20
    found = found._replace(keypoints=np.where(late, changed, found.keypoints))
    params = PARAMS._replace(min_similarity=0.5)
    np.testing.assert_array_equal(track(found, params), np.where(present, 1, -1))
    ids = track(found, params._replace(motion_gate=1e-6))[:, 0]
    np.testing.assert_array_equal(ids, [1] * 10 + [-1] * 10 + [2] * 4)


def test_a_person_elsewhere_is_another_one():
    present = np.ones((20, 1), bool)
    present[10:13] = False
    centers = line((100, 100), (4, 0), 20)[:, None].copy()
    centers[13:] += [0, 300]
    ids = track(people_at(centers, present=present))[:, 0]
    np.testing.assert_array_equal(ids, [1] * 10 + [-1] * 3 + [2] * 7)


def test_uncertain_poses_are_associated_by_their_boxes():
    """Two people beside each other whose joints are wrong and have low scores."""
    found = people_at(np.tile([[[100.0, 100.0], [160.0, 100.0]]], (8, 1, 1)))
    swapped = found.keypoints[:, ::-1]
    low = np.full_like(found.keypoint_scores, 0.1)
    low[..., :3] = 0.9  # fewer joints than needed
    ids = track(found._replace(keypoints=swapped, keypoint_scores=low))
    np.testing.assert_array_equal(ids, np.tile([1, 2], (8, 1)))
    # With sure joints the poses decide: the same boxes change places with the poses.
    order = np.where(np.arange(8)[:, None] % 2 == 0, [0, 1], [1, 0])
    ids = track(found._replace(keypoints=permuted(found, order).keypoints))
    np.testing.assert_array_equal(ids, order + 1)


def test_ids_are_never_used_twice():
    detections = walkers.crowd(3, num_frames=60, miss=0.5)
    params = PARAMS._replace(max_missed=1)
    state, ids = track_by_frames(detections, params)
    numbers = ids[ids >= 0]
    assert numbers.min() == 1
    assert len(set(numbers)) == numbers.max() == state.next_id - 1 > 20
    for one in set(numbers):
        frames = np.flatnonzero((ids == one).any(1))
        assert np.diff(frames).max(initial=1) <= 2  # a track that has ended does not return
        assert ((ids == one).sum(1) <= 1).all()


def test_more_people_than_tracks_are_counted():
    centers = np.tile([[[100.0 * i, 100.0] for i in range(5)]], (3, 1, 1))
    scores = np.array([0.7, 0.95, 0.8, 0.9, 0.3])  # the last is doubtful
    state, ids = track_by_frames(people_at(centers, scores=scores), max_tracks=3)
    np.testing.assert_array_equal(ids, [[-1, 1, 3, 2, -1]] * 3)
    assert state.num_without_room == 3
    state, ids = track_by_frames(people_at(centers, scores=scores), max_tracks=4)
    assert state.num_without_room == 0


def test_a_lost_track_gives_way_to_a_person_in_sight():
    centers = np.tile([[[100.0, 100.0], [300.0, 100.0], [500.0, 100.0]]], (8, 1, 1))
    present = np.ones((8, 3), bool)
    present[3:, 0] = False
    present[4:, 1] = False
    present[:6, 2] = False
    state, ids = track_by_frames(people_at(centers, present=present), max_tracks=2)
    np.testing.assert_array_equal(ids[6:], [[-1, -1, 3]] * 2)
    np.testing.assert_array_equal(sorted(state.ids.tolist()), [2, 3])  # 1 was lost for longer
    assert state.num_without_room == 0


def test_values_that_are_not_finite():
    found = people_at(np.tile([[[100.0, 100.0], [300.0, 100.0]]], (6, 1, 1)))
    keypoints, bboxes, scores = (v.copy() for v in (found.keypoints, found.bboxes, found.scores))
    keypoints[:, 0, 3:9] = np.nan
    keypoints[2, 0, 10] = np.inf
    keypoints[3, 1] = 1e30
    bboxes[4, 1, 2] = np.inf
    scores[5, 1] = np.nan
    found = found._replace(keypoints=keypoints, bboxes=bboxes, scores=scores)
    state, ids = track_by_frames(found)
    np.testing.assert_array_equal(ids, [[1, 2]] * 4 + [[1, -1]] * 2)
    for value in jax.tree.leaves(state):
        assert np.isfinite(value).all()


def test_boxes_without_area():
    found = people_at(np.full((5, 1, 2), 100.0), size=(0, 0))
    state, ids = track_by_frames(found)
    np.testing.assert_array_equal(ids, np.ones((5, 1)))
    assert np.isfinite(state.joints.position).all()


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_frames_without_people(rows):
    empty = Detections(
        np.full((rows, K, 2), np.nan, np.float32),
        np.full((rows, K), np.nan, np.float32),
        np.full((rows, 4), np.nan, np.float32),
        np.full(rows, np.nan, np.float32),
        np.zeros(rows, bool),
    )
    state = start_tracks(TRACKS, K)
    state, ids = track_frame(state, empty, SIGMAS, PARAMS)
    np.testing.assert_array_equal(ids, np.full(rows, -1))
    someone = frame(people_at(np.full((1, 1, 2), 100.0)), 0)
    for _ in range(2):
        state, ids = track_frame(state, someone, SIGMAS, PARAMS)
    for _ in range(3):
        state, _ = track_frame(state, empty, SIGMAS, PARAMS)
    state, ids = track_frame(state, someone, SIGMAS, PARAMS)
    np.testing.assert_array_equal(ids, [1])
    assert state.next_id == 2


def test_no_room():
    with pytest.raises(UserError, match="max_tracks of 1 or more"):
        start_tracks(0, K)


def test_joints_that_are_not_found_move_with_the_box():
    found = people_at(line((100, 100), (5, 0), 30)[:, None])
    scores = found.keypoint_scores.copy()
    scores[15:, 0, 9] = 0.1
    state, _ = track_by_frames(found._replace(keypoint_scores=scores))
    place = int(np.flatnonzero(state.ids)[0])
    # The filter of a joint lags behind a little; all of them lag alike.
    offset = np.asarray(state.joints.position[place]) - found.keypoints[-1, 0]
    np.testing.assert_allclose(offset, 0, atol=1)
    assert not state.joint_sure[place, 9]
    variance = state.joints.covariance[place, :, 0]
    assert variance[9] > 5 * variance[10]


def test_a_hidden_person_is_expected_where_the_joints_were_going():
    """Others hide more and more of the person, so the box shrinks from one side and ends early."""
    centers = line((100, 100), (4, 0), 30)[:, None]
    found = people_at(centers, present=np.arange(30)[:, None] < 20)
    bboxes = found.bboxes.copy()
    bboxes[12:20, :, 2] -= 4 * np.arange(8)[:, None]  # the right edge stays where it is
    state, _ = track_by_frames(found._replace(bboxes=bboxes))
    place = int(np.flatnonzero(state.ids)[0])
    expected = people_at(centers).keypoints[-1, 0]
    np.testing.assert_allclose(state.joints.position[place], expected, atol=2)


def test_lower_scores_are_more_uncertain():
    found = people_at(line((100, 100), (5, 0), 10)[:, None])
    scores = found.keypoint_scores.copy()
    scores[..., 9] = 0.35
    state, _ = track_by_frames(found._replace(keypoint_scores=scores))
    variance = state.joints.covariance[int(np.flatnonzero(state.ids)[0]), :, 0]
    assert variance[9] > 1.3 * variance[10]


@pytest.fixture(scope="module")
def clip():
    return walkers.crowd(0)


@pytest.fixture(scope="module")
def clip_ids(clip):
    ids = track(clip)
    # A clip in which something happens: misses, doubtful people, most of them tracked.
    assert (~clip.valid).sum() > 10
    assert 6 <= ids.max() <= 10
    return ids


def test_scan_equals_the_loop_of_frames(clip, clip_ids):
    np.testing.assert_array_equal(track_by_frames(clip)[1], clip_ids)


@pytest.mark.slow
def test_jit_equals_eager(clip, clip_ids):
    state, ids = start_tracks(TRACKS, K), []
    for index in range(2):
        state, found = track_frame.__wrapped__(state, frame(clip, index), SIGMAS, PARAMS)
        ids.append(found)
    np.testing.assert_array_equal(np.array(ids), clip_ids[:2])


def test_vmap_over_videos_equals_each_alone(clip, clip_ids):
    other = walkers.crowd(7)
    both = Detections(*(np.stack(values) for values in zip(clip, other, strict=True)))
    ids = jax.vmap(lambda one: track_video(one, SIGMAS, PARAMS, max_tracks=TRACKS))(
        jax.tree.map(jnp.asarray, both)
    )
    np.testing.assert_array_equal(ids[0], clip_ids)
    np.testing.assert_array_equal(ids[1], track(other))
    assert (ids[0] != ids[1]).any()


def test_vmap_over_parameters(clip, clip_ids):
    params = PARAMS._replace(min_similarity=jnp.array([PARAMS.min_similarity, 0.99]))
    axes = TrackParams(*(0 if name == "min_similarity" else None for name in TrackParams._fields))
    ids = jax.vmap(
        lambda params: track_video(clip, SIGMAS, params, max_tracks=TRACKS), in_axes=(axes,)
    )(params)
    np.testing.assert_array_equal(ids[0], clip_ids)


def test_order_of_people_does_not_matter(clip, clip_ids):
    rng = np.random.default_rng(5)
    order = np.array([rng.permutation(clip.valid.shape[1]) for _ in clip.valid])
    expected = np.take_along_axis(clip_ids, order, 1)
    np.testing.assert_array_equal(track(permuted(clip, order)), expected)


def test_padding_does_not_matter(clip, clip_ids):
    wider = Detections(
        *(np.concatenate([v, np.full_like(v[:, :3], np.nan)], 1) for v in clip[:4]),
        np.concatenate([clip.valid, np.zeros_like(clip.valid[:, :3])], 1),
    )
    ids = track(wider)
    np.testing.assert_array_equal(ids[:, :6], clip_ids)
    assert (ids[:, 6:] == -1).all()
