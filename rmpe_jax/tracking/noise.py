"""How uncertain the found boxes and joints are, in square pixels.

`sides` are the longer sides of the people's boxes, in pixels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rmpe_jax.tracking.params import TrackParams

_LOWEST_JOINT_SCORE = 0.05  # a lower score adds no more uncertainty


def box_variance(sides: Float[Array, "*n"], params: TrackParams) -> Float[Array, "*n"]:
    """Variance of the center and the size of found boxes."""
    return (params.box_noise * sides) ** 2


def joint_variance(
    scores: Float[Array, "n k"], sides: Float[Array, "n 1"], params: TrackParams
) -> Float[Array, "n k"]:
    """Variance of found joints: the lower the score, the higher."""
    return (params.joint_noise * sides) ** 2 / jnp.clip(scores, _LOWEST_JOINT_SCORE, 1)
