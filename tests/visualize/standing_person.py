"""A gray image, the pose of a standing person on it, and a way to read pixels."""

import numpy as np

from rmpe_jax.skeletons import COCO

GRAY = np.full((240, 200, 3), 128, np.uint8)


def standing():
    """The pose of a person about 180 pixels high, in the middle of `GRAY` and facing the camera."""
    positions = {"nose": (100, 35), "eye": (5, 30), "ear": (10, 32), "shoulder": (25, 60)}
    positions |= {"elbow": (35, 95), "wrist": (38, 125), "hip": (16, 120), "knee": (18, 165)}
    positions |= {"ankle": (18, 210)}
    pose = np.zeros((17, 2))
    for j, joint in enumerate(COCO.joints):
        x, y = positions[joint.split("_")[-1]]
        pose[j] = {"left": (100 + x, y), "right": (100 - x, y)}.get(joint.split("_")[0], (x, y))
    return pose


def color_at(image, point):
    return tuple(int(v) for v in image[round(point[1]), round(point[0])])


def middle(pose, a, b):
    return (pose[COCO.index(a)] + pose[COCO.index(b)]) / 2
