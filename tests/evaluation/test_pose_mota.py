"""PoseTrack's MOTA by hand, and what is left out of the scores of tracks."""

import numpy as np
import pytest

from rmpe_jax.data.tracks import TrackedFrame, TrackedPeople
from rmpe_jax.evaluation.pose_mota import COLUMNS, JOINTS, count_joints, pose_mota
from rmpe_jax.evaluation.tracks import add_counts, count_tracks, track_metrics
from rmpe_jax.skeletons import COCO, POSETRACK

POSE = np.stack([np.arange(17) % 4 * 30, np.arange(17) // 4 * 50], -1).astype(float)
HEAD = 25.0  # half a head size of the people below, pixels


def people(ids=(1,), x=0.0, scores=1.0, skeleton=POSETRACK):
    """People 300 pixels apart, each with a head box of 50 x 66.67 pixels: head size 50."""
    n, k = len(ids), skeleton.num_keypoints
    offset = np.stack([300.0 * np.arange(n) + x, np.zeros(n)], -1)
    corner = np.array([0, 0, 50, 200 / 3])
    return TrackedPeople(
        POSE + offset[:, None],
        np.full((n, k), scores),
        np.tile(offset, 2) + np.array([-10, -10, 110, 220]),
        np.tile(offset, 2) + corner,
        np.array(ids, int),
    )


def moved(found, joint, distance):
    keypoints = found.keypoints.copy()
    keypoints[0, POSETRACK.index(joint), 0] += distance
    return found._replace(keypoints=keypoints)


def scores_of(truth, found, min_score=0.2, skeleton=POSETRACK):
    return pose_mota(count_joints(truth, found, skeleton, min_score))


def test_joints_and_columns():
    assert len(JOINTS) == 15
    assert sorted(joint for pair in COLUMNS.values() for joint in pair) == sorted(JOINTS)


@pytest.mark.parametrize(("distance", "wrist"), [(HEAD - 0.01, 100.0), (HEAD + 0.01, 0.0)])
def test_half_a_head_size(distance, wrist):
    """A joint too far away is a miss and a false positive: -100 % of one of the two wrists."""
    values = scores_of([people()], [moved(people((7,)), "left_wrist", distance)])
    assert list(values) == [*COLUMNS, "Total"]
    assert values["Wrist"] == pytest.approx(wrist)
    assert values["Head"] == values["Knee"] == 100
    assert values["Total"] == pytest.approx(100 if wrist else (14 * 100 - 100) / 15)


def test_a_switch_counts_for_every_joint():
    truth = [people()] * 4
    values = scores_of(truth, [people((7,)), people((7,)), people((8,)), people((8,))])
    assert set(values.values()) == {75.0}


def test_joints_with_low_scores_are_left_out():
    found = people((7,))
    found.keypoint_scores[0, POSETRACK.index("right_hip")] = 0.19
    assert scores_of([people()], [found])["Hip"] == 50
    assert scores_of([people()], [found], min_score=0.1)["Hip"] == 100


def test_joints_that_nobody_has_annotated_are_left_out_of_the_means():
    truth = people()
    truth.keypoint_scores[0, POSETRACK.index("nose")] = 0
    found = people((7,))
    found.keypoint_scores[0, POSETRACK.index("nose")] = 0
    found.keypoint_scores[0, POSETRACK.index("head_top")] = 0
    assert scores_of([truth], [found])["Head"] == 50
    values = scores_of([people(skeleton=COCO)], [people(skeleton=COCO)], skeleton=COCO)
    assert values["Head"] == 100  # the nose


def test_every_head_needs_a_size():
    truth = people((1, 2))
    truth.head_boxes[1] = np.nan
    assert count_joints([truth], [truth], POSETRACK, 0.2) is None
    assert np.isnan(list(pose_mota(None).values())).all()


def frames(*truth, **fields):
    return [TrackedFrame("a.jpg", each, **fields) for each in truth]


def counts(truth, found, **options):
    return count_tracks(truth, found, POSETRACK, **options)


def test_all_scores_of_perfect_tracks():
    count = counts(frames(people((1, 2)), people((1, 2))), [people((5, 3)), people((5, 3))])
    metrics = track_metrics(count)
    assert metrics.pop("switches") == 0
    assert list(metrics) == ["MOTA", "IDF1", "HOTA", "DetA", "AssA"]
    assert list(metrics.values()) == pytest.approx([100] * 5)
    assert set(pose_mota(count.joints).values()) == {100.0}


def test_what_does_not_count():
    """Frames that are not labeled, people without a track, and what ignored regions hold."""
    expected = counts(frames(people()), [people((5,))])
    unlabeled = frames(people((1, 2)), is_labeled=False)
    found = [people((5,)), people((8, 9), x=40)]
    same = [counts(frames(people()) + unlabeled, found)]
    same.append(counts(frames(people()), [people((5, -1))]))
    region = np.array([[280.0, -10], [500, -10], [500, 300], [280, 300]])
    ignored = frames(people((1, 2)), ignored=(region,))
    same.append(counts(ignored, [people((5, 6), x=1)]))
    for count in same[:2]:
        assert track_metrics(count) == track_metrics(expected)
        assert count.joints == expected.joints
    assert same[2].clear == expected.clear
    assert same[2].joints == expected.joints


def test_oks_is_of_the_joints_that_are_found():
    """A pose of a network without head top and neck is not similar to a lesser degree."""
    found = people((5,))
    for joint in ("head_top", "upper_neck"):
        found.keypoint_scores[:, POSETRACK.index(joint)] = 0
    found.keypoints[:, POSETRACK.index("head_top")] = np.nan
    count = counts(frames(people()), [found])
    assert count.hota.hota == 1
    assert pose_mota(count.joints)["Head"] == pytest.approx(100 / 3)


def test_similarities():
    """A shift by 40 of 120 pixels: IoU 80 / 160, OKS near 0."""
    truth, found = frames(people()), [people((5,), x=40.0)]
    assert counts(truth, found, similarity="iou").clear.matches == 1
    assert counts(truth, found, similarity="oks").clear.matches == 0


def test_sums_of_videos():
    good = counts(frames(people()), [people((5,))])
    bad = counts(frames(people()), [TrackedPeople.none(17)])
    both = add_counts([good, bad])
    assert track_metrics(both)["MOTA"] == 50
    assert pose_mota(both.joints)["Total"] == 50
    assert add_counts([good, bad._replace(joints=None)]).joints is None
