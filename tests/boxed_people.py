"""People in two kinds of poses, and a detector whose boxes depend on the pose."""

import numpy as np

from rmpe_jax.skeletons import LSP

_UP = {"ankle": 3.0, "knee": 2.0, "hip": 1.0, "shoulder": 0.0, "elbow": 0.4, "wrist": 0.8}
_UP |= {"upper_neck": -0.2, "head_top": -0.6}


def standing() -> np.ndarray:
    """(14, 2) joints of LSP, torso of length 1, seen from the front."""
    names = [joint.removeprefix("left_").removeprefix("right_") for joint in LSP.joints]
    sides = [(j[:4] == "left") * 1.0 - (j[:5] == "right") for j in LSP.joints]
    spread = {"shoulder": 0.3, "elbow": 0.45, "wrist": 0.5}
    x = [side * spread.get(name, 0.25) for side, name in zip(sides, names, strict=True)]
    return np.stack([x, [_UP[name] for name in names]], -1)


def people(rng: np.random.Generator, n: int, missing: float = 0.1):
    """n people, standing or lying (head to the left or to the right), and a box for each.

    Boxes of standing people are too wide by 10 % on both sides. Boxes of lying people lack the
    feet, which is 20 %.

    Returns:
      keypoints (n, 14, 2) with NaN, gt_bboxes, det_bboxes, and kinds: 0 standing, 1 head to the
      left, 2 head to the right.
    """
    kinds = rng.integers(0, 3, n)
    up = standing()
    shapes = np.stack([up, up[:, ::-1] * (1, -1), up[:, ::-1] * (-1, 1)])
    scale = rng.uniform(20, 80, (n, 1, 1))
    keypoints = shapes[kinds] + rng.normal(0, 0.05, (n, 14, 2))
    keypoints = keypoints * scale + rng.uniform(0, 400, (n, 1, 2))
    gt = np.concatenate([keypoints.min(1), keypoints.max(1)], -1)
    offsets = np.array([[-0.1, 0, 0.1, 0], [0, 0, -0.2, 0], [0.2, 0, 0, 0]])[kinds]
    offsets = offsets + rng.normal(0, 0.03, (n, 4))
    det = gt + offsets * np.tile(gt[:, 2:] - gt[:, :2], 2)
    keypoints[rng.random((n, 14)) < missing] = np.nan
    return keypoints.astype(np.float32), gt.astype(np.float32), det.astype(np.float32), kinds
