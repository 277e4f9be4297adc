"""Annotations of a scene: keypoints with COCO's visibility, and boxes."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmpe_jax import skeletons
from rmpe_jax.data.synthetic.figure import PARTS, Figure

NOT_LABELED, OCCLUDED, VISIBLE = 0, 1, 2

_JOINTS = skeletons.COCO.joints
_FACE = slice(0, 5)
# A facial feature is visible up to this cosine between the viewing direction and the direction the
# feature faces. Nose and ears protrude from the head, eyes do not.
_MAX_COSINE = np.array([0.25, 0.1, 0.1, 0.3, 0.3])
_PARTS_OF_JOINT = {
    "shoulder": ("trunk", "{side}_upper_arm"),
    "elbow": ("{side}_upper_arm", "{side}_forearm"),
    "wrist": ("{side}_forearm",),
    "hip": ("trunk", "pelvis", "{side}_thigh"),
    "knee": ("{side}_thigh", "{side}_shin", "pelvis"),
    "ankle": ("{side}_shin",),
}
_FAR_SIDE = 0.045  # of the standing height; joints this far behind the spine are occluded


def _parts_of_joints() -> Bool[np.ndarray, "k parts"]:
    """Table of the parts each joint belongs to: it is visible if one of them is seen there."""
    table = np.zeros((len(_JOINTS), len(PARTS)), bool)
    for row, joint in enumerate(_JOINTS):
        side, _, kind = joint.rpartition("_")
        for part in _PARTS_OF_JOINT.get(kind, ("head",)):
            table[row, PARTS.index(part.format(side=side))] = True
    return table


_IS_PART_OF_JOINT = _parts_of_joints()


def label_keypoints(
    figure: Figure, ids: UInt8[np.ndarray, "h w"], first_id: int
) -> tuple[Float[np.ndarray, "17 2"], UInt8[np.ndarray, " 17"]]:
    """Keypoints in image pixels, and their visibility.

    As in COCO, joints outside the image and the features of a face turned away are not labeled:
    their visibility and coordinates are 0. Other joints have visibility 2 if the image shows a part
    they belong to at their position, else 1.

    Args:
      figure: the person.
      ids: the id of the part or object that each pixel of the finished image shows.
      first_id: id of the person's first part.
    """
    keypoints = figure.project(figure.joints).astype(np.float32)
    height, width = ids.shape
    x, y = np.rint(keypoints).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    part = ids[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)].astype(int) - first_id
    own = (part >= 0) & (part < len(PARTS))
    shown = (
        own
        & _IS_PART_OF_JOINT[np.arange(len(_JOINTS)), np.where(own, part, 0)]
        & ~_far_side(figure)
    )
    visibility = np.where(shown, VISIBLE, OCCLUDED).astype(np.uint8)
    visibility[~inside | _turned_away(figure)] = NOT_LABELED
    keypoints[visibility == NOT_LABELED] = 0
    return keypoints, visibility


def silhouette_box(mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, " 4"]:
    """Box (xyxy) on the outer edges of the mask's pixels, as in COCO."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _turned_away(figure: Figure) -> Bool[np.ndarray, " 17"]:
    """Which joints are facial features hidden by the head itself."""
    joints, center = figure.joints, figure.skeleton.points["head"]
    outward = joints[_FACE] - center
    cosine = outward[:, 2] / np.linalg.norm(outward, axis=-1)
    away = np.zeros(len(joints), bool)
    away[_FACE] = cosine > _MAX_COSINE
    return away


def _far_side(figure: Figure) -> Bool[np.ndarray, " 17"]:
    """Which joints are shoulders and hips on the far side of the trunk."""
    joints, points = figure.joints, figure.skeleton.points
    far = np.zeros(len(joints), bool)
    for kind, spine in (("shoulder", "chest"), ("hip", "pelvis")):
        rows = [row for row, joint in enumerate(_JOINTS) if joint.endswith(kind)]
        far[rows] = joints[rows, 2] > points[spine][2] + _FAR_SIDE
    return far
