"""The trackers that ours is compared with, and the comparison itself."""

import json

import numpy as np
import pytest

from rmpe_jax.data.synthetic.motion import make_clip
from rmpe_jax.experiments import compare_smoothing, compare_trackers
from rmpe_jax.experiments.box_trackers import (
    MAX_MISSED,
    track_by_byte_track,
    track_by_greedy_iou,
)

BOTH = pytest.mark.parametrize("track", [track_by_greedy_iou, track_by_byte_track])


def walk(*speeds, num_frames=12, height=100.0):
    """Boxes of people 200 pixels apart vertically, who start at x = 0 with these speeds."""
    x = np.arange(num_frames)[:, None] * np.array(speeds, float)
    low = np.stack([x, np.broadcast_to(200.0 * np.arange(len(speeds)), x.shape)], -1)
    bboxes = np.concatenate([low, low + np.array([40.0, height])], -1)
    return bboxes, np.full(x.shape, 0.9), np.ones(x.shape, bool)


@BOTH
def test_people_who_walk_keep_their_ids(track):
    ids = track(*walk(5, -3, 0))
    np.testing.assert_array_equal(ids, np.tile([1, 2, 3], (12, 1)))


@BOTH
def test_order_and_padding_of_boxes_do_not_matter(track):
    bboxes, scores, valid = walk(5, -3)
    bboxes = np.concatenate([bboxes, np.zeros_like(bboxes[:, :1])], 1)[:, [2, 1, 0]]
    bboxes[::2] = bboxes[::2, [0, 2, 1]]
    scores, valid = np.full((12, 3), 0.9), np.tile([False, True, True], (12, 1))
    ids = track(bboxes, scores, valid)
    assert (ids[:, 0] == -1).all()
    own = ids[0, 1]
    assert (ids[::2, 1] == own).all()
    assert (ids[1::2, 2] == own).all()


@BOTH
@pytest.mark.parametrize(("missed", "same"), [(MAX_MISSED, True), (MAX_MISSED + 1, False)])
def test_how_long_a_track_waits(track, missed, same):
    bboxes, scores, valid = walk(0, num_frames=missed + 12)
    valid[5 : 5 + missed] = False
    ids = track(bboxes, scores, valid)[:, 0]
    assert (ids[5 : 5 + missed] == -1).all()
    assert (ids[-1] == ids[0]) == same


def test_only_byte_track_predicts_motion():
    bboxes, scores, valid = walk(12, num_frames=20)
    valid[10:14] = False
    assert track_by_byte_track(bboxes, scores, valid)[-1, 0] == 1
    assert track_by_greedy_iou(bboxes, scores, valid)[-1, 0] == 2


def test_doubtful_boxes_continue_a_track_but_start_none():
    bboxes, scores, valid = walk(2, 2)
    scores[4:, 0] = 0.3  # somebody gets hidden
    scores[:, 1] = 0.3
    ids = track_by_byte_track(bboxes, scores, valid)
    assert (ids[:, 0] == 1).all()
    assert (ids[:, 1] == -1).all()
    greedy = track_by_greedy_iou(bboxes, scores, valid)
    assert (greedy[4:] == -1).all()


def test_a_track_of_byte_track_counts_from_its_second_frame():
    bboxes, scores, valid = walk(0, 0)
    valid[:6, 1] = False
    ids = track_by_byte_track(bboxes, scores, valid)[:, 1]
    assert ids[:7].tolist() == [-1] * 7
    assert (ids[7:] == 2).all()
    valid[7, 1] = False  # missed in the second frame: another track starts
    ids = track_by_byte_track(bboxes, scores, valid)[:, 1]
    assert ids[:9].tolist() == [-1] * 9
    assert (ids[9:] == 3).all()


def test_annotated_ids_are_the_best_that_is_possible():
    clip = make_clip(0, 8)
    found = compare_trackers.find_poses(clip, 0)
    ids = compare_trackers.annotated_ids(clip, found)
    counts = compare_trackers.score_ids(clip, found, ids)
    assert counts.clear.switches == counts.clear.false_positives == 0
    assert counts.clear.matches == (ids > 0).sum()
    assert counts.identity.true_positives == counts.clear.matches
    shuffled = np.where(ids > 0, 1 + np.arange(ids.size).reshape(ids.shape), -1)
    worse = compare_trackers.score_ids(clip, found, shuffled)
    assert worse.clear.switches > 0
    assert worse.identity.idf1 < counts.identity.idf1


def test_intervals_hold_the_scores():
    clip = make_clip(0, 8)
    found = compare_trackers.find_poses(clip, 0)
    good = compare_trackers.score_ids(clip, found, compare_trackers.annotated_ids(clip, found))
    bad = compare_trackers.score_ids(clip, found, np.full(found.valid.shape, -1))
    scores = compare_trackers.summary([good, bad, good], [2, 3, 1])
    for value, low, high in scores.values():
        assert low <= value <= high
    assert scores["IDF1"][1] < scores["IDF1"][2]
    table = compare_trackers.comparison_table({"a": scores, "b": scores}).splitlines()
    assert len(table) == 4
    assert table[0].startswith("| | IDF1 | MOTA | HOTA |")


@pytest.mark.slow
@pytest.mark.parametrize("module", [compare_trackers, compare_smoothing])
def test_the_commands(module, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare", "--clips", "2", "--frames", "10"])
    assert module.main() == 0
    lines, _, table = capsys.readouterr().out.partition("\n\n")
    records = [json.loads(line) for line in lines.splitlines()]
    assert len(table.splitlines()) - 2 == sum("tracker" in r or "filter" in r for r in records)
