"""The parameters of pose NMS from data: those with the greatest AP on annotated pictures.

As Fang et al. (ICCV 2017, section 3.2) do it: two of the four parameters at a time are searched
exhaustively while the others stay, again and again until nothing improves. Which ranges, steps and
order they used is not published; these are ours. All parameter sets of a search are one compiled
program.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Float

from rmpe_jax.ops.average_precision import ALL_SIZES, Detections, GroundTruth, average_precision
from rmpe_jax.pose_nms.params import Form, PoseNmsParams
from rmpe_jax.pose_nms.similarity import joint_weights
from rmpe_jax.pose_nms.suppression import Poses, Proposals, pose_nms_batch

# Where to search; lengths in units of the form, as the parameters. eta is searched as its share of
# d between identical sure poses, k (1 + lam) if all joints count: so it keeps its meaning when lam
# moves.
RANGES = {"sigma1": (0.005, 1.0), "sigma2": (0.1, 20.0), "lam": (0.1, 10.0), "share": (0.03, 0.95)}
PAIRS = (("lam", "share"), ("sigma2", "share"), ("sigma1", "share"))

Objective = Callable[[Poses, GroundTruth], Float[Array, ""]]
Point = dict[str, float]  # a value for each of `RANGES`


@dataclasses.dataclass(frozen=True)
class Search:
    """An exhaustive search over two parameters.

    Attributes:
      sweep: which round of all pairs it belongs to, from 1.
      names: of the two parameters.
      values: what they took, ascending.
      scores: of each pair of values.
      before: the score of the parameters so far, which are among the values.
      best: the chosen pair.
      score: its score; that of all four parameters from then on.
    """

    sweep: int
    names: tuple[str, str]
    values: tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]
    scores: Float[np.ndarray, "s s"]
    before: float
    best: tuple[float, float]
    score: float


@dataclasses.dataclass(frozen=True)
class PoseNmsFit:
    """Learned parameters and how they were found.

    Attributes:
      params: the best.
      score: theirs.
      start_score: of the parameters that the search began with.
      searches: in order.
    """

    params: PoseNmsParams
    score: float
    start_score: float
    searches: tuple[Search, ...]


def oks_ap(sigmas: Float[np.ndarray, " k"]) -> Objective:
    """COCO's AP (mean over OKS .50 to .95, people of all sizes) as an objective."""

    def objective(poses: Poses, ground_truth: GroundTruth) -> Float[Array, ""]:
        area = jnp.zeros_like(poses.scores)  # of no effect if all sizes count
        detections = Detections(poses.keypoints, poses.scores, area, poses.keep)
        return average_precision(detections, ground_truth, sigmas, ALL_SIZES).precision.mean()

    return objective


def fit_pose_nms(
    proposals: Sequence[Proposals],
    ground_truth: GroundTruth,
    objective: Objective,
    start: PoseNmsParams,
    *,
    steps: int = 15,
    tolerance: float = 1e-4,
    max_sweeps: int = 6,
    max_people: int = 20,
    report: Callable[[Search], None] = lambda search: None,
) -> PoseNmsFit:
    """Alternating two-parameter search; every sweep looks half as far around the best so far.

    Args:
      proposals: groups of pictures, each padded to a number of people of its own (see
        `evaluation.nms.proposal_groups`).
      ground_truth: the pictures of the first group, then of the second, and so on.
      objective: of what NMS leaves, to be maximised; such as `oks_ap(COCO.sigmas)`.
      start: where the search begins; its form stays.
      steps: values of each parameter in a search, so steps² parameter sets.
      tolerance: a sweep that gains less ends the search (1e-4 is 0.01 AP points).
      max_people: how many of each picture, by score, the objective sees.
      report: called after every search.
    """
    num_keypoints = proposals[0].keypoints.shape[-2]

    def scores_of(points: list[Point]) -> Float[np.ndarray, " p"]:
        scores = evaluate_params(
            _params(points, num_keypoints, start.form),
            tuple(proposals),
            ground_truth,
            objective=objective,
            max_people=max_people,
            # A CPU is fastest with one set in its caches, an accelerator with a row of the grid.
            batch_size=1 if jax.default_backend() == "cpu" else steps,
        )
        return np.asarray(scores, np.float64)

    point = _point(start, num_keypoints)
    searches: list[Search] = []
    for sweep in range(1, max_sweeps + 1):
        before = searches[-1].score if searches else -np.inf
        for names in PAIRS:
            search = _search(scores_of, point, names, steps, sweep)
            point |= dict(zip(names, search.best, strict=True))
            searches.append(search)
            report(search)
        if searches[-1].score - before < tolerance:
            break
    params = jax.tree.map(lambda v: float(v[0]), _params([point], num_keypoints, start.form))
    return PoseNmsFit(params, searches[-1].score, searches[0].before, tuple(searches))


def _search(
    scores_of: Callable[[list[Point]], Float[np.ndarray, " p"]],
    point: Point,
    names: tuple[str, str],
    steps: int,
    sweep: int,
) -> Search:
    first, second = (_values(name, point[name], steps, sweep) for name in names)
    grid = [point | {names[0]: a, names[1]: b} for a, b in itertools.product(first, second)]
    scores = scores_of(grid).reshape(steps, steps)
    present = (_nearest(first, point[names[0]]), _nearest(second, point[names[1]]))
    row, column = _best_cell(scores, present)
    return Search(
        sweep,
        names,
        values=(first, second),
        scores=scores,
        before=float(scores[present]),
        best=(float(first[row]), float(second[column])),
        score=float(scores[row, column]),
    )


@functools.partial(jax.jit, static_argnames=("objective", "max_people", "batch_size"))
def evaluate_params(
    params: PoseNmsParams,
    proposals: tuple[Proposals, ...],
    ground_truth: GroundTruth,
    *,
    objective: Objective,
    max_people: int,
    batch_size: int,
) -> Float[Array, " p"]:
    """The objective of `p` parameter sets, which are arrays (p,) in `params`.

    Args:
      batch_size: sets evaluated at once, a divisor of p. Memory grows with it: 4 bytes for each set
        and each pair of proposals of a picture, a few times.

    Other arguments as in `fit_pose_nms`.
    """

    def evaluate(one: PoseNmsParams) -> Float[Array, ""]:
        groups = [best_people(pose_nms_batch(group, one), max_people) for group in proposals]
        return objective(jax.tree.map(lambda *v: jnp.concatenate(v), *groups), ground_truth)

    return jax.lax.map(evaluate, params, batch_size=batch_size)


def best_people(poses: Poses, number: int) -> Poses:
    """The people of greatest score in each picture, padded to `number`; cluster is -1."""
    missing = max(number - poses.scores.shape[-1], 0)
    rank = jnp.where(poses.keep, -poses.scores, jnp.inf)
    order = jnp.argsort(rank, axis=-1, stable=True)[:, :number]
    rows = jnp.arange(len(order))[:, None]

    def pick(values: Array) -> Array:
        return jnp.pad(values[rows, order], [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2))

    picked = Poses(*map(pick, poses))
    return picked._replace(cluster=jnp.full_like(picked.cluster, -1))


def _point(params: PoseNmsParams, num_keypoints: int) -> Point:
    share = params.eta / _identical(params.lam, num_keypoints, params.form)
    point = {"sigma1": params.sigma1, "sigma2": params.sigma2, "lam": params.lam, "share": share}
    return {name: float(value) for name, value in point.items()}


def _params(points: list[Point], num_keypoints: int, form: Form) -> PoseNmsParams:
    column = {name: jnp.array([point[name] for point in points], jnp.float32) for name in RANGES}
    eta = column.pop("share") * _identical(column["lam"], num_keypoints, form)
    return PoseNmsParams(**column, eta=eta, form=form)


def _identical(lam: Any, num_keypoints: int, form: Form) -> Any:
    """d between identical sure poses: k (1 + lam), where all joints count."""
    weights = joint_weights(num_keypoints, form)
    return float(weights.matching.sum()) + float(weights.closeness.sum()) * lam


def _values(name: str, center: float, steps: int, sweep: int) -> Float[np.ndarray, " s"]:
    """Log-spaced values around `center`, which is one of them: so a search cannot lose."""
    low, high = np.log(RANGES[name])
    reach = (high - low) / 2 ** (sweep - 1)
    middle = np.clip(np.log(center), low + reach / 2, high - reach / 2)
    values = np.exp(np.linspace(middle - reach / 2, middle + reach / 2, steps))
    values[np.abs(np.log(values / center)).argmin()] = center
    return values


def _nearest(values: Float[np.ndarray, " s"], value: float) -> int:
    return int(np.abs(values - value).argmin())


def _best_cell(scores: Float[np.ndarray, "s s"], present: tuple[int, int]) -> tuple[int, int]:
    """The greatest; of several those whose neighbours do best, as AP has plateaus with cliffs.

    And of these the nearest to the present one, so that what has no effect stays as it is.
    """
    around = scipy.ndimage.uniform_filter(scores, 3, mode="nearest")
    around = np.where(scores > scores.max() - 1e-7, around, -np.inf)
    candidates = np.argwhere(around > around.max() - 1e-9)
    row, column = candidates[np.abs(candidates - np.array(present)).sum(-1).argmin()]
    return int(row), int(column)
