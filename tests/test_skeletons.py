"""Joint sets: their tables against the published ones, and against each other."""

import json

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import (
    COCO,
    COCO_WHOLEBODY,
    CROWDPOSE,
    HALPE26,
    HALPE136,
    LSP,
    MPII,
    POSETRACK,
    SKELETONS,
    UNION,
    get_skeleton,
)

every_skeleton = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
BODIES = (COCO, MPII, LSP, CROWDPOSE, POSETRACK, UNION)
every_body = pytest.mark.parametrize("skeleton", BODIES, ids=lambda s: s.name)
with_faces = pytest.mark.parametrize("skeleton", [HALPE136, COCO_WHOLEBODY], ids=lambda s: s.name)

# 300-W's landmarks of which one is the other's mirror image, as published with the 68 of iBUG.
FACE_PAIRS = [
    *((i, 16 - i) for i in range(8)),
    *((17 + i, 26 - i) for i in range(5)),
    *((31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
]
COCO_PAIRS = [(i, i + 1) for i in range(1, 17, 2)]


def shifted(pairs, start):
    return [(start + a, start + b) for a, b in pairs]


@pytest.mark.parametrize(
    ("skeleton", "pairs"),
    [  # left-right pairs of joint numbers, as published with the datasets
        (COCO, [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)]),
        (MPII, [(0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)]),
        (LSP, [(0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)]),
        (POSETRACK, [(i, i + 1) for i in range(3, 17, 2)]),
        (CROWDPOSE, [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]),
        (HALPE26, [*COCO_PAIRS, (20, 21), (22, 23), (24, 25)]),
        (
            HALPE136,
            [
                *(*COCO_PAIRS, (20, 21), (22, 23), (24, 25)),
                *shifted(FACE_PAIRS, 26),
                *((94 + i, 115 + i) for i in range(21)),
            ],
        ),
        (
            COCO_WHOLEBODY,
            [
                *(*COCO_PAIRS, (17, 20), (18, 21), (19, 22)),
                *shifted(FACE_PAIRS, 23),
                *((91 + i, 112 + i) for i in range(21)),
            ],
        ),
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
    if skeleton is COCO_WHOLEBODY:  # measured joint by joint; hands are the same, faces nearly so
        difference = np.abs(skeleton.sigmas - skeleton.sigmas[skeleton.flip_indices])
        assert difference[skeleton.parts["face"]].max() <= 0.026
        same = np.r_[skeleton.parts["body"], skeleton.parts["left_hand"]]
        assert (difference[same] == 0).all()
    else:
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
    assert HALPE136.is_upper_body.sum() == 136 - 6 - 6 - 1
    lower = {j for j, upper in zip(UNION.joints, UNION.is_upper_body, strict=True) if not upper}
    assert lower == {"pelvis"} | {
        f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")
    }


@every_body
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
    with pytest.raises(UserError, match=r"'cocoo': use one of coco, mpii, lsp, crowdpose, union, "):
        get_skeleton("cocoo")


def test_joints_and_poses_of_another_skeleton():
    with pytest.raises(UserError, match="'coco' has no joint 'head_top': use a skeleton that has"):
        COCO.index("head_top")
    COCO.check_num_keypoints(17, "poses")
    with pytest.raises(UserError, match="poses have 16 joints, skeleton 'coco' has 17: give"):
        COCO.check_num_keypoints(16, "poses")


def test_nameless_joints():
    skeleton = get_skeleton("unnamed_21")
    assert skeleton.num_keypoints == 21
    assert skeleton.limb_indices.shape == (0, 2)
    assert np.isnan(skeleton.sigmas).all()
    with pytest.raises(UserError, match="does not say which joints are left and right"):
        _ = skeleton.flip_indices
    for name in ("unnamed_", "unnamed_0", "unnamed_x", "unnamed_-3"):
        with pytest.raises(UserError, match="no skeleton is called"):
            get_skeleton(name)


@pytest.mark.parametrize(
    ("skeleton", "sizes"),
    [
        (COCO, {"body": 17}),
        (HALPE26, {"body": 20, "foot": 6}),
        (HALPE136, {"body": 20, "foot": 6, "face": 68, "left_hand": 21, "right_hand": 21}),
        (COCO_WHOLEBODY, {"body": 17, "foot": 6, "face": 68, "left_hand": 21, "right_hand": 21}),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_parts_follow_each_other(skeleton, sizes):
    assert {name: part.stop - part.start for name, part in skeleton.parts.items()} == sizes
    joints = [skeleton.joints[part] for part in skeleton.parts.values()]
    assert sum(joints, ()) == skeleton.joints
    # Flipping stays within a part, or within the hands.
    for name, part in skeleton.parts.items():
        partners = {skeleton.joints[i] for i in skeleton.flip_indices[part]}
        other = {"left_hand": "right_hand", "right_hand": "left_hand"}.get(name, name)
        assert partners == set(skeleton.joints[skeleton.parts[other]])


def components(skeleton, within=None):
    """Sets of joints that limbs connect, by union of the limbs one after the other."""
    groups = [{joint} for joint in range(skeleton.num_keypoints)]
    for a, b in skeleton.limb_indices:
        one = next(group for group in groups if a in group)
        other = next(group for group in groups if b in group)
        if one is not other:
            groups.remove(other)
            one |= other
    return {frozenset(skeleton.joints[i] for i in group) for group in groups}


@every_skeleton
def test_limbs_connect_bodies_hands_and_features_of_the_face(skeleton):
    groups = components(skeleton)
    body = {
        "left_shoulder",
        "right_ankle",
        "left_wrist",
        "right_big_toe",
        "left_heel",
        "upper_neck",
    }
    body |= {"left_hand_root", "right_pinky_4", "left_thumb_4", "pelvis"}
    (main,) = [group for group in groups if "right_knee" in group]
    # A lone neck and head, as in LSP and CrowdPose, and COCO's five of the face stand apart.
    apart = {frozenset({"head_top", "upper_neck"})}
    apart |= {frozenset(COCO.joints[:5])} if "nose" in skeleton.joints else set()
    assert body & set(skeleton.joints) - {"upper_neck", "pelvis"} <= main
    features = {group for group in groups if group - main and group not in apart}
    if "face" not in skeleton.parts:
        assert all("neck" in " ".join(group) for group in features)
        return
    face = set(skeleton.joints[skeleton.parts["face"]])
    assert frozenset().union(*features) == face
    # Jaw, two eyebrows, nose, two eyes, lips outside and inside.
    assert sorted(map(len, features)) == [5, 5, 6, 6, 8, 9, 12, 17]
    closed = {i for i in face if limb_count(skeleton, i) == 2}
    assert {"left_eyelid_1", "right_mouth_corner", "inner_upper_lip", "chin"} <= closed


def limb_count(skeleton, joint):
    return sum(joint in limb for limb in skeleton.limbs)


@with_faces
def test_a_drawn_face_is_its_own_mirror_image(skeleton):
    """Landmarks at the places of a frontal face, from formulas, in an image of the person."""
    face = np.zeros((68, 2))
    angle = np.linspace(0, np.pi, 17)  # the jaw, from the left of the image, the person's right
    face[:17] = np.stack([-np.cos(angle), 0.3 + np.sin(angle)], -1)
    x = np.linspace(-0.8, 0.8, 10)
    face[17:27] = np.stack([x, -0.5 - 0.1 * np.abs(np.sin(4 * x))], -1)
    face[27:31] = np.stack([np.zeros(4), np.linspace(-0.3, 0.2, 4)], -1)
    face[31:36] = np.stack([np.linspace(-0.2, 0.2, 5), 0.3 + 0.05 * np.cos(np.arange(-2, 3))], -1)
    lids = np.radians([180, 120, 60, 0, -60, -120])  # clockwise as seen, from the image's left
    eye = np.stack([0.15 * np.cos(lids), -0.08 * np.sin(lids)], -1)
    face[36:42], face[42:48] = eye + np.array([[-0.5, -0.3]]), eye + np.array([[0.5, -0.3]])
    for first, count, size in ((48, 12, 0.4), (60, 8, 0.25)):
        turn = np.pi - np.arange(count) * 2 * np.pi / count
        face[first : first + count] = np.stack([size * np.cos(turn), 0.7 - 0.2 * np.sin(turn)], -1)
    start = skeleton.parts["face"].start
    mirrored = (face * (-1, 1))[skeleton.flip_indices[skeleton.parts["face"]] - start]
    np.testing.assert_allclose(mirrored, face, atol=1e-12)
    # And the person's left is on the right of the image.
    names = skeleton.joints[skeleton.parts["face"]]
    for name, (place, _) in zip(names, face, strict=True):
        assert np.sign(np.round(place, 6)) == {"left": 1, "right": -1}.get(name.split("_")[0], 0)


def test_joints_of_halpe_are_those_of_the_other_sets():
    assert HALPE136.joints[:26] == HALPE26.joints
    assert HALPE26.joints[:17] == COCO_WHOLEBODY.joints[:17] == COCO.joints
    assert HALPE136.joints[26:] == COCO_WHOLEBODY.joints[23:]
    assert set(COCO_WHOLEBODY.joints) == set(HALPE136.joints) - {"head_top", "upper_neck", "pelvis"}
    assert (MPII.indices_in(HALPE26) >= 0).sum() == 15  # all but the thorax


def test_sigmas_of_whole_bodies_are_the_published_ones():
    np.testing.assert_array_equal(COCO_WHOLEBODY.sigmas[:17], COCO.sigmas)
    named = dict(zip(COCO_WHOLEBODY.joints, COCO_WHOLEBODY.oks_sigmas, strict=True))
    for joint, sigma in {
        "left_big_toe": 0.068,
        "right_heel": 0.094,
        "right_jaw_1": 0.042,
        "left_jaw_1": 0.045,
        "nose_bridge_1": 0.009,
        "left_eyelid_5": 0.034,
        "right_mouth_corner": 0.008,
        "right_inner_lower_lip_1": 0.008,
        "left_hand_root": 0.029,
        "right_thumb_4": 0.047,
        "right_pinky_4": 0.031,
    }.items():
        assert named[joint] == sigma, joint
    # The sums of the published rows, added up apart from the table.
    parts = {name: COCO_WHOLEBODY.sigmas[part].sum() for name, part in COCO_WHOLEBODY.parts.items()}
    assert parts["foot"] == pytest.approx(0.480)
    assert parts["left_hand"] == parts["right_hand"] == pytest.approx(0.553)
    assert set(HALPE136.oks_sigmas[17:20]) == {0.08}
    assert set(HALPE136.oks_sigmas[20:26]) == {0.089}
    assert set(HALPE136.oks_sigmas[26:]) == {0.015}
