"""Learn the parameters of pose NMS from data: those with the highest AP on annotated images.

As in Fang et al. (ICCV 2017, section 3.2), two of the four parameters at a time are searched
exhaustively, see `ops.grid_search`. All parameter sets of a search are one compiled program.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rmpe_jax.errors import UserError
from rmpe_jax.ops.average_precision import ALL_SIZES, GroundTruth, ScoredPoses, average_precision
from rmpe_jax.ops.grid_search import Point, Search, alternating_search, at_limits
from rmpe_jax.pose_nms.params import NmsVariant, PoseNmsParams
from rmpe_jax.pose_nms.similarity import joint_weights
from rmpe_jax.pose_nms.suppression import NmsResult, PoseCandidates, pose_nms_batch
from rmpe_jax.skeletons import Skeleton

# Search ranges; lengths in the variant's unit. eta is searched as a fraction of the similarity d of
# identical poses with high scores, k (1 + lam) if all joints count, so that a value of eta_fraction
# keeps its meaning when lam changes.
RANGES = {
    "sigma1": (0.005, 10.0),
    "sigma2": (0.1, 200.0),
    "lam": (0.1, 100.0),
    "eta_fraction": (0.03, 0.95),
}
PAIRS = (("lam", "eta_fraction"), ("sigma2", "eta_fraction"), ("sigma1", "eta_fraction"))

NmsObjective = Callable[[NmsResult, GroundTruth], Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class PoseNmsFit:
    """Learned parameters and how they were found.

    Attributes:
      params: the best parameters.
      score: their score.
      start_score: the score of the parameters that the search started from.
      searches: in order.
      at_limits: names of the parameters that ended at the end of their range in `RANGES`.
    """

    params: PoseNmsParams
    score: float
    start_score: float
    searches: tuple[Search, ...]
    at_limits: tuple[str, ...]


def oks_ap(sigmas: Float[np.ndarray, " k"]) -> NmsObjective:
    """COCO's AP (mean over OKS .50 to .95, people of all sizes) as an objective."""

    def objective(poses: NmsResult, ground_truth: GroundTruth) -> Float[Array, ""]:
        area = jnp.zeros_like(poses.scores)  # has no effect if all sizes count
        found = ScoredPoses(poses.keypoints, poses.scores, area, poses.keep)
        return average_precision(found, ground_truth, sigmas, ALL_SIZES).precision.mean()

    return objective


def fit_pose_nms(
    candidates: Sequence[PoseCandidates],
    ground_truth: GroundTruth,
    objective: NmsObjective,
    start: PoseNmsParams,
    *,
    skeleton: Skeleton | None = None,
    steps: int = 15,
    tolerance: float = 1e-4,
    max_sweeps: int = 6,
    max_people: int = 20,
    report: Callable[[Search], None] = lambda search: None,
) -> PoseNmsFit:
    """Alternating two-parameter search; each sweep searches half the range around the best so far.

    Args:
      candidates: groups of images, each group padded to its own number of people (see
        `evaluation.nms.candidate_groups`).
      ground_truth: the images of the first group, then those of the second, and so on.
      objective: of the poses that NMS keeps, to be maximized, such as `oks_ap(COCO.sigmas)`.
      start: where the search starts; its variant is kept.
      skeleton: of the poses; optional if `start.variant.joints` is "all".
      steps: values of each parameter in a search, so steps² parameter sets.
      tolerance: a sweep that gains less ends the search (1e-4 is 0.01 AP points).
      max_sweeps: the search ends after this many sweeps.
      max_people: the objective gets this many people of each image, those of highest score.
      report: called after every search.

    Raises:
      UserError: the variant needs a skeleton, or another one, or poses and ground truth have
        different numbers of joints.
    """
    num_keypoints = candidates[0].keypoints.shape[-2]
    num_annotated = ground_truth.keypoints.shape[-2]
    if num_annotated != num_keypoints:
        raise UserError(
            f"pose NMS: poses have {num_keypoints} joints, the ground truth has {num_annotated}: "
            "give both in one joint set"
        )
    identical = functools.partial(
        _identical_similarity, variant=start.variant, num_keypoints=num_keypoints, skeleton=skeleton
    )

    def scores_of(points: list[Point]) -> Float[np.ndarray, " p"]:
        scores = evaluate_params(
            _params(points, start.variant, identical),
            tuple(candidates),
            ground_truth,
            objective=objective,
            max_people=max_people,
            # A CPU is fastest with one set in its caches, an accelerator with a row of the grid.
            batch_size=1 if jax.default_backend() == "cpu" else steps,
            skeleton=skeleton,
        )
        return np.asarray(scores, np.float64)

    point, searches = alternating_search(
        scores_of,
        _point(start, identical),
        PAIRS,
        RANGES,
        steps=steps,
        tolerance=tolerance,
        max_sweeps=max_sweeps,
        report=report,
    )
    params = jax.tree.map(lambda v: float(v[0]), _params([point], start.variant, identical))
    scores = searches[-1].score, searches[0].previous_score
    return PoseNmsFit(params, *scores, searches, at_limits(point, RANGES))


@functools.partial(jax.jit, static_argnames=("objective", "max_people", "batch_size", "skeleton"))
def evaluate_params(
    params: PoseNmsParams,
    candidates: tuple[PoseCandidates, ...],
    ground_truth: GroundTruth,
    *,
    objective: NmsObjective,
    max_people: int,
    batch_size: int,
    skeleton: Skeleton | None = None,
) -> Float[Array, " p"]:
    """The objective of `p` parameter sets, which are arrays (p,) in `params`.

    Args:
      batch_size: sets evaluated at once, a divisor of p. Each set takes a few times 4 bytes of
        memory for each pair of candidates of an image.

    Other arguments as in `fit_pose_nms`.
    """

    def evaluate(one: PoseNmsParams) -> Float[Array, ""]:
        groups = [
            best_people(pose_nms_batch(group, one, skeleton), max_people) for group in candidates
        ]
        return objective(jax.tree.map(lambda *v: jnp.concatenate(v), *groups), ground_truth)

    return jax.lax.map(evaluate, params, batch_size=batch_size)


def best_people(poses: NmsResult, number: int) -> NmsResult:
    """The people of highest score in each image, padded to `number`; cluster is -1."""
    missing = max(number - poses.scores.shape[-1], 0)
    rank = jnp.where(poses.keep, -poses.scores, jnp.inf)
    order = jnp.argsort(rank, axis=-1, stable=True)[:, :number]
    rows = jnp.arange(len(order))[:, None]

    def pick(values: Array) -> Array:
        return jnp.pad(values[rows, order], [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2))

    picked = NmsResult(*map(pick, poses))
    return picked._replace(cluster=jnp.full_like(picked.cluster, -1))


def _point(params: PoseNmsParams, identical: Callable[[Any], Any]) -> Point:
    point = {
        "sigma1": params.sigma1,
        "sigma2": params.sigma2,
        "lam": params.lam,
        "eta_fraction": params.eta / identical(params.lam),
    }
    return {name: float(value) for name, value in point.items()}


def _params(
    points: list[Point], variant: NmsVariant, identical: Callable[[Any], Any]
) -> PoseNmsParams:
    column = {name: jnp.array([point[name] for point in points], jnp.float32) for name in RANGES}
    eta = column.pop("eta_fraction") * identical(column["lam"])
    return PoseNmsParams(**column, eta=eta, variant=variant)


def _identical_similarity(
    lam: Any, variant: NmsVariant, num_keypoints: int, skeleton: Skeleton | None
) -> Any:
    """d between identical poses with high scores: k (1 + lam), if all joints count."""
    weights = joint_weights(num_keypoints, variant, skeleton)
    return float(weights.matching.sum()) + float(weights.closeness.sum()) * lam
