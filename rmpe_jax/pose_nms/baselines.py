"""What parametric pose NMS is compared with: NMS of boxes, and of poses by OKS, hard and soft.

Functions of one picture's proposals, to be mapped over pictures like `pose_nms`. None of them
merges poses. A person's score is the box's times the mean of the joints'.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rmpe_jax.ops import geometry
from rmpe_jax.ops.oks import oks
from rmpe_jax.pose_nms.suppression import (
    Poses,
    Proposals,
    assign,
    in_given_order,
    without_padding,
)


def box_nms(proposals: Proposals, threshold: float | Float[Array, ""] = 0.6) -> Poses:
    """Greedy NMS of the detector's boxes: those go that overlap a better one by more.

    Args:
      threshold: intersection over union.
    """
    people = without_padding(proposals)
    overlap = geometry.box_iou(people.bboxes, people.bboxes)
    return _eliminate(people, people.bbox_scores, overlap > threshold)


def oks_nms(
    proposals: Proposals,
    sigmas: Float[np.ndarray, " k"],
    threshold: float | Float[Array, ""] = 0.9,
) -> Poses:
    """Greedy NMS of poses by object keypoint similarity (Papandreou et al., CVPR 2017).

    Args:
      sigmas: per joint, as in `Skeleton.sigmas`.
      threshold: OKS, at the mean area of the two boxes.
    """
    people = without_padding(proposals)
    return _eliminate(people, _scores(people), _mutual_oks(people, sigmas) > threshold)


def soft_oks_nms(
    proposals: Proposals,
    sigmas: Float[np.ndarray, " k"],
    threshold: float | Float[Array, ""] = 0.9,
) -> Poses:
    """Soft NMS (Bodla et al., ICCV 2017) by OKS: nobody goes, the redundant lose score.

    Args:
      sigmas: per joint, as in `Skeleton.sigmas`.
      threshold: with each better pose the score becomes exp(-OKS² / threshold) of what it was.
    """
    people = without_padding(proposals)
    decay = jnp.exp(-(_mutual_oks(people, sigmas) ** 2) / threshold)
    index = jnp.arange(len(people.valid))

    def visit(_, state):
        scores, waiting = state
        best = jnp.argmax(jnp.where(waiting, scores, -1))
        waiting &= index != best
        return jnp.where(waiting, scores * decay[best], scores), waiting

    scores, _ = jax.lax.fori_loop(0, len(index), visit, (_scores(people), people.valid))
    return in_given_order(
        index,
        people.keypoints,
        people.keypoint_scores,
        scores,
        people.valid,
        jnp.where(people.valid, index, len(index)),
    )


def _scores(people: Proposals) -> Float[Array, " n"]:
    return people.bbox_scores * people.keypoint_scores.mean(-1)


def _mutual_oks(people: Proposals, sigmas: Float[np.ndarray, " k"]) -> Float[Array, "n n"]:
    area = geometry.box_area(people.bboxes)
    labelled = jnp.ones_like(people.keypoint_scores)

    def with_all(keypoints: Float[Array, "k 2"], own_area: Float[Array, ""]) -> Float[Array, " n"]:
        mean_area = (own_area + area) / 2
        return oks(keypoints[None], people.keypoints, labelled, mean_area, sigmas)[0]

    return jax.vmap(with_all)(people.keypoints, area)


def _eliminate(
    people: Proposals, rank_by: Float[Array, " n"], redundant: Bool[Array, "n n"]
) -> Poses:
    order = jnp.argsort(-jnp.where(people.valid, rank_by, -jnp.inf), stable=True)
    scores = _scores(people)[order]
    people = Proposals(*(values[order] for values in people))
    reference = assign(redundant[order[:, None], order], people.valid)
    keep = reference == jnp.arange(len(order))
    return in_given_order(order, people.keypoints, people.keypoint_scores, scores, keep, reference)
