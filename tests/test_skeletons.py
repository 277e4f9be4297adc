"""Joint sets: their tables against the published ones, and against each other."""

import json

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, CROWDPOSE, LSP, MPII, SKELETONS, UNION, get_skeleton

every_skeleton = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)


@pytest.mark.parametrize(
    ("skeleton", "pairs"),
    [  # left-right pairs of joint numbers, as published with the data sets
        (COCO, [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)]),
        (MPII, [(0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)]),
        (LSP, [(0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)]),
        (CROWDPOSE, [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_flip_indices_swap_the_published_pairs(skeleton, pairs):
    expected = np.arange(skeleton.num_keypoints)
    for a, b in pairs:
        expected[[a, b]] = b, a
    np.testing.assert_array_equal(skeleton.flip_indices, expected)


@every_skeleton
def test_flipping_twice_changes_nothing(skeleton):
    flip = skeleton.flip_indices
    np.testing.assert_array_equal(flip[flip], np.arange(skeleton.num_keypoints))
    for joint, partner in zip(skeleton.joints, flip, strict=True):
        sided = joint.startswith(("left_", "right_"))
        assert (skeleton.joints[partner] != joint) == sided


@every_skeleton
def test_limbs_join_joints_once_and_are_symmetric(skeleton):
    limbs = {frozenset(limb) for limb in skeleton.limb_indices.tolist()}
    assert len(limbs) == len(skeleton.limbs)
    assert all(len(limb) == 2 for limb in limbs)
    assert {frozenset(skeleton.flip_indices[list(limb)].tolist()) for limb in limbs} == limbs
    for (a, b), names in zip(skeleton.limb_indices, skeleton.limbs, strict=True):
        assert (skeleton.joints[a], skeleton.joints[b]) == names


@every_skeleton
def test_tables_have_one_row_per_joint(skeleton):
    k = skeleton.num_keypoints
    assert len(set(skeleton.joints)) == len(skeleton.joints) == k
    assert skeleton.sigmas.shape == skeleton.is_upper_body.shape == (k,)
    assert (skeleton.sigmas > 0).all()
    np.testing.assert_array_equal(skeleton.sigmas, skeleton.sigmas[skeleton.flip_indices])


def test_sigmas_are_those_of_the_evaluation_code():
    np.testing.assert_allclose(COCO.sigmas, Params(iouType="keypoints").kpt_oks_sigmas)
    # CrowdPose's evaluation: shoulders, elbows, wrists, hips, knees, ankles, head, neck.
    pairs = np.repeat([0.79, 0.72, 0.62, 1.07, 0.87, 0.89], 2)
    np.testing.assert_allclose(CROWDPOSE.sigmas, np.append(pairs, [0.79, 0.79]) / 10)


def test_joints_are_in_the_order_of_cocos_files(shared_data):
    (file, *_) = sorted((shared_data / "coco" / "annotations").glob("*.json"))
    (person,) = [c for c in json.loads(file.read_text())["categories"] if c["name"] == "person"]
    assert list(COCO.joints) == person["keypoints"]


def test_the_upper_body_is_all_above_the_hips():
    assert COCO.is_upper_body.tolist() == [True] * 11 + [False] * 6
    lower = {j for j, upper in zip(UNION.joints, UNION.is_upper_body, strict=True) if not upper}
    assert lower == {"pelvis"} | {
        f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")
    }


@every_skeleton
def test_every_joint_has_its_place_in_the_union(skeleton):
    places = skeleton.indices_in(UNION)
    assert [UNION.joints[i] for i in places] == list(skeleton.joints)
    np.testing.assert_array_equal(UNION.sigmas[places], skeleton.sigmas)
    # And back: what the set lacks is marked, the rest returns to where it was.
    back = UNION.indices_in(skeleton)
    np.testing.assert_array_equal(back[places], np.arange(skeleton.num_keypoints))
    assert (back == -1).sum() == UNION.num_keypoints - skeleton.num_keypoints


def test_the_union_is_coco_and_what_the_others_add():
    assert UNION.joints[:17] == COCO.joints
    others = set(MPII.joints) | set(LSP.joints) | set(CROWDPOSE.joints)
    assert set(UNION.joints[17:]) == others - set(COCO.joints)


def test_joints_shared_by_two_sets_are_found_by_name():
    np.testing.assert_array_equal(
        LSP.indices_in(MPII), [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]
    )


def test_get_skeleton():
    assert get_skeleton("coco") is COCO
    with pytest.raises(UserError, match=r"'cocoo': use one of coco, mpii, lsp, crowdpose, union"):
        get_skeleton("cocoo")
