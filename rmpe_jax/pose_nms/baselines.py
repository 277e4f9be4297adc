"""Baselines for parametric pose NMS: NMS of boxes, and hard and soft NMS of poses by OKS.

Each function takes the candidates of one image; `vmap` it over images, as `pose_nms`. None of them
merges poses. A person's score is the box score times the mean joint score.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rmpe_jax.ops import geometry
from rmpe_jax.ops.greedy import greedy_assignment
from rmpe_jax.ops.oks import oks
from rmpe_jax.pose_nms.suppression import NmsResult, PoseCandidates, in_input_order, zero_padding


def box_nms(candidates: PoseCandidates, threshold: float | Float[Array, ""] = 0.6) -> NmsResult:
    """Greedy NMS of the detector's boxes: drop boxes that overlap a better one by more.

    Args:
      candidates: poses and the boxes that they were found in.
      threshold: intersection over union.
    """
    people = zero_padding(candidates)
    overlap = geometry.box_iou(people.bboxes, people.bboxes)
    return _eliminate(people, people.bbox_scores, overlap > threshold)


def oks_nms(
    candidates: PoseCandidates,
    sigmas: Float[np.ndarray, " k"],
    threshold: float | Float[Array, ""] = 0.9,
) -> NmsResult:
    """Greedy NMS of poses by object keypoint similarity (Papandreou et al., CVPR 2017).

    Args:
      candidates: poses and the boxes that they were found in.
      sigmas: per joint, as in `Skeleton.sigmas`.
      threshold: OKS, at the mean area of the two boxes.
    """
    people = zero_padding(candidates)
    return _eliminate(people, _scores(people), _mutual_oks(people, sigmas) > threshold)


def soft_oks_nms(
    candidates: PoseCandidates,
    sigmas: Float[np.ndarray, " k"],
    threshold: float | Float[Array, ""] = 0.9,
) -> NmsResult:
    """Soft NMS (Bodla et al., ICCV 2017) by OKS: keep all poses, lower redundant ones' scores.

    Args:
      candidates: poses and the boxes that they were found in.
      sigmas: per joint, as in `Skeleton.sigmas`.
      threshold: each better pose multiplies the score by exp(-OKS² / threshold).
    """
    people = zero_padding(candidates)
    decay = jnp.exp(-(_mutual_oks(people, sigmas) ** 2) / threshold)
    index = jnp.arange(len(people.valid))

    def visit(_, state):
        scores, waiting = state
        best = jnp.argmax(jnp.where(waiting, scores, -1))
        waiting &= index != best
        return jnp.where(waiting, scores * decay[best], scores), waiting

    scores, _ = jax.lax.fori_loop(0, len(index), visit, (_scores(people), people.valid))
    return in_input_order(
        index,
        people.keypoints,
        people.keypoint_scores,
        scores,
        people.valid,
        jnp.where(people.valid, index, len(index)),
    )


def _scores(people: PoseCandidates) -> Float[Array, " n"]:
    return people.bbox_scores * people.keypoint_scores.mean(-1)


def _mutual_oks(people: PoseCandidates, sigmas: Float[np.ndarray, " k"]) -> Float[Array, "n n"]:
    area = geometry.box_area(people.bboxes)
    labeled = jnp.ones_like(people.keypoint_scores)

    def with_all(keypoints: Float[Array, "k 2"], own_area: Float[Array, ""]) -> Float[Array, " n"]:
        mean_area = (own_area + area) / 2
        return oks(keypoints[None], people.keypoints, labeled, mean_area, sigmas)[0]

    return jax.vmap(with_all)(people.keypoints, area)


def _eliminate(
    people: PoseCandidates, rank_by: Float[Array, " n"], redundant: Bool[Array, "n n"]
) -> NmsResult:
    order = jnp.argsort(-jnp.where(people.valid, rank_by, -jnp.inf), stable=True)
    scores = _scores(people)[order]
    people = PoseCandidates(*(values[order] for values in people))
    reference = greedy_assignment(redundant[order[:, None], order], people.valid)
    keep = reference == jnp.arange(len(order))
    return in_input_order(order, people.keypoints, people.keypoint_scores, scores, keep, reference)
