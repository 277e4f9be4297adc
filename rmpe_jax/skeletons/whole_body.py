"""Skeletons with feet, faces and hands: Halpe-26, Halpe-136 and COCO-WholeBody-133.

Faces have the 68 landmarks of iBUG's 300-W. The first 17, the jaw, run from the person's right ear
to the left one. Hands have 21 joints: the root, and four of each finger from the palm outwards.
"""

import itertools

from rmpe_jax.skeletons.body import ARMS_AND_LEGS, COCO, FACE, NECK, TORSO
from rmpe_jax.skeletons.skeleton import Skeleton

Limbs = tuple[tuple[str, str], ...]


def _chain(*joints: str) -> Limbs:
    return tuple(itertools.pairwise(joints))


def _ring(*joints: str) -> Limbs:
    return _chain(*joints, joints[0])


def _numbered(joint: str, count: int, first: int = 1) -> tuple[str, ...]:
    return tuple(f"{joint}_{number}" for number in range(first, first + count))


def _across(joint: str, count: int, middle: str = "") -> tuple[str, ...]:
    """`right_joint_1`, `right_joint_2`, …, `middle`, …, `left_joint_2`, `left_joint_1`."""
    right, left = _numbered(f"right_{joint}", count), _numbered(f"left_{joint}", count)
    return (*right, *(middle.split()), *left[::-1])


_JAW = _across("jaw", 8, "chin")
_EYEBROWS = _across("eyebrow", 5)
_BRIDGE = _numbered("nose_bridge", 4)
_NOSTRILS = _across("nostril", 2, "nose_base")
# 1 is the outer corner and 4 the inner one; 2 and 3 are the upper lid, 5 and 6 the lower lid.
_RIGHT_EYE = _numbered("right_eyelid", 6)
_LEFT_EYE = tuple(f"left_eyelid_{number}" for number in (4, 3, 2, 1, 6, 5))
_UPPER_LIP = ("right_mouth_corner", *_across("upper_lip", 2, "upper_lip"), "left_mouth_corner")
_LOWER_LIP = _across("lower_lip", 2, "lower_lip")[::-1]
_INNER_UPPER_LIP = (
    "right_inner_mouth_corner",
    *_across("inner_upper_lip", 1, "inner_upper_lip"),
    "left_inner_mouth_corner",
)
_INNER_LOWER_LIP = _across("inner_lower_lip", 1, "inner_lower_lip")[::-1]

FACE_JOINTS = (
    *_JAW,
    *_EYEBROWS,
    *_BRIDGE,
    *_NOSTRILS,
    *_RIGHT_EYE,
    *_LEFT_EYE,
    *_UPPER_LIP,
    *_LOWER_LIP,
    *_INNER_UPPER_LIP,
    *_INNER_LOWER_LIP,
)
FACE_LIMBS = (
    *_chain(*_JAW),
    *_chain(*_EYEBROWS[:5]),
    *_chain(*_EYEBROWS[5:]),
    *_chain(*_BRIDGE, "nose_base"),
    *_chain(*_NOSTRILS),
    *_ring(*_RIGHT_EYE),
    *_ring(*_LEFT_EYE),
    *_ring(*_UPPER_LIP, *_LOWER_LIP),
    *_ring(*_INNER_UPPER_LIP, *_INNER_LOWER_LIP),
)

_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky")


def _hand(side: str) -> tuple[str, ...]:
    fingers = (joint for finger in _FINGERS for joint in _numbered(f"{side}_{finger}", 4))
    return (f"{side}_hand_root", *fingers)


def _hand_limbs(side: str) -> Limbs:
    """From the body's wrist to the root of the hand, and from there along each finger."""
    root = f"{side}_hand_root"
    fingers = (_chain(root, *_numbered(f"{side}_{finger}", 4)) for finger in _FINGERS)
    return ((f"{side}_wrist", root), *(limb for finger in fingers for limb in finger))


_HANDS = (*_hand("left"), *_hand("right"))
_HAND_LIMBS = (*_hand_limbs("left"), *_hand_limbs("right"))
_FEET = tuple(
    (f"{side}_ankle", f"{side}_{joint}")
    for side in ("left", "right")
    for joint in ("big_toe", "small_toe", "heel")
)
FACE_AND_HANDS = (("face", 68), ("left_hand", 21), ("right_hand", 21))

# Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020, and its evaluation code
# (myeval_wholebody.py; users of xtcocotools have the same numbers). The deviations were measured
# joint by joint, so left and right differ. Feet: left big toe, small toe, heel, then right.
_FOOT_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
# fmt: off
_FACE_SIGMAS = (
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037,
    0.038, 0.043, 0.041, 0.045,
    0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015,
    0.009, 0.007, 0.007, 0.007, 0.012, 0.009, 0.008, 0.016, 0.010,
    0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034,
    0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007,
    0.007, 0.008, 0.011, 0.008, 0.008, 0.008, 0.010, 0.008,
)
_HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024,
    0.022, 0.026, 0.017, 0.021, 0.021, 0.032, 0.020, 0.019, 0.022, 0.031,
)
# fmt: on

COCO_WHOLEBODY = Skeleton(  # in the order of its fields: keypoints, foot, face, left, right hand
    "coco_wholebody",
    (
        *COCO.joints,
        *("left_big_toe", "left_small_toe", "left_heel"),
        *("right_big_toe", "right_small_toe", "right_heel"),
        *FACE_JOINTS,
        *_HANDS,
    ),
    (*COCO.limbs, *_FEET, *FACE_LIMBS, *_HAND_LIMBS),
    (*COCO.oks_sigmas, *_FOOT_SIGMAS, *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS),
    (("body", 17), ("foot", 6), *FACE_AND_HANDS),
)

# Halpe-FullBody (Li et al., PaStaNet, CVPR 2020, and AlphaPose, TPAMI 2022), in the order of its
# page. Its Head, Neck and Hip are called head top, upper neck and pelvis here, as in MPII, because
# unions of these datasets treat them as the same joints (MMPose's RTMPose for 26 joints). The
# sigmas are those of its evaluation of 136 joints, halpecocotools, as MMPose's `halpe.py` quotes
# them: .08 for these three, .089 for feet, .015 for all joints of face and hands. MMPose's table of
# 26 joints has others (.026, .026, .066, .079).
_HALPE_JOINTS = (
    *COCO.joints,
    *("head_top", "upper_neck", "pelvis"),
    *("left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe"),
    *("left_heel", "right_heel"),
)
_HALPE_LIMBS = (
    *ARMS_AND_LEGS,
    *(limb for limb in TORSO if limb != ("left_hip", "right_hip")),
    *FACE,
    *NECK,
    *(("upper_neck", "left_shoulder"), ("upper_neck", "right_shoulder")),
    *(("pelvis", "left_hip"), ("pelvis", "right_hip")),
    *_FEET,
)
_HALPE_SIGMAS = (*COCO.oks_sigmas, *(0.08,) * 3, *(0.089,) * 6)
_HALPE_BODY = (("body", 20), ("foot", 6))

HALPE26 = Skeleton("halpe26", _HALPE_JOINTS, _HALPE_LIMBS, _HALPE_SIGMAS, _HALPE_BODY)

HALPE136 = Skeleton(
    "halpe136",
    (*_HALPE_JOINTS, *FACE_JOINTS, *_HANDS),
    (*_HALPE_LIMBS, *FACE_LIMBS, *_HAND_LIMBS),
    (*_HALPE_SIGMAS, *(0.015,) * 110),
    (*_HALPE_BODY, *FACE_AND_HANDS),
)
