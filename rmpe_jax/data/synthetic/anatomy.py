"""A jointed body in three dimensions: its proportions, its poses, and its place before the camera.

Body frame: (left, up, forward), origin between the hip joints, unit the standing height.
Camera frame: (x right, y down, z away from the camera), same origin and unit; the projection is
orthographic, so x and y times a scale in pixels are picture coordinates.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

Vector = Float[np.ndarray, " 3"]
Matrix = Float[np.ndarray, "3 3"]

LEFT, RIGHT = 1.0, -1.0
SIDES = (("left", LEFT), ("right", RIGHT))

_CAMERA_FROM_BODY = np.diag([1.0, -1.0, -1.0])  # facing the camera, the left hand is at the right


@dataclasses.dataclass(frozen=True)
class Build:
    """Proportions as shares of the standing height; shoulders and hips are half-widths."""

    head: float  # radius
    neck: float
    shoulders: float
    hips: float
    trunk: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    girth: float  # factor on every thickness


@dataclasses.dataclass(frozen=True)
class Pose:
    """Joint angles in degrees; pairs are (left, right).

    Flexion swings a limb forward, abduction away from the middle. `roll` turns the whole body in
    the picture, `tilt` is how far the camera looks down, `yaw` turns about the vertical: 0 faces
    the camera, 90 turns the left side to it.
    """

    yaw: float
    tilt: float
    roll: float
    trunk: tuple[float, float, float]  # pitch forward, lean left, twist
    head: tuple[float, float, float]
    hips: tuple[tuple[float, float], tuple[float, float]]  # (flexion, abduction)
    knees: tuple[float, float]
    shoulders: tuple[tuple[float, float], tuple[float, float]]
    elbows: tuple[tuple[float, float], tuple[float, float]]  # (flexion, turn inwards)


@dataclasses.dataclass(frozen=True)
class Skeleton3D:
    """A posed body before the camera.

    Attributes:
      points: camera-frame position of each named point: COCO's joints and the inner ones
        (`pelvis`, `waist`, `chest`, `neck`, `head`, `chin`, and per side `hand`, `heel`, `toe`).
      trunk, head: the (left, up, forward) axes of chest and head as rows, in the camera frame.
      build: the proportions it was made with.
    """

    points: dict[str, Vector]
    trunk: Matrix
    head: Matrix
    build: Build


def sample_build(rng: np.random.Generator) -> Build:
    """Adults of all shapes, and children (large head, short limbs)."""
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


# Ranges in degrees for the legs and trunk of each family of poses: share, trunk pitch, hip flexion,
# hip abduction, knee flexion, roll of the whole body. Two hip ranges make the legs differ.
_FAMILIES = {
    "stand": (0.30, (-8, 15), ((-12, 18), (-12, 18)), (1, 16), ((0, 15), (0, 15)), (-8, 8)),
    "stride": (0.24, (0, 25), ((15, 60), (-35, -5)), (0, 12), ((5, 70), (0, 60)), (-8, 8)),
    "sit": (0.14, (-15, 35), ((70, 105), (70, 105)), (2, 35), ((55, 110), (55, 110)), (-8, 8)),
    "bend": (0.08, (45, 110), ((-5, 30), (-15, 30)), (2, 18), ((0, 40), (0, 40)), (-8, 8)),
    "crouch": (0.06, (10, 55), ((90, 130), (80, 130)), (5, 40), ((95, 145), (95, 145)), (-8, 8)),
    "kneel": (0.04, (-5, 35), ((70, 100), (-15, 20)), (2, 15), ((65, 100), (75, 110)), (-8, 8)),
    "leap": (0.06, (-10, 25), ((-20, 60), (-20, 60)), (10, 50), ((0, 80), (0, 80)), (-35, 35)),
    "lie": (0.07, (-10, 30), ((-10, 70), (-10, 70)), (0, 25), ((0, 90), (0, 90)), (60, 120)),
    "handstand": (0.01, (-5, 10), ((-20, 40), (-20, 40)), (0, 40), ((0, 60), (0, 60)), (160, 200)),
}
_FAMILY_SHARES = np.array([f[0] for f in _FAMILIES.values()])

# Shares and ranges for the arms: shoulder flexion and abduction, elbow flexion and inward turn.
_ARMS = (
    (0.32, (-20, 25), (2, 25), (0, 40), (0, 40)),  # hanging
    (0.18, (35, 110), (0, 35), (0, 110), (-20, 70)),  # forward
    (0.16, (120, 185), (-5, 40), (0, 80), (-40, 60)),  # raised
    (0.12, (-15, 30), (55, 120), (0, 100), (-60, 60)),  # sideways
    (0.10, (-45, -10), (25, 55), (70, 110), (60, 110)),  # hands on the hips
    (0.12, (-40, 170), (0, 90), (0, 130), (-60, 90)),  # anything
)
_ARM_SHARES = np.array([a[0] for a in _ARMS])


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw joint angles from the ranges of one family of poses, and a point of view."""
    family = list(_FAMILIES.values())[rng.choice(len(_FAMILIES), p=_FAMILY_SHARES)]
    _, pitch, flexion, abduction, knees, roll = family
    legs = [
        (*_draw(rng, f, abduction), *_draw(rng, k)) for f, k in zip(flexion, knees, strict=True)
    ]
    if rng.random() < 0.5:
        legs.reverse()
    arms = _sample_arms(rng)
    (whole_roll,) = _draw(rng, roll)
    if roll[0] >= 60 and rng.random() < 0.5:
        whole_roll = -whole_roll
    return Pose(
        yaw=_sample_yaw(rng),
        tilt=rng.uniform(-5, 22),
        roll=whole_roll,
        trunk=_draw(rng, pitch, (-14, 14), (-25, 25)),
        head=_draw(rng, (-25, 25), (-18, 18), (-45, 45)),
        hips=tuple((flex, out) for flex, out, _ in legs),
        knees=tuple(knee for _, _, knee in legs),
        shoulders=tuple((flex, out) for flex, out, _, _ in arms),
        elbows=tuple((flex, turn) for _, _, flex, turn in arms),
    )


def pose_body(build: Build, pose: Pose) -> Skeleton3D:
    """Put a body of these proportions into a pose and turn it before the camera."""
    trunk = _rotation(0, pose.trunk[0]) @ _rotation(2, pose.trunk[1]) @ _rotation(1, pose.trunk[2])
    head = trunk @ _rotation(1, pose.head[2]) @ _rotation(0, pose.head[0])
    head = head @ _rotation(2, pose.head[1])
    points = _spine(build, pose, trunk)
    points |= _face(build, points["head"], head)
    for index, (name, side) in enumerate(SIDES):
        points |= _leg(build, name, side, pose.hips[index], pose.knees[index])
        shoulder = points["chest"] + trunk @ [side * build.shoulders, 0, 0]
        points |= _arm(
            build, name, side, shoulder, trunk, pose.shoulders[index], pose.elbows[index]
        )
    camera = _camera(pose)
    moved = np.stack(list(points.values())) @ camera.T
    return Skeleton3D(
        dict(zip(points, moved, strict=True)), (camera @ trunk).T, (camera @ head).T, build
    )


def _draw(rng: np.random.Generator, *ranges: tuple[float, float]) -> tuple[float, ...]:
    return tuple(float(rng.uniform(low, high)) for low, high in ranges)


def _sample_yaw(rng: np.random.Generator) -> float:
    """Front, back and both side views, each with a spread that makes them meet."""
    center, spread = ((0, 30), (180, 30), (90, 22), (-90, 22))[
        rng.choice(4, p=(0.42, 0.26, 0.16, 0.16))
    ]
    return float(rng.normal(center, spread))


def _sample_arms(rng: np.random.Generator) -> list[tuple[float, ...]]:
    """Both arms of one kind in half of the draws, of two kinds otherwise."""
    first, second = rng.choice(len(_ARMS), size=2, p=_ARM_SHARES)
    kinds = (first, first if rng.random() < 0.5 else second)
    return [_draw(rng, *_ARMS[kind][1:]) for kind in kinds]


def _rotation(axis: int, degrees: float) -> Matrix:
    """Rotation about an axis: 0 tips up towards forward, 1 forward to the left, 2 left to up."""
    angle = np.deg2rad(degrees)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def _camera(pose: Pose) -> Matrix:
    """Camera from body: turn, change axes, look down, roll in the picture."""
    turned = _CAMERA_FROM_BODY @ _rotation(1, -pose.yaw)
    return _rotation(2, pose.roll) @ _rotation(0, pose.tilt) @ turned


def _swing(side: float, flexion: float, abduction: float) -> Vector:
    """Unit direction of a limb that hangs down when both angles (degrees) are zero."""
    flexion, abduction = np.deg2rad(flexion), np.deg2rad(abduction)
    down, out = np.cos(abduction), side * np.sin(abduction)
    return np.array([out, -down * np.cos(flexion), down * np.sin(flexion)])


def _across(direction: Vector, towards: Vector) -> Vector:
    """Unit vector at right angles to `direction`, as near as can be to `towards`."""
    rest = towards - direction * (direction @ towards)
    return rest / max(float(np.linalg.norm(rest)), 1e-6)


def _spine(build: Build, pose: Pose, trunk: Matrix) -> dict[str, Vector]:
    """Pelvis to head; the lower spine takes half of the bend."""
    lower = _rotation(0, pose.trunk[0] / 2) @ _rotation(2, pose.trunk[1] / 2)
    waist = lower @ [0, 0.4 * build.trunk, 0]
    chest = waist + trunk @ [0, 0.6 * build.trunk, 0]
    head = chest + trunk @ [0, build.neck + build.head, 0.25 * build.head]
    return {"pelvis": np.zeros(3), "waist": waist, "chest": chest, "head": head}


_FACE = {  # in head radii from the centre of the head
    "nose": (0, -0.15, 1.08),
    "left_eye": (0.38, 0.14, 0.88),
    "right_eye": (-0.38, 0.14, 0.88),
    "left_ear": (0.98, -0.05, -0.05),
    "right_ear": (-0.98, -0.05, -0.05),
    "mouth": (0, -0.55, 0.86),
    "chin": (0, -0.62, 0.28),
}


def _face(build: Build, center: Vector, head: Matrix) -> dict[str, Vector]:
    return {name: center + build.head * (head @ offset) for name, offset in _FACE.items()}


def _leg(
    build: Build, name: str, side: float, hip_angles: tuple[float, float], knee_flexion: float
) -> dict[str, Vector]:
    flexion, abduction = hip_angles
    hip = np.array([side * build.hips, 0, 0])
    knee = hip + build.thigh * _swing(side, flexion, abduction)
    shin = _swing(side, flexion - knee_flexion, 0.6 * abduction)
    ankle = knee + build.shin * shin
    forward = _across(shin, np.array([0.25 * side, 0.3, 1]))
    heel = ankle + 0.03 * shin - 0.015 * forward
    return {
        f"{name}_hip": hip,
        f"{name}_knee": knee,
        f"{name}_ankle": ankle,
        f"{name}_heel": heel,
        f"{name}_toe": heel + 0.095 * forward,
    }


def _arm(
    build: Build,
    name: str,
    side: float,
    shoulder: Vector,
    trunk: Matrix,
    shoulder_angles: tuple[float, float],
    elbow_angles: tuple[float, float],
) -> dict[str, Vector]:
    upper = _swing(side, *shoulder_angles)
    flexion, turn = np.deg2rad(elbow_angles)
    # The elbow bends forwards; the turn of the upper arm carries the forearm inwards.
    hinge = _across(upper, np.array([-side * np.sin(turn), 0.25, np.cos(turn)]))
    forearm = np.cos(flexion) * upper + np.sin(flexion) * hinge
    elbow = shoulder + build.upper_arm * (trunk @ upper)
    wrist = elbow + build.forearm * (trunk @ forearm)
    return {
        f"{name}_shoulder": shoulder,
        f"{name}_elbow": elbow,
        f"{name}_wrist": wrist,
        f"{name}_hand": wrist + 0.045 * (trunk @ forearm),
    }
