"""A jointed 3D body: its proportions, its pose, and its position in the camera frame.

Body frame: (left, up, forward), origin midway between the hip joints; the unit is the standing
height.
Camera frame: (x right, y down, z away from the camera), same origin and unit. The projection is
orthographic: x and y times a scale in pixels are image coordinates relative to the pelvis.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

Vector = Float[np.ndarray, " 3"]
Matrix = Float[np.ndarray, "3 3"]

LEFT, RIGHT = 1.0, -1.0
SIDES = (("left", LEFT), ("right", RIGHT))

_CAMERA_FROM_BODY = np.diag([1.0, -1.0, -1.0])  # facing the camera, left is at the image's right


@dataclasses.dataclass(frozen=True)
class Build:
    """Body proportions as fractions of the standing height; shoulders and hips are half-widths."""

    head: float  # radius
    neck: float
    shoulders: float
    hips: float
    trunk: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    girth: float  # factor on the thickness of trunk and limbs


@dataclasses.dataclass(frozen=True)
class Pose:
    """Joint angles in degrees; of two rows or values, left comes before right.

    Attributes:
      yaw: rotation about the vertical; at 0 the person faces the camera, at 90 the left side does.
      tilt: downward tilt of the camera.
      roll: clockwise rotation of the body in the image.
      trunk: pitch forward, lean to the right, twist to the left.
      head: the same three angles, relative to the trunk.
      hips, shoulders: flexion (the limb swings forward) and abduction (away from the midline).
      knees: flexion.
      elbows: flexion, and inward rotation of the forearm.
    """

    yaw: float
    tilt: float
    roll: float
    trunk: Vector
    head: Vector
    hips: Float[np.ndarray, "2 2"]
    knees: Float[np.ndarray, " 2"]
    shoulders: Float[np.ndarray, "2 2"]
    elbows: Float[np.ndarray, "2 2"]


@dataclasses.dataclass(frozen=True)
class Skeleton3D:
    """A posed body in the camera frame.

    Attributes:
      points: position of each named point: COCO's joints, and `pelvis`, `waist`, `chest`, `head`,
        `mouth`, `chin`, and `hand`, `heel`, `toe` of each side.
      trunk, head: rows are the (left, up, forward) axes of chest and head.
      build: the body's proportions.
    """

    points: dict[str, Vector]
    trunk: Matrix
    head: Matrix
    build: Build


def pose_body(build: Build, pose: Pose) -> Skeleton3D:
    """Pose a body of these proportions and transform it to the camera frame."""
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


def _rotation(axis: int, degrees: float) -> Matrix:
    """Rotation about an axis: 0 turns up to forward, 1 forward to left, 2 left to up."""
    angle = np.deg2rad(degrees)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def _camera(pose: Pose) -> Matrix:
    """camera_from_body: yaw, change of axes, tilt, roll."""
    turned = _CAMERA_FROM_BODY @ _rotation(1, -pose.yaw)
    return _rotation(2, pose.roll) @ _rotation(0, pose.tilt) @ turned


def _swing(side: float, flexion: float, abduction: float) -> Vector:
    """Unit direction of a limb; it hangs down if both angles (degrees) are zero."""
    flexion, abduction = np.deg2rad(flexion), np.deg2rad(abduction)
    down, out = np.cos(abduction), side * np.sin(abduction)
    return np.array([out, -down * np.cos(flexion), down * np.sin(flexion)])


def _perpendicular(direction: Vector, toward: Vector) -> Vector:
    """Unit vector perpendicular to `direction`, as close to `toward` as possible."""
    rest = toward - direction * (direction @ toward)
    return rest / max(float(np.linalg.norm(rest)), 1e-6)


def _spine(build: Build, pose: Pose, trunk: Matrix) -> dict[str, Vector]:
    """Points from pelvis to head; the lower spine takes half of the trunk's bend."""
    lower = _rotation(0, pose.trunk[0] / 2) @ _rotation(2, pose.trunk[1] / 2)
    waist = lower @ [0, 0.4 * build.trunk, 0]
    chest = waist + trunk @ [0, 0.6 * build.trunk, 0]
    head = chest + trunk @ [0, build.neck + build.head, 0.25 * build.head]
    return {"pelvis": np.zeros(3), "waist": waist, "chest": chest, "head": head}


_FACE = {  # (left, up, forward) in head radii from the center of the head
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
    build: Build, name: str, side: float, hip_angles: Float[np.ndarray, " 2"], knee_flexion: float
) -> dict[str, Vector]:
    flexion, abduction = hip_angles
    hip = np.array([side * build.hips, 0, 0])
    knee = hip + build.thigh * _swing(side, flexion, abduction)
    shin = _swing(side, flexion - knee_flexion, 0.6 * abduction)
    ankle = knee + build.shin * shin
    forward = _perpendicular(shin, np.array([0.25 * side, 0.3, 1]))
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
    shoulder_angles: Float[np.ndarray, " 2"],
    elbow_angles: Float[np.ndarray, " 2"],
) -> dict[str, Vector]:
    upper = _swing(side, *shoulder_angles)
    flexion, turn = np.deg2rad(elbow_angles)
    # The elbow bends forward; rotating the upper arm moves the forearm inward.
    hinge = _perpendicular(upper, np.array([-side * np.sin(turn), 0.25, np.cos(turn)]))
    forearm = np.cos(flexion) * upper + np.sin(flexion) * hinge
    elbow = shoulder + build.upper_arm * (trunk @ upper)
    wrist = elbow + build.forearm * (trunk @ forearm)
    return {
        f"{name}_shoulder": shoulder,
        f"{name}_elbow": elbow,
        f"{name}_wrist": wrist,
        f"{name}_hand": wrist + 0.045 * (trunk @ forearm),
    }
