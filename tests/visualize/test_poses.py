"""Drawn poses: positions and colors."""

import numpy as np
import pytest
from standing_person import GRAY, color_at, middle, standing

from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, HALPE26, MPII, Skeleton
from rmpe_jax.visualize import draw_poses
from rmpe_jax.visualize import poses as drawing


def test_sides_have_their_colors_and_the_image_is_not_modified():
    pose = standing()
    before = GRAY.copy()
    drawn = draw_poses(GRAY, pose[None], np.ones((1, 17)), COCO)
    np.testing.assert_array_equal(GRAY, before)
    assert drawn.shape == GRAY.shape
    assert drawn.dtype == np.uint8
    assert color_at(drawn, middle(pose, "left_hip", "left_knee")) == drawing.LEFT_COLOR
    assert color_at(drawn, middle(pose, "right_hip", "right_knee")) == drawing.RIGHT_COLOR
    assert color_at(drawn, middle(pose, "left_shoulder", "right_shoulder")) == drawing.MIDDLE_COLOR
    assert color_at(drawn, (5, 5)) == (128, 128, 128)


def test_joints_with_low_scores_and_their_limbs_are_not_drawn():
    pose = standing()
    scores = np.ones((1, 17))
    scores[0, COCO.index("left_ankle")] = 0.1
    drawn = draw_poses(GRAY, pose[None], scores, COCO)
    assert color_at(drawn, middle(pose, "left_knee", "left_ankle")) == (128, 128, 128)
    assert color_at(drawn, middle(pose, "right_knee", "right_ankle")) == drawing.RIGHT_COLOR
    none = draw_poses(GRAY, pose[None], scores, COCO, threshold=1.1)
    np.testing.assert_array_equal(none, GRAY)


def test_lines_grow_with_the_person():
    drawn = [
        draw_poses(
            np.full((s * 240, s * 200, 3), 128, np.uint8),
            standing()[None] * s,
            np.ones((1, 17)),
            COCO,
        )
        for s in (2, 4)
    ]
    drawn_fraction = [(image != 128).any(-1).mean() for image in drawn]
    assert drawn_fraction[0] == pytest.approx(drawn_fraction[1], rel=0.25)


def test_joints_far_outside_or_not_finite_are_tolerated():
    pose = np.stack([standing(), standing(), standing()])
    pose[0, 0] = (1e12, -1e12)
    pose[1, 5] = np.nan
    pose[2, 7] = np.inf
    drawn = draw_poses(GRAY, pose, np.ones((3, 17)), COCO)
    assert (drawn != GRAY).any()


def test_nobody():
    drawn = draw_poses(GRAY, np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO)
    np.testing.assert_array_equal(drawn, GRAY)


def with_box(*bbox):
    return draw_poses(GRAY, standing()[None], np.ones((1, 17)), COCO, np.array([bbox], float))


@pytest.mark.parametrize("edge", [50.0, 50.25, 50.5])
def test_boxes_are_drawn_where_their_edges_are(edge):
    """x = 50 in a box is the left edge of pixel 50, halfway between the columns 49 and 50."""
    drawn = with_box(edge, 20, 150, 220)
    change = np.abs(drawn[25, 40:60, 1].astype(float) - 128)
    assert change @ np.arange(40, 60) / change.sum() == pytest.approx(edge - 0.5, abs=0.1)
    if edge == 50.5:
        np.testing.assert_allclose(color_at(drawn, (50, 25)), drawing.BOX_COLOR, atol=25)


def test_all_sides_of_a_box_around_the_image_are_visible():
    height, width = GRAY.shape[:2]
    drawn = with_box(0, 0, width, height)
    for side in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        np.testing.assert_allclose(
            side[5:-5], np.tile(drawing.BOX_COLOR, (len(side) - 10, 1)), atol=25
        )
    assert color_at(drawn, (5, 5)) == (128, 128, 128)


def test_colors_fade_with_the_score():
    pose, point = standing(), middle(standing(), "left_hip", "left_knee")
    colors = []
    for score in (1.0, 0.7, 0.4):
        scores = np.ones((1, 17))
        scores[0, COCO.index("left_knee")] = score
        colors.append(np.array(color_at(draw_poses(GRAY, pose[None], scores, COCO), point)))
        other = color_at(draw_poses(GRAY, pose[None], scores, COCO), middle(pose, "nose", "nose"))
        assert other == drawing.MIDDLE_COLOR
    saturation = [np.ptp(color) for color in colors]
    assert saturation[0] > 1.2 * saturation[1] > 1.2 * 1.2 * saturation[2] > 0


def test_small_people_are_drawn_without_outline():
    """In a person 60 pixels high, dark outlines would hide more than the lines show."""
    small = draw_poses(GRAY[:80, :67], standing()[None] / 3, np.ones((1, 17)), COCO)
    large = draw_poses(GRAY, standing()[None], np.ones((1, 17)), COCO)
    assert large.max(-1).min() < 40
    assert small.max(-1).min() >= 125
    assert (small != 128).any()


def test_joints_without_limbs_are_small_dots():
    """For example the joints of a face in whole-body skeletons."""
    face = Skeleton("face", ("left_brow", "nose", "neck"), (("nose", "neck"),), (0.05,) * 3)
    image = np.full((600, 600, 3), 128, np.uint8)
    points = np.array([[[100.0, 100], [500, 400], [500, 590]]])
    drawn = (draw_poses(image, points, np.ones((1, 3)), face) != 128).any(-1)
    assert 0 < np.ptp(np.nonzero(drawn[:300, :300])[1]) < np.ptp(np.nonzero(drawn[380:405])[1]) / 2


@pytest.mark.parametrize(
    ("joints", "side"),
    [
        (("left_hip", "left_knee"), "left"),
        (("right_eye",), "right"),
        (("left_hip", "right_hip"), "middle"),
        (("nose", "left_eye"), "left"),
        (("nose",), "middle"),
        (("leftover",), "middle"),
    ],
)
def test_sides(joints, side):
    assert drawing.side_of(*joints) == side


@pytest.mark.parametrize("bbox", [[-1e30, -1e30, 1e30, 1e30], [150, 20, 50, 220], [3, 3, 3, 3]])
def test_invalid_boxes_are_tolerated(bbox):
    drawn = draw_poses(GRAY, standing()[None], np.ones((1, 17)), COCO, np.array([bbox], float))
    assert drawn.shape == GRAY.shape


@pytest.mark.parametrize("skeleton", [MPII, HALPE26], ids=["fewer joints", "more joints"])
def test_poses_of_another_skeleton_are_refused(skeleton):
    pose, scores = standing()[None], np.ones((1, 17))
    with pytest.raises(UserError, match="poses to draw have 17 joints"):
        draw_poses(GRAY, pose, scores, skeleton)
    with pytest.raises(UserError, match="poses to draw have 17 joints"):
        drawing.draw_pose(GRAY.copy(), pose[0], scores[0] > 0, skeleton, 1.0)
