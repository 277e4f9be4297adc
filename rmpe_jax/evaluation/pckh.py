"""PCKh: the percentage of joints within half a head size of the annotation.

Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis", CVPR
2014, as in the evaluation script of MPII for single people. A joint is correct if its distance over
the head size is <= threshold. Each column is the mean of the percentages of its two joints (Head:
upper neck and head top). PCKh is the percentage over all annotated joints together, without pelvis
and thorax. (The Python evaluation published with later networks differs in one column: its Head is
the head top alone.)

MPII's head size is 0.6 times the diagonal of the annotated head rectangle. LSP has no head
rectangles; the distance from head top to upper neck is used instead, so values on LSP are not
comparable with those on MPII.
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

    Row i of `keypoints` is the prediction for person i. A NaN prediction is a miss. People whose
    head size is NaN or not positive are skipped, and their number is logged.

    Args:
      keypoints: predictions, image pixels.
      gt_keypoints: annotations, image pixels.
      annotated: which joints of `gt_keypoints` are annotated.
      head_sizes: pixels.
      threshold: maximum distance of a correct joint, in head sizes.
      skeleton: joints of both arrays.

    Returns:
      `Head`, `Shoulder`, `Elbow`, `Wrist`, `Hip`, `Knee`, `Ankle` and `PCKh`; NaN if nothing is
      annotated.

    Raises:
      UserError: the poses do not have the joints of the skeleton, or it lacks one of the above.
    """
    skeleton.check_num_keypoints(keypoints.shape[1], "PCKh: predictions")
    skeleton.check_num_keypoints(gt_keypoints.shape[1], "PCKh: annotations")
    usable = head_sizes > 0
    if not usable.all():
        logging.getLogger(__name__).warning(
            "PCKh: %d people have no head size and are skipped", int(np.sum(~usable))
        )
    distances = np.linalg.norm(keypoints[usable] - gt_keypoints[usable], axis=-1)
    correct = distances <= threshold * head_sizes[usable, None]
    joints = [[skeleton.index(joint) for joint in pair] for pair in COLUMNS.values()]
    counted = annotated[usable].astype(bool)
    values = {
        name: _mean([_percentage(correct[:, j], counted[:, j]) for j in pair])
        for name, pair in zip(COLUMNS, joints, strict=True)
    }
    every = np.concatenate(joints)
    return {**values, "PCKh": _percentage(correct[:, every], counted[:, every])}


def head_sizes_from_keypoints(
    keypoints: Float[np.ndarray, "n k 2"], annotated: Bool[np.ndarray, "n k"], skeleton: Skeleton
) -> Float[np.ndarray, " n"]:
    """Distance from head top to upper neck in pixels; NaN if one of them is not annotated.

    Raises:
      UserError: the keypoints do not have the joints of the skeleton, or it lacks one of the two.
    """
    skeleton.check_num_keypoints(keypoints.shape[1], "head sizes: poses")
    ends = [skeleton.index("head_top"), skeleton.index("upper_neck")]
    sizes = np.linalg.norm(keypoints[:, ends[0]] - keypoints[:, ends[1]], axis=-1)
    return np.where(annotated[:, ends].all(-1), sizes, np.nan)


def _percentage(correct: Bool[np.ndarray, "*n"], counted: Bool[np.ndarray, "*n"]) -> float:
    return 100 * float(correct[counted].mean()) if counted.any() else float("nan")


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
