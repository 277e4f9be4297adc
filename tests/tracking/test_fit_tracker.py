"""Learning the tracker's parameters: all sets in one program, and the search."""

import jax
import jax.numpy as jnp
import numpy as np
import walkers
from walkers import SIGMAS, line, people_at

from rmpe_jax.tracking import TrackParams, track_video
from rmpe_jax.tracking.fit import PAIRS, RANGES, fit_tracker, stack_params, track_with_each

TRACKS = 8


def stacked(*videos):
    return jax.tree.map(lambda *values: np.stack(values), *videos)


def test_all_sets_together_are_what_each_gives_alone():
    videos = [walkers.crowd(seed, num_frames=12, num_people=4, miss=0.3) for seed in (0, 1)]
    sets = [
        TrackParams(),
        TrackParams(max_missed=0.0),
        TrackParams(sure_score=0.8, birth_score=0.85, min_similarity=0.7),
    ]
    together = np.asarray(track_with_each(stacked(*videos), SIGMAS, stack_params(sets), TRACKS))
    alone = [[track_video(video, SIGMAS, one, TRACKS) for video in videos] for one in sets]
    np.testing.assert_array_equal(together, alone)
    assert len({ids.tobytes() for ids in together}) == len(sets)


def test_every_searched_parameter_has_a_range_that_holds_the_default():
    assert {name for pair in PAIRS for name in pair} == set(RANGES)
    for name, (low, high) in RANGES.items():
        assert 0 < low < getattr(TrackParams(), name) < high


def test_the_search_learns_to_wait_and_whom_to_trust():
    """One is out of sight for 8 frames, one is never sure enough for the start."""
    centers = np.stack([line((50, 100), (4, 0), 24), np.full((24, 2), (500, 100))], 1)
    present = np.ones((24, 2), bool)
    present[10:18, 0] = False
    scores = np.full((24, 2), 0.9)
    scores[:, 1] = 0.2
    video = people_at(centers, scores=scores, present=present)

    def few_tracks_of_everybody(ids):
        tracked = (ids > 0)[:, present].mean()
        return tracked - 0.1 * ids.max()

    start = TrackParams(max_missed=2.0, min_joints=3.0)
    reported = []
    fit = fit_tracker(
        stacked(video),
        SIGMAS,
        few_tracks_of_everybody,
        start,
        steps=3,
        max_sweeps=2,
        max_tracks=TRACKS,
        report=reported.append,
    )
    before, after = (
        few_tracks_of_everybody(np.asarray(track_video(video, SIGMAS, params, TRACKS))[None])
        for params in (start, fit.params)
    )
    np.testing.assert_allclose([fit.start_score, fit.score], [before, after])
    assert fit.score == 1 - 0.1 * 2
    assert fit.start_score < 0.5
    assert fit.params.max_missed >= 8
    assert max(fit.params.sure_score, fit.params.birth_score) <= 0.3
    assert fit.params.min_joints == start.min_joints
    assert list(fit.searches) == reported
    assert all(isinstance(value, float) for value in fit.params)
    assert jnp.isfinite(jnp.array(fit.params)).all()
