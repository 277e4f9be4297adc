"""A Kalman filter of points that move with constant velocity, for many points at once.

The state of one coordinate is x = (position, velocity), and one frame is the unit of time:

    x' = F x,  P' = F P Fᵀ + q G Gᵀ        F = [1 1; 0 1],  G = (1/2, 1)
    x += K (z - x₁),  P = (I - K H) P      H = (1, 0),  K = P Hᵀ / (P₁₁ + r)

with q the variance of the acceleration, constant within a frame, and r the variance of the found
position z. As in SORT (Bewley et al., ICIP 2016) velocity is constant but for noise. The noise of
x and y is the same and independent, so both share one 2x2 covariance.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Motion(NamedTuple):
    """The filter's state for points of any leading shape.

    Attributes:
      position: mean, pixels.
      velocity: mean, pixels per frame.
      covariance: variance of the position, covariance of position and velocity, variance of the
        velocity; in both coordinates.
    """

    position: Float[Array, "*p 2"]
    velocity: Float[Array, "*p 2"]
    covariance: Float[Array, "*p 3"]


def start(
    position: Float[Array, "*p 2"],
    variance: Float[Array, "*#p"],
    velocity_variance: Float[Array, "*#p"],
) -> Motion:
    """Points at rest, with the variances of their positions and velocities."""
    shape = position.shape[:-1]
    variances = variance, jnp.zeros(()), velocity_variance
    covariance = jnp.stack([jnp.broadcast_to(value, shape) for value in variances], -1)
    return Motion(position, jnp.zeros_like(position), covariance)


def predict(motion: Motion, acceleration_variance: Float[Array, "*#p"]) -> Motion:
    """The points one frame later."""
    position, cross, velocity = jnp.moveaxis(motion.covariance, -1, 0)
    q = acceleration_variance
    covariance = [
        position + 2 * cross + velocity + q / 4,
        cross + velocity + q / 2,
        velocity + q,
    ]
    return Motion(motion.position + motion.velocity, motion.velocity, jnp.stack(covariance, -1))


def update(
    motion: Motion,
    found: Float[Array, "*p 2"],
    variance: Float[Array, "*#p"],
    is_found: Bool[Array, "*#p"],
) -> Motion:
    """The points after some of them were found in this frame.

    Args:
      motion: prediction for this frame.
      found: positions, pixels; arbitrary where not found.
      variance: of the found positions, positive.
      is_found: the other points keep their prediction.
    """
    position, cross, velocity = jnp.moveaxis(motion.covariance, -1, 0)
    # A gain of 0 leaves mean and covariance as they are.
    gain = jnp.where(is_found, position / (position + variance), 0)
    velocity_gain = jnp.where(is_found, cross / (position + variance), 0)
    residual = jnp.where(is_found[..., None], found - motion.position, 0)
    covariance = [
        (1 - gain) * position,
        (1 - gain) * cross,
        velocity - velocity_gain * cross,
    ]
    return Motion(
        motion.position + gain[..., None] * residual,
        motion.velocity + velocity_gain[..., None] * residual,
        jnp.stack(covariance, -1),
    )


def set_velocity(
    motion: Motion,
    velocity: Float[Array, "*#p 2"],
    variance: Float[Array, "*#p"],
    is_set: Bool[Array, "*#p"],
) -> Motion:
    """The points with another velocity, where set, of this mean and variance."""
    unrelated = motion.covariance * jnp.array([1.0, 0, 0]) + variance[..., None] * jnp.array(
        [0, 0, 1.0]
    )
    return motion._replace(
        velocity=jnp.where(is_set[..., None], velocity, motion.velocity),
        covariance=jnp.where(is_set[..., None], unrelated, motion.covariance),
    )


def mean_velocity(
    motion: Motion, counted: Bool[Array, "*b p"]
) -> tuple[Float[Array, "*b 2"], Float[Array, "*b"]]:
    """Mean velocity of the points that count, and its variance; their errors are independent."""
    count = jnp.maximum(counted.sum(-1), 1)
    velocity = jnp.where(counted[..., None], motion.velocity, 0).sum(-2) / count[..., None]
    return velocity, jnp.where(counted, motion.covariance[..., 2], 0).sum(-1) / count**2
