"""Drawing of people in the colors of their tracks, with numbers."""

import itertools

import numpy as np
from standing_person import GRAY, color_at, middle, standing

from rmpe_jax.skeletons import COCO
from rmpe_jax.visualize import draw_poses
from rmpe_jax.visualize.poses import track_color


def drawn_with(track_id, pose=None, scores=1.0):
    pose = standing() if pose is None else pose
    ids = None if track_id is None else np.array([track_id])
    return draw_poses(GRAY, pose[None], np.full((1, 17), scores), COCO, track_ids=ids)


def test_limbs_have_the_color_of_the_track():
    drawn = drawn_with(7)
    for side in ("left", "right"):
        thigh = middle(standing(), f"{side}_hip", f"{side}_knee")
        assert color_at(drawn, thigh) == track_color(7)
    faded = color_at(drawn_with(7, scores=0.4), middle(standing(), "left_hip", "left_knee"))
    assert faded != track_color(7)
    assert np.ptp(faded) < np.ptp(track_color(7))


def test_colors_of_ids_that_follow_each_other_differ():
    colors = [np.array(track_color(i)) for i in range(1, 40)]
    assert min(np.abs(a - b).max() for a, b in itertools.pairwise(colors)) > 100
    assert len({tuple(color.tolist()) for color in colors}) == len(colors)
    assert track_color(-1) == track_color(0)
    assert np.ptp(track_color(-1)) < 10  # gray


def changed_by_the_number(track_id, pose):
    """Where the number is; without one, people without a track are drawn."""
    without = draw_poses(GRAY, pose[None], np.ones((1, 17)), COCO, track_ids=np.array([-1]))
    with_number = draw_poses(
        GRAY, pose[None], np.ones((1, 17)), COCO, track_ids=np.array([track_id])
    )
    body = (without != GRAY).any(-1)
    return np.argwhere((with_number != GRAY).any(-1) & ~body)


def test_the_number_is_above_the_head_and_longer_for_more_digits():
    # Twenty pixels lower there is room above the head.
    pose = standing() + np.array([0, 20])
    digits = [changed_by_the_number(track_id, pose) for track_id in (5, 55555)]
    for points in digits:
        assert len(points) > 20
        assert points[:, 0].max() < pose[:, 1].min()
        assert abs(points[:, 1].mean() - 100) < 15
    assert np.ptp(digits[1][:, 1]) > 2.5 * np.ptp(digits[0][:, 1])


def test_the_number_stays_in_the_image():
    for shift in ([-90, -30], [95, -30]):
        points = changed_by_the_number(888, standing() + np.array(shift))
        assert len(points) > 40
        assert np.ptp(points[:, 1]) >= np.ptp(changed_by_the_number(888, standing())[:, 1]) - 2


def test_people_who_are_not_shown_have_no_number():
    np.testing.assert_array_equal(drawn_with(3, scores=0.1), GRAY)
