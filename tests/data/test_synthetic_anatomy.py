"""The jointed body: bone lengths are constant; left, right, front and back are correct."""

import dataclasses

import cv2
import numpy as np
import pytest

from rmpe_jax.data.synthetic import anatomy, painting, sampling

UPRIGHT = anatomy.Pose(
    yaw=0.0, tilt=0.0, roll=0.0, trunk=np.zeros(3), head=np.zeros(3), hips=np.zeros((2, 2)),
    knees=np.zeros(2), shoulders=np.zeros((2, 2)), elbows=np.zeros((2, 2)),
)  # fmt: skip
BUILD = sampling.sample_build(np.random.default_rng(0))
X, Y, Z = 0, 1, 2


def _points(**changes) -> dict[str, np.ndarray]:
    angles = {k: np.array(v, float) if isinstance(v, tuple) else v for k, v in changes.items()}
    return anatomy.pose_body(BUILD, dataclasses.replace(UPRIGHT, **angles)).points


@pytest.mark.parametrize("seed", range(10))
def test_bones_keep_their_lengths(seed):
    rng = np.random.default_rng(seed)
    build, pose = sampling.sample_build(rng), sampling.sample_pose(rng)
    body = anatomy.pose_body(build, pose)
    at = body.points
    for side in ("left", "right"):
        for start, end, length in (
            ("hip", "knee", build.thigh),
            ("knee", "ankle", build.shin),
            ("shoulder", "elbow", build.upper_arm),
            ("elbow", "wrist", build.forearm),
        ):
            bone = at[f"{side}_{end}"] - at[f"{side}_{start}"]
            assert np.linalg.norm(bone) == pytest.approx(length)
    across = at["left_shoulder"] - at["right_shoulder"]
    assert np.linalg.norm(across) == pytest.approx(2 * build.shoulders)
    for axes in (body.trunk, body.head):
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(axes) == pytest.approx(1)  # -1 would be a mirror image


def test_facing_the_camera_the_left_hand_is_at_the_right():
    at = _points()
    assert at["left_wrist"][X] > 0 > at["right_wrist"][X]
    assert at["nose"][Z] < at["head"][Z]  # nearer to the camera
    assert at["head"][Y] < at["pelvis"][Y] < at["left_ankle"][Y]  # y points down


def test_from_behind_left_is_left():
    at = _points(yaw=180.0)
    assert at["left_wrist"][X] < 0 < at["right_wrist"][X]
    assert at["nose"][Z] > at["head"][Z]


def test_a_quarter_turn_shows_the_left_side():
    at = _points(yaw=90.0)
    assert at["left_shoulder"][Z] < at["right_shoulder"][Z]
    assert at["nose"][X] < at["head"][X]


def test_a_camera_looking_down_sees_near_things_lower():
    at = _points(tilt=20.0, shoulders=((90, 0), (90, 0)))
    assert at["left_wrist"][Z] < at["left_shoulder"][Z]
    assert at["left_wrist"][Y] > at["left_shoulder"][Y]


@pytest.mark.parametrize(
    ("changes", "joint", "reference", "axis", "sign"),
    [
        ({"hips": ((90, 0), (0, 0))}, "left_knee", "left_hip", Z, -1),  # thigh forward
        ({"hips": ((0, 0), (0, 40))}, "right_knee", "right_hip", X, -1),  # outwards
        ({"knees": (90, 0)}, "left_ankle", "left_knee", Z, 1),  # knees bend backwards
        ({"shoulders": ((180, 0), (0, 0))}, "left_wrist", "left_shoulder", Y, -1),  # raised
        ({"elbows": ((0, 0), (90, 0))}, "right_wrist", "right_elbow", Z, -1),  # elbows forwards
        ({"elbows": ((90, 90), (0, 0))}, "left_wrist", "left_elbow", X, -1),  # turned inwards
        ({"trunk": (60, 0, 0)}, "chest", "pelvis", Z, -1),  # a bow
        ({"head": (0, 0, 60)}, "nose", "head", X, 1),  # a look to the left
    ],
)
def test_angles_move_limbs_the_way_they_say(changes, joint, reference, axis, sign):
    at = _points(**changes)
    assert sign * (at[joint] - at[reference])[axis] > 0.02


def test_painted_discs_are_centered_to_a_fraction_of_a_pixel():
    for center in ((20.0, 20.0), (20.25, 19.6), (19.5, 20.5)):
        image = np.zeros((40, 40, 3), np.uint8)
        canvas = painting.Canvas(image, np.zeros((40, 40), np.uint8), np.array([0.0, -1.0]))
        disc = painting.hull_of_discs(np.array([center]), np.array([6.0]))
        painting.fill(canvas, disc, (255.0, 255.0, 255.0), 7)
        moments = cv2.moments(image[..., 0])
        found = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        np.testing.assert_allclose(found, center, atol=0.06)
        assert set(np.unique(canvas.ids)) == {0, 7}
