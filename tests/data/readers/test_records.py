import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmpe_jax.data.readers.records import ImageRecord, pick_joints, trainable
from rmpe_jax.skeletons import SKELETONS, UNION


def record(visibility, bboxes, iscrowd) -> ImageRecord:
    n = len(bboxes)
    return ImageRecord(
        image_id=1,
        path=pathlib.Path("a.jpg"),
        keypoints=np.zeros((n, 3, 2), np.float32),
        visibility=np.array(visibility, np.uint8).reshape(n, 3),
        bboxes=np.array(bboxes, np.float32).reshape(n, 4),
        area=np.ones(n, np.float32),
        iscrowd=np.array(iscrowd, bool),
        head_sizes=np.ones(n, np.float32),
        person_ids=np.arange(n),
    )


def test_trainable_asks_for_a_joint_a_box_and_no_crowd():
    box, line, inverted = [0, 0, 5, 5], [0, 0, 5, 0], [5, 5, 0, 0]
    people = record(
        [[0, 0, 1], [2, 2, 2], [0, 0, 0], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
        [box, box, box, line, inverted, box],
        [False, False, False, False, False, True],
    )
    np.testing.assert_array_equal(trainable(people), [True, True] + [False] * 4)


def test_nobody_is_trainable_in_an_empty_image():
    assert trainable(record([], [], [])).shape == (0,)


@given(st.sampled_from(sorted(SKELETONS)), st.sampled_from(sorted(SKELETONS)), st.integers(0, 3))
def test_pick_joints_goes_by_name(own_name, target_name, n):
    own, target = SKELETONS[own_name], SKELETONS[target_name]
    rng = np.random.default_rng(n)
    keypoints = rng.normal(size=(n, own.num_keypoints, 2)).astype(np.float32)
    visibility = rng.integers(0, 3, (n, own.num_keypoints)).astype(np.uint8)
    moved, seen = pick_joints(keypoints, visibility, target.indices_in(own))
    assert moved.shape == (n, target.num_keypoints, 2)
    assert moved.dtype == np.float32
    assert seen.dtype == np.uint8
    for person in range(n):
        for j, joint in enumerate(target.joints):
            known = joint in own.joints and visibility[person, own.joints.index(joint)]
            assert seen[person, j] == (known or 0)
            expected = keypoints[person, own.joints.index(joint)] if known else (0, 0)
            np.testing.assert_array_equal(moved[person, j], expected)


@pytest.mark.parametrize("name", ["coco", "crowdpose", "lsp", "mpii", "union"])
def test_the_union_keeps_everything(name):
    own = SKELETONS[name]
    keypoints = np.random.default_rng(0).normal(size=(own.num_keypoints, 2)).astype(np.float32)
    visibility = np.full(own.num_keypoints, 2, np.uint8)
    there = pick_joints(keypoints, visibility, UNION.indices_in(own))
    back = pick_joints(*there, own.indices_in(UNION))
    np.testing.assert_array_equal(back[0], keypoints)
    np.testing.assert_array_equal(back[1], visibility)
