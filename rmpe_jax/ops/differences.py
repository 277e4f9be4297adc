"""Central differences of a loss in the placement of the STN's view, used in place of its gradient.

A view that is sampled bilinearly depends on theta by way of slopes between neighboring pixels.
Automatic differentiation of a loss of a network on that view gives the slope of this pixel-scale
roughness, in which the slope towards the person is lost. Differences over a quarter of the crop
measure the latter (docs/sstn.md).

Four entries of theta are guided: scale and translation in x and in y. The other two, rotation and
shear, have the derivative 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ENTRIES = ((0, 0), (1, 1), (0, 2), (1, 2))  # s_x, s_y, t_x, t_y
NUM_PROBES = 2 * len(ENTRIES)

_DIRECTIONS = np.zeros((len(ENTRIES), 2, 3), np.float32)
_DIRECTIONS[np.arange(len(ENTRIES)), *zip(*ENTRIES, strict=True)] = 1


def probe_thetas(theta: Float[Array, "b 2 3"], step: float) -> Float[Array, "b 8 2 3"]:
    """The thetas to find the loss at: one step ahead in each of `ENTRIES`, then one step behind.

    Args:
      theta: of the STN.
      step: of each entry; normalized coordinates, so 0.25 is an eighth of the crop's side.
    """
    steps = step * jnp.asarray(np.concatenate([_DIRECTIONS, -_DIRECTIONS]), theta.dtype)
    return theta[:, None] + steps


def central_differences(losses: Float[Array, "b 8"], step: float) -> Float[Array, "b 2 3"]:
    """(L(theta + h e) - L(theta - h e)) / 2h for each of `ENTRIES`; 0 in the other entries.

    The result is the gradient if the loss is quadratic in each entry.

    Args:
      losses: of each crop at `probe_thetas(theta, step)`.
      step: h.
    """
    ahead, behind = jnp.split(losses, 2, axis=1)
    slopes = (ahead - behind) / (2 * step)
    return (slopes[:, :, None, None] * _DIRECTIONS).sum(1)


def with_gradient(
    theta: Float[Array, "b 2 3"], gradient: Float[Array, "b 2 3"]
) -> Float[Array, ""]:
    """A number that is 0 and whose derivative in `theta` is `gradient`; added to a loss, it guides.

    Its derivative in `gradient` is 0.
    """
    # Sum of gradient * theta less its own value, which would mean nothing in a log.
    change = theta - jax.lax.stop_gradient(theta)
    return (jax.lax.stop_gradient(gradient) * change).sum()
