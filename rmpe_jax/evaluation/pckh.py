"""PCKh: the share of joints that lie within half a head size of the annotation.

Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis", CVPR
2014, as the data set's evaluation script computes it for single people: a joint is right if its
distance over the head size is <= threshold; each column is the mean of its two joints' shares (Head
of upper neck and head top); PCKh is the share over all annotated joints together, without pelvis
and thorax. (The Python evaluation that came with later networks differs in one column: its Head
is the head top alone.)

MPII's head size is 0.6 times the diagonal of the annotated head rectangle. LSP has no rectangle:
there the distance from head top to upper neck stands in, so its figures are ours and not comparable
with MPII's.
"""

import logging

import numpy as np
from jaxtyping import Bool, Float

from rmpe_jax.skeletons import MPII, Skeleton

COLUMNS = {
    "Head": ("upper_neck", "head_top"),
    **{
        part.capitalize(): (f"left_{part}", f"right_{part}")
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    },
}


def pckh(
    keypoints: Float[np.ndarray, "n k 2"],
    gt_keypoints: Float[np.ndarray, "n k 2"],
    annotated: Bool[np.ndarray, "n k"],
    head_sizes: Float[np.ndarray, " n"],
    threshold: float = 0.5,
    skeleton: Skeleton = MPII,
) -> dict[str, float]:
    """PCKh per pair of joints and over all, in percent.

    Row i of `keypoints` is the prediction for person i; a NaN prediction is a miss. People whose
    head size is NaN or not positive are left out, and their number is logged.

    Args:
      keypoints: image pixels, in `skeleton`.
      gt_keypoints: likewise.
      annotated: where `gt_keypoints` means something.
      head_sizes: pixels.
      threshold: in head sizes.

    Returns:
      `Head`, `Shoulder`, `Elbow`, `Wrist`, `Hip`, `Knee`, `Ankle` and `PCKh`; NaN where nothing is
      annotated.
    """
    usable = head_sizes > 0
    if not usable.all():
        left_out = int(np.sum(~usable))
        logging.getLogger(__name__).warning(
            "PCKh: %d people have no head size and are left out", left_out
        )
    distances = np.linalg.norm(keypoints[usable] - gt_keypoints[usable], axis=-1)
    right = distances <= threshold * head_sizes[usable, None]
    joints = [[skeleton.index(joint) for joint in pair] for pair in COLUMNS.values()]
    counted = annotated[usable].astype(bool)
    values = {
        name: _mean([_share(right[:, j], counted[:, j]) for j in pair])
        for name, pair in zip(COLUMNS, joints, strict=True)
    }
    every = np.concatenate(joints)
    return {**values, "PCKh": _share(right[:, every], counted[:, every])}


def head_sizes_from_keypoints(
    keypoints: Float[np.ndarray, "n k 2"], annotated: Bool[np.ndarray, "n k"], skeleton: Skeleton
) -> Float[np.ndarray, " n"]:
    """Distance from head top to upper neck in pixels; NaN where one is not annotated."""
    ends = [skeleton.index("head_top"), skeleton.index("upper_neck")]
    sizes = np.linalg.norm(keypoints[:, ends[0]] - keypoints[:, ends[1]], axis=-1)
    return np.where(annotated[:, ends].all(-1), sizes, np.nan)


def _share(right: Bool[np.ndarray, "..."], counted: Bool[np.ndarray, "..."]) -> float:
    return 100 * float(right[counted].mean()) if counted.any() else float("nan")


def _mean(shares: list[float]) -> float:
    known = [share for share in shares if not np.isnan(share)]
    return sum(known) / len(known) if known else float("nan")
