"""Draws bodies and poses from ranges of proportions and joint angles."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.synthetic.anatomy import Build, Pose

Range = tuple[int, int]  # degrees


class _Family(NamedTuple):
    """Ranges of trunk and leg angles (degrees) for one kind of pose, and its probability.

    Where there are two ranges, one for each leg, it is random which is the left leg's.
    """

    prob: float
    pitch: Range
    hip_flexion: tuple[Range, Range]
    hip_abduction: Range
    knees: tuple[Range, Range]
    roll: Range = (-8, 8)


_FAMILIES = (
    # standing
    _Family(0.46, (-8, 15), ((-12, 18), (-12, 18)), (1, 16), ((0, 15), (0, 15))),
    # walking and running
    _Family(0.30, (0, 25), ((15, 60), (-35, -5)), (0, 12), ((5, 70), (0, 60))),
    # sitting
    _Family(0.10, (-15, 35), ((70, 105), (70, 105)), (2, 35), ((55, 110), (55, 110))),
    # bending
    _Family(0.04, (45, 110), ((-5, 30), (-15, 30)), (2, 18), ((0, 40), (0, 40))),
    # crouching
    _Family(0.02, (10, 55), ((90, 130), (80, 130)), (5, 40), ((95, 145), (95, 145))),
    # on one knee
    _Family(0.02, (-5, 35), ((70, 100), (-15, 20)), (2, 15), ((65, 100), (75, 110))),
    # leaping
    _Family(0.04, (-10, 25), ((-20, 60), (-20, 60)), (10, 50), ((0, 80), (0, 80)), (-35, 35)),
    # lying
    _Family(0.0075, (-10, 30), ((-10, 70), (-10, 70)), (0, 25), ((0, 90), (0, 90)), (60, 120)),
    _Family(0.0075, (-10, 30), ((-10, 70), (-10, 70)), (0, 25), ((0, 90), (0, 90)), (-120, -60)),
    # handstand
    _Family(0.005, (-5, 10), ((-20, 40), (-20, 40)), (0, 40), ((0, 60), (0, 60)), (160, 200)),
)


class _ArmKind(NamedTuple):
    """Ranges of arm angles (degrees) for one kind of arm pose, and its probability."""

    prob: float
    shoulder_flexion: Range
    shoulder_abduction: Range
    elbow_flexion: Range
    elbow_turn: Range


_ARM_KINDS = (
    _ArmKind(0.42, (-20, 25), (2, 25), (0, 40), (0, 40)),  # hanging
    _ArmKind(0.13, (35, 110), (0, 35), (0, 110), (-20, 70)),  # forward
    _ArmKind(0.16, (120, 185), (-5, 40), (0, 80), (-40, 60)),  # raised
    _ArmKind(0.13, (-15, 30), (55, 120), (0, 100), (-60, 60)),  # sideways
    _ArmKind(0.10, (-45, -10), (25, 55), (70, 110), (60, 110)),  # hands on the hips
    _ArmKind(0.06, (-40, 170), (0, 90), (0, 130), (-60, 90)),  # anything
)

_FAMILY_PROBS = [family.prob for family in _FAMILIES]
_ARM_PROBS = [kind.prob for kind in _ARM_KINDS]


def sample_build(rng: np.random.Generator) -> Build:
    """Draw proportions of adults and, in a fifth of cases, children (large head, short limbs)."""
    child = rng.random() < 0.2
    head = rng.uniform(0.083, 0.095) if child else rng.uniform(0.070, 0.082)
    leg = rng.uniform(0.21, 0.23) if child else rng.uniform(0.225, 0.255)
    arm = rng.uniform(0.145, 0.175)
    return Build(
        head=head,
        neck=rng.uniform(0.035, 0.055),
        shoulders=rng.uniform(0.095, 0.13),
        hips=rng.uniform(0.055, 0.075),
        trunk=rng.uniform(0.26, 0.30),
        upper_arm=arm,
        forearm=arm * rng.uniform(0.85, 0.98),
        thigh=leg,
        shin=leg * rng.uniform(0.92, 1.02),
        girth=rng.uniform(0.85, 1.35),
    )


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw joint angles from the ranges of one kind of pose, and a viewpoint."""
    family = _FAMILIES[rng.choice(len(_FAMILIES), p=_FAMILY_PROBS)]
    hips = [_draw(rng, flexion, family.hip_abduction) for flexion in family.hip_flexion]
    order = slice(None, None, 1 if rng.random() < 0.5 else -1)
    arms = _sample_arms(rng)
    return Pose(
        yaw=_sample_yaw(rng),
        tilt=rng.uniform(-5, 22),
        roll=rng.uniform(*family.roll),
        trunk=_draw(rng, family.pitch, (-14, 14), (-25, 25)),
        head=_draw(rng, (-25, 25), (-18, 18), (-45, 45)),
        hips=np.array(hips)[order],
        knees=_draw(rng, *family.knees)[order],
        shoulders=arms[:, :2],
        elbows=arms[:, 2:],
    )


def _draw(rng: np.random.Generator, *ranges: Range) -> Float[np.ndarray, " n"]:
    return np.array([rng.uniform(low, high) for low, high in ranges])


def _sample_yaw(rng: np.random.Generator) -> float:
    """Front, back and side views, with spreads that overlap."""
    views = ((0, 25), (180, 25), (90, 20), (-90, 20))
    center, spread = views[rng.choice(4, p=(0.52, 0.24, 0.12, 0.12))]
    return rng.normal(center, spread)


def _sample_arms(rng: np.random.Generator) -> Float[np.ndarray, "2 4"]:
    """Angles of both arms: of the same kind in half of the draws, else of independent kinds."""
    kinds = rng.choice(len(_ARM_KINDS), size=2, p=_ARM_PROBS)
    if rng.random() < 0.5:
        kinds[1] = kinds[0]
    return np.stack([_draw(rng, *_ARM_KINDS[kind][1:]) for kind in kinds])
