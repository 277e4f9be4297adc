"""MOTA, IDF1 and HOTA by hand, against loops, and against the libraries of others."""

import math

import numpy as np
import pytest
import track_reference as reference

from rmpe_jax.evaluation.clear_mot import ClearCounts, FramePairs, count_clear
from rmpe_jax.evaluation.hota import THRESHOLDS, HotaCounts, count_hota
from rmpe_jax.evaluation.identity import FrameSimilarities, IdentityCounts, count_identities

SEEDS = range(40)


def clear_of(frames, threshold=0.5):
    def pairs(frame):
        costs = np.where(frame.similarities >= threshold, 1 - frame.similarities, np.inf)
        return FramePairs(frame.gt_ids, frame.ids, costs)

    return count_clear(map(pairs, frames))


def frames_of(*frames):
    """Frames from {person: (track, similarity)} and tracks of nobody."""
    made = []
    for pairs, *others in frames:
        tracks = [track for track, _ in pairs.values()]
        similar = np.zeros((len(pairs), len(tracks) + len(others)))
        similar[np.arange(len(pairs)), np.arange(len(pairs))] = [s for _, s in pairs.values()]
        made.append(FrameSimilarities(np.array([*pairs]), np.array([*tracks, *others]), similar))
    return made


def test_two_people_whose_tracks_are_swapped():
    before, after = {1: (1, 1.0), 2: (2, 1.0)}, {1: (2, 1.0), 2: (1, 1.0)}
    frames = frames_of((before,), (before,), (after,), (after,))
    assert clear_of(frames) == ClearCounts(people=8, matches=8, false_positives=0, switches=2)
    assert clear_of(frames).mota == 0.75
    assert count_identities(frames).idf1 == 0.5
    counts = count_hota(frames)
    assert counts.deta == 1
    assert counts.assa == pytest.approx(1 / 3)  # a pair is together in 2 of 4 + 4 - 2 frames
    assert counts.hota == pytest.approx(math.sqrt(1 / 3))


def test_a_miss_a_false_positive_and_a_switch_after_a_gap():
    frames = frames_of(({1: (5, 1.0)},), ({1: (5, 1.0)},), ({1: (7, 0.4)},), ({1: (6, 1.0)},))
    assert clear_of(frames) == ClearCounts(people=4, matches=3, false_positives=1, switches=1)
    assert clear_of(frames).mota == 0.25
    assert count_identities(frames) == IdentityCounts(true_positives=2, people=4, tracked=4)
    assert count_identities(frames).idf1 == 0.5
    counts = count_hota(frames)
    # Up to .4 everybody matches: tracks of 2, 1 and 1 of 4 frames. Above, 3 of 5 pairs are right.
    low, high = math.sqrt(1.5 / 4), math.sqrt(0.6 * 1.25 / 3)
    assert counts.hota == pytest.approx((8 * low + 11 * high) / 19)


def test_a_person_keeps_the_track_although_another_is_nearer():
    def frame(gt_ids, ids, costs):
        return FramePairs(np.array(gt_ids), np.array(ids), np.array(costs))

    frames = [frame([1], [8], [[0.3]]), frame([1], [8, 9], [[0.4, 0.0]])]
    assert count_clear(frames) == ClearCounts(people=2, matches=2, false_positives=1, switches=0)
    # Also after a frame in which the two could not match.
    frames.insert(1, frame([1], [8], [[np.inf]]))
    assert count_clear(frames) == ClearCounts(people=3, matches=2, false_positives=2, switches=0)


def test_as_many_as_possible_match():
    """The cheapest pair is not taken if it leaves somebody without a match."""
    costs = np.array([[0.0, 0.4], [0.4, np.inf]])
    frames = [FramePairs(np.array([1, 2]), np.array([1, 2]), costs)]
    assert count_clear(frames).matches == 2


def test_nobody():
    empty = FrameSimilarities(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 0)))
    for frames in ([], [empty, empty]):
        assert clear_of(frames) == ClearCounts()
        assert count_identities(frames) == IdentityCounts()
        scores = clear_of(frames).mota, count_identities(frames).idf1, count_hota(frames).hota
        assert np.isnan(scores).all()


def test_nobody_is_found():
    frame = FrameSimilarities(np.array([3, 4]), np.zeros(0, int), np.zeros((2, 0)))
    assert clear_of([frame]) == ClearCounts(people=2)
    assert (clear_of([frame]).mota, count_identities([frame]).idf1) == (0, 0)
    assert count_hota([frame]).hota == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_loops(seed):
    frames = reference.random_video(seed)
    assert clear_of(frames) == reference.clear(frames)
    assert count_identities(frames).idf1 == pytest.approx(reference.idf1(frames))
    counts = count_hota(frames)
    expected = reference.hota(frames)
    assert (counts.hota, counts.deta, counts.assa) == pytest.approx(expected)


def test_videos_are_summed():
    videos = [reference.random_video(seed) for seed in range(3)]
    counts = [count_hota(frames) for frames in videos]
    total = HotaCounts(*map(sum, zip(*counts, strict=True)))
    matches = np.array([c.matches for c in counts])
    weighted = sum(c.by_threshold[1] * c.matches for c in counts) / matches.sum(0)
    np.testing.assert_allclose(total.by_threshold[1], weighted)


def test_clear_equals_motmetrics():
    motmetrics = pytest.importorskip("motmetrics", reason="the package motmetrics is not installed")
    names = ["num_objects", "num_detections", "num_false_positives", "num_switches", "mota"]
    for seed in SEEDS:
        frames = reference.random_video(seed, num_frames=20, most=6)
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for gt_ids, ids, similar in frames:
            accumulator.update(gt_ids, ids, np.where(similar >= 0.5, 1 - similar, np.nan))
        theirs = motmetrics.metrics.create().compute(
            accumulator, metrics=names, return_dataframe=False
        )
        *counts, mota = (theirs[name] for name in names)
        assert clear_of(frames) == tuple(counts)
        assert clear_of(frames).mota == pytest.approx(mota)


def test_idf1_and_hota_equal_trackeval():
    trackeval = pytest.importorskip("trackeval", reason="the package trackeval is not installed")
    np.testing.assert_allclose(THRESHOLDS, trackeval.metrics.HOTA().array_labels)
    for seed in SEEDS:
        frames = reference.random_video(seed, num_frames=20, most=6)
        data = {
            "num_timesteps": len(frames),
            "num_gt_ids": 7,
            "num_tracker_ids": 9,
            "num_gt_dets": sum(len(frame.gt_ids) for frame in frames),
            "num_tracker_dets": sum(len(frame.ids) for frame in frames),
            "gt_ids": [frame.gt_ids for frame in frames],
            "tracker_ids": [frame.ids for frame in frames],
            "similarity_scores": [frame.similarities for frame in frames],
        }
        identity = trackeval.metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(data)
        assert count_identities(frames).idf1 == pytest.approx(identity["IDF1"])
        theirs, ours = trackeval.metrics.HOTA().eval_sequence(data), count_hota(frames)
        np.testing.assert_allclose(ours.by_threshold, [theirs["DetA"], theirs["AssA"]])
        assert ours.hota == pytest.approx(theirs["HOTA"].mean())
