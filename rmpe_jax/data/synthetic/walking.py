"""How people walk: the angles of trunk, arms and legs over the cycle of two steps.

The curves are simple: thighs and arms swing like pendulums, opposite to each other, and a knee
bends while its leg swings forward. Amplitudes are those of normal walking (Winter, *Biomechanics
and Motor Control of Human Movement*): about 40 degrees between the extremes of the hip, and a knee
that bends by about 60 degrees in swing.
"""

import dataclasses

import numpy as np

from rmpe_jax.data.synthetic.anatomy import Build, Pose
from rmpe_jax.data.synthetic.outfit import Outfit, sample_outfit
from rmpe_jax.data.synthetic.sampling import sample_build

STRIDE = 0.82  # length of two steps at normal speed, as a fraction of the standing height
_FULL_SWING = 1.1  # speed in m/s from which on limbs swing fully


@dataclasses.dataclass(frozen=True)
class Walker:
    """A person and how they walk.

    Attributes:
      build, outfit: proportions and looks.
      height: standing height in meters.
      speed: of normal walking, in m/s.
      lean: of the trunk, degrees forward.
      arm_swing: amplitude of the upper arms in degrees.
      elbow: flexion of the elbows in degrees.
      gaze: rotation of the head to the left, in degrees.
    """

    build: Build
    outfit: Outfit
    height: float
    speed: float
    lean: float
    arm_swing: float
    elbow: float
    gaze: float


def sample_walker(rng: np.random.Generator) -> Walker:
    """Draw a person."""
    return Walker(
        build=sample_build(rng),
        outfit=sample_outfit(rng),
        height=rng.uniform(1.5, 1.9),
        speed=float(np.clip(rng.normal(1.3, 0.2), 0.8, 1.8)),
        lean=rng.uniform(0, 8),
        arm_swing=rng.uniform(8, 28),
        elbow=rng.uniform(8, 40),
        gaze=rng.uniform(-25, 25),
    )


def walking_pose(walker: Walker, cycle: float, speed: float, yaw: float, tilt: float) -> Pose:
    """The pose of a person who walks or stands.

    Args:
      walker: the person.
      cycle: number of cycles, of two steps each, since any time.
      speed: in m/s; limbs swing less when slow, and hang when standing.
      yaw: as in `Pose`, in degrees.
      tilt: likewise.
    """
    swing = min(speed / _FULL_SWING, 1.0)
    phase = 2 * np.pi * (cycle + np.array([0, 0.5]))  # left and right leg
    thigh = swing * 21 * np.sin(phase)  # its cosine is positive while the leg swings forward
    bent = np.maximum(np.cos(phase), 0) ** 2
    shoulder = -swing * walker.arm_swing * np.sin(phase)
    sway = swing * np.sin(phase[0])
    return Pose(
        yaw=yaw,
        tilt=tilt,
        roll=0.0,
        trunk=np.array([walker.lean, 1.5 * sway, 5 * sway]),
        head=np.array([0.0, 0.0, walker.gaze]),
        hips=np.stack([4 + thigh, np.full(2, 3.0)], -1),
        knees=5 + swing * (50 * bent + 5),
        shoulders=np.stack([shoulder, np.full(2, 8.0)], -1),
        elbows=np.stack(
            [walker.elbow + swing * 0.5 * np.maximum(shoulder, 0), np.full(2, 15.0)], -1
        ),
    )
