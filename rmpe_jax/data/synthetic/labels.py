"""What an annotator would write down: keypoints with COCO's visibility, boxes and areas."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmpe_jax import skeletons
from rmpe_jax.data.synthetic.figure import PARTS, Figure

NOT_LABELLED, OCCLUDED, VISIBLE = 0, 1, 2

_JOINTS = skeletons.COCO.joints
_FACE = slice(0, 5)
# Largest cosine between the line of sight and the direction in which a feature faces at which it
# is still seen: nose and ears stand out of the head, eyes do not.
_LAST_SEEN = np.array([0.25, 0.1, 0.1, 0.3, 0.3])
_SHOWN_BY = {
    "shoulder": ("trunk", "{side}_upper_arm"),
    "elbow": ("{side}_upper_arm", "{side}_forearm"),
    "wrist": ("{side}_forearm",),
    "hip": ("trunk", "pelvis", "{side}_thigh"),
    "knee": ("{side}_thigh", "{side}_shin", "pelvis"),
    "ankle": ("{side}_shin",),
}
_FAR_SIDE = 0.045  # of the standing height: so much behind the spine a joint is on the far side


def _owners() -> Bool[np.ndarray, "k parts"]:
    """The parts that show a joint when they are what is seen at its place."""
    table = np.zeros((len(_JOINTS), len(PARTS)), bool)
    for row, joint in enumerate(_JOINTS):
        side, _, kind = joint.rpartition("_")
        for part in _SHOWN_BY.get(kind, ("head",)):
            table[row, PARTS.index(part.format(side=side))] = True
    return table


_OWNERS = _owners()


def label_keypoints(
    figure: Figure, ids: UInt8[np.ndarray, "h w"], first_id: int
) -> tuple[Float[np.ndarray, "17 2"], UInt8[np.ndarray, " 17"]]:
    """Keypoints in picture pixels and their visibility.

    As in COCO, what lies outside the picture is not labelled, nor is a face turned away; both
    have visibility 0 and coordinates 0. Other joints are 2 if a part they belong to is what the
    picture shows at their place, else 1.

    Args:
      figure: the person.
      ids: what the finished picture shows at each pixel.
      first_id: id of the person's first part.
    """
    keypoints = figure.project(figure.joints).astype(np.float32)
    height, width = ids.shape
    x, y = np.rint(keypoints).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    seen = ids[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)].astype(int) - first_id
    own = (seen >= 0) & (seen < len(PARTS))
    shown = own & _OWNERS[np.arange(len(_JOINTS)), np.where(own, seen, 0)] & ~_far_side(figure)
    visibility = np.where(shown, VISIBLE, OCCLUDED).astype(np.uint8)
    visibility[~inside | _turned_away(figure)] = NOT_LABELLED
    keypoints[visibility == NOT_LABELLED] = 0
    return keypoints, visibility


def silhouette_box(mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, " 4"]:
    """Box (x1, y1, x2, y2) on the outer edges of the mask's pixels, COCO's convention."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _turned_away(figure: Figure) -> Bool[np.ndarray, " 17"]:
    """Features of the face that the head itself hides."""
    joints, center = figure.joints, figure.skeleton.points["head"]
    outward = joints[_FACE] - center
    cosine = outward[:, 2] / np.linalg.norm(outward, axis=-1)
    away = np.zeros(len(joints), bool)
    away[_FACE] = cosine > _LAST_SEEN
    return away


def _far_side(figure: Figure) -> Bool[np.ndarray, " 17"]:
    """Shoulders and hips behind the trunk, though trunk is what is seen at their place."""
    joints, points = figure.joints, figure.skeleton.points
    far = np.zeros(len(joints), bool)
    for kind, spine in (("shoulder", "chest"), ("hip", "pelvis")):
        rows = [row for row, joint in enumerate(_JOINTS) if joint.endswith(kind)]
        far[rows] = joints[rows, 2] > points[spine][2] + _FAR_SIDE
    return far
