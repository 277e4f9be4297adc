"""The parameters of tracking, with their defaults. docs/tracking.md explains their effect."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json

Number = float | Float[Array, "*p"]

_SCORE = (0.0, 1.0)
_LENGTH = (1e-4, 100.0)
# The lowest and the highest value in a file.
_LIMITS = {
    "sure_score": _SCORE,
    "doubtful_score": _SCORE,
    "birth_score": _SCORE,
    "min_joint_score": _SCORE,
    "min_joints": (0.0, 1000.0),
    "min_similarity": _SCORE,
    "min_doubtful_similarity": _SCORE,
    "motion_gate": (1e-3, 1e6),
    "max_missed": (0.0, 1e6),
    "box_noise": _LENGTH,
    "joint_noise": _LENGTH,
    "box_acceleration": _LENGTH,
    "joint_acceleration": _LENGTH,
    "start_velocity": _LENGTH,
}


class TrackParams(NamedTuple):
    """The numbers of the tracker: a pytree, so that they can change without compiling again.

    The first two passes and the thresholds on scores are ByteTrack's (Zhang et al., ECCV 2022).
    Its scores are 0.6, 0.1 and 0.7; ours are lower, because the mean of a pose's joint scores is
    usually lower than a detector's score. On 142 images of COCO, `builtin` gives .30 or more to
    95 % of the poses with an OKS above .5, and less than .46 to 75 % of those with an OKS under .2.
    It keeps lost tracks for 30 frames. The Kalman filter is SORT's (Bewley et al., ICIP 2016):
    constant velocity. Lengths are fractions of the longer side of the person's box, and times are
    frames.

    Attributes:
      sure_score: people with this score or more are sure, and are associated first.
      doubtful_score: people with lower scores are ignored; those between are doubtful.
      birth_score: sure people with this score or more start a track if no track fits.
      min_joint_score: joints with lower scores count as not found.
      min_joints: a pose is uncertain with fewer joints that the track has too; its box counts.
      min_similarity: the lowest similarity (OKS, or IoU if uncertain) of a sure person.
      min_doubtful_similarity: the lowest similarity of a doubtful person.
      motion_gate: the largest squared Mahalanobis distance between a sure person's box and the
        predicted box in the last pass. 9.49 holds 95 % of the right pairs of a true filter.
      max_missed: a track ends when it was missed in more frames in a row.
      box_noise: standard deviation of a found box's center and size.
      joint_noise: standard deviation of a found joint with score 1.
      box_acceleration: standard deviation of the change of a box's velocity from frame to frame;
        also that of joints that are not found and so move with the body.
      joint_acceleration: the same of joints that are found.
      start_velocity: standard deviation of velocity at a track's birth, per frame.
    """

    sure_score: Number = 0.25
    doubtful_score: Number = 0.1
    birth_score: Number = 0.3
    min_joint_score: Number = 0.3
    min_joints: Number = 4.0
    min_similarity: Number = 0.1
    min_doubtful_similarity: Number = 0.4
    motion_gate: Number = 9.49
    max_missed: Number = 60.0
    box_noise: Number = 0.05
    joint_noise: Number = 0.02
    box_acceleration: Number = 0.005
    joint_acceleration: Number = 0.02
    start_velocity: Number = 0.03


class FlowParams(NamedTuple):
    """The numbers of PoseFlow (Xiu et al., BMVC 2018).

    The paper's thresholds are for distances by feature matching. These are for OKS and IoU, and
    are our choice.

    Attributes:
      window: frames in which flows are built at once; windows overlap by half.
      max_gap: frames in a row in which a flow's person may be missed.
      min_score: people with lower scores are ignored.
      min_joint_score: joints with lower scores count as not found.
      min_joints: a pose is uncertain with fewer joints that the other pose has too; its box counts.
      min_similarity: the lowest similarity (OKS, or IoU if uncertain) of two poses that follow each
        other in a flow.
      nms_similarity: two flows are of one person if the median of the similarities of their poses,
        over the frames that both have, is at least this.
    """

    window: int = 30
    max_gap: int = 10
    min_score: float = 0.2
    min_joint_score: float = 0.3
    min_joints: int = 4
    min_similarity: float = 0.3
    nms_similarity: float = 0.6


def params_to_dict(params: TrackParams) -> dict[str, float]:
    """The parameters as JSON types, for `params_from_dict`."""
    return {name: float(value) for name, value in params._asdict().items()}


def params_from_dict(content: Any) -> TrackParams:
    """Read what `params_to_dict` wrote, or a part of it, as JSON types.

    Args:
      content: numbers by the names of the parameters; those that are missing keep their defaults.

    Raises:
      UserError: the content is something else, or a number is out of range.
    """
    if not isinstance(content, Mapping):
        raise UserError('tracking parameters are not an object such as {"max_missed": 60}')
    for name, value in content.items():
        if name not in _LIMITS:
            raise UserError(f"tracking has no parameter {name!r}: use {', '.join(_LIMITS)}")
        low, high = _LIMITS[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise UserError(f"{name} is {value!r}: use a number from {low:g} to {high:g}")
    return TrackParams()._replace(**{name: float(value) for name, value in content.items()})


def load_params(path: str | os.PathLike) -> TrackParams:
    """Load a file that `rmpe fit-tracker` wrote; what the file lacks keeps its default.

    Raises:
      UserError: there is no such file, or it is something else.
    """
    content = read_json(path, "file of tracking parameters")
    try:
        return params_from_dict(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
