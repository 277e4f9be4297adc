"""Learn the parameters of the tracker from data: those with the highest score on annotated videos.

The search is that of pose NMS, see `ops.grid_search`. One compiled program tracks all videos with a
row of the grid. The score is computed on the host, from the ids.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rmpe_jax.ops.grid_search import Point, Search, alternating_search, at_limits
from rmpe_jax.tracking.detections import Detections
from rmpe_jax.tracking.params import TrackParams
from rmpe_jax.tracking.tracker import track_video

# Search ranges, in the units of `TrackParams`.
RANGES = {
    "sure_score": (0.05, 0.9),
    "birth_score": (0.05, 0.9),
    "min_similarity": (0.01, 0.8),
    "min_doubtful_similarity": (0.05, 0.9),
    "motion_gate": (1.0, 100.0),
    "max_missed": (2.0, 200.0),
    "box_noise": (0.005, 0.3),
    "joint_noise": (0.002, 0.1),
    "box_acceleration": (0.0005, 0.05),
    "joint_acceleration": (0.0002, 0.2),
}
# What competes for the same people is searched together.
PAIRS = (
    ("sure_score", "birth_score"),
    ("min_similarity", "min_doubtful_similarity"),
    ("motion_gate", "max_missed"),
    ("box_acceleration", "joint_acceleration"),
    ("box_noise", "joint_noise"),
)

TOLERANCE = 1e-4  # 0.01 % of IDF1

TrackObjective = Callable[[Int[np.ndarray, "v f n"]], float]


@dataclasses.dataclass(frozen=True)
class TrackerFit:
    """Learned parameters and how they were found.

    Attributes:
      params: the best parameters.
      score: their score.
      start_score: the score of the parameters that the search started from.
      searches: in order.
      at_limits: names of the parameters that ended at the end of their range in `RANGES`.
    """

    params: TrackParams
    score: float
    start_score: float
    searches: tuple[Search, ...]
    at_limits: tuple[str, ...]


def fit_tracker(
    videos: Detections,
    sigmas: Float[Any, " k"],
    objective: TrackObjective,
    start: TrackParams,
    *,
    max_tracks: int,
    steps: int = 7,
    max_sweeps: int = 6,
    report: Callable[[Search], None] = lambda search: None,
) -> TrackerFit:
    """Alternating two-parameter search; each sweep searches half the range around the best so far.

    Args:
      videos: the people of v videos, (v, f, n, ...) arrays; frames and people may be padded.
      sigmas: per joint, as in `Skeleton.sigmas`.
      objective: of the ids, as `track_video` gives them, to be maximized; finite.
      start: where the search starts. What is not in `RANGES` is kept; the rest is positive.
      steps: values of each parameter in a search, so steps² parameter sets.
      max_sweeps: the search ends after this many sweeps, or after one that gains less than
        `TOLERANCE`.
      max_tracks: as in `track_video`.
      report: called after every search.

    Raises:
      UserError: there is no room for a track.
    """
    videos = jax.tree.map(jnp.asarray, videos)

    def params_of(point: Point) -> TrackParams:
        return start._replace(**point)

    def scores_of(points: list[Point]) -> Float[np.ndarray, " p"]:
        scores = []
        for first in range(0, len(points), steps):
            row = stack_params([params_of(point) for point in points[first : first + steps]])
            ids = track_with_each(videos, sigmas, row, max_tracks)
            scores += [objective(of_one) for of_one in np.asarray(ids)]
        return np.array(scores, np.float64)

    point, searches = alternating_search(
        scores_of,
        {name: float(getattr(start, name)) for name in RANGES},
        PAIRS,
        RANGES,
        steps=steps,
        tolerance=TOLERANCE,
        max_sweeps=max_sweeps,
        report=report,
    )
    scores = searches[-1].score, searches[0].previous_score
    return TrackerFit(params_of(point), *scores, searches, at_limits(point, RANGES))


def stack_params(params: list[TrackParams]) -> TrackParams:
    """Several parameter sets as arrays (p,)."""
    return TrackParams(*(jnp.array(column, jnp.float32) for column in zip(*params, strict=True)))


@functools.partial(jax.jit, static_argnames="max_tracks")
def track_with_each(
    videos: Detections, sigmas: Float[Any, " k"], params: TrackParams, max_tracks: int
) -> Int[Array, "p v f n"]:
    """The ids of v videos, as `track_video` gives them, for each of `p` parameter sets.

    Args:
      videos: the people, (v, f, n, ...) arrays.
      sigmas: per joint, as in `Skeleton.sigmas`.
      params: arrays (p,).
      max_tracks: as in `track_video`.
    """

    def track_all(one: TrackParams) -> Int[Array, "v f n"]:
        return jax.vmap(lambda video: track_video(video, sigmas, one, max_tracks))(videos)

    # A CPU is fastest with one set at a time, an accelerator with all.
    if jax.default_backend() == "cpu":
        return jax.lax.map(track_all, params)
    return jax.vmap(track_all)(params)
