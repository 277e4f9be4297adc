"""Losses of heatmap networks, and the accuracy shown while training.

Heatmaps, targets and logits are (b, h, w, k); keypoints (b, k, 2) are heatmap pixels with pixel
centres at integers; weights (b, k) are 0 for joints that are not annotated, whose targets and
keypoints then do not matter. Losses are float32 scalars.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def mse(
    heatmaps: Float[Array, "b h w k"],
    targets: Float[Array, "b h w k"],
    weights: Float[Array, "b k"],
) -> Float[Array, ""]:
    """½ mean((w y − w t)²) over all elements, those of joints of weight 0 counted too.

    AlphaPose's loss: ½ nn.MSELoss on outputs and targets multiplied by the weights.
    """
    difference = (heatmaps.astype(jnp.float32) - targets) * weights[:, None, None, :]
    return 0.5 * jnp.mean(difference**2)


def cross_entropy(
    logits: Float[Array, "b h w k"],
    targets: Float[Array, "b h w k"],
    weights: Float[Array, "b k"],
) -> Float[Array, ""]:
    """Cross-entropy of the softmax over positions, averaged over joints by weight.

    Targets are scaled to sum 1 per joint; a joint whose target is empty has weight 0.
    The least value is the targets' entropy, ln(2πe σ²) for whole Gaussians, not 0.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=(1, 2))
    mass = targets.sum((1, 2))
    weights = jnp.where(mass > 1e-6, weights, 0)
    per_joint = -(targets * log_probs).sum((1, 2)) / jnp.where(mass > 1e-6, mass, 1)
    total = weights.sum()
    return (weights * per_joint).sum() / jnp.where(total > 0, total, 1)


def symmetric_integral(
    logits: Float[Array, "b h w k"],
    keypoints: Float[Array, "b k 2"],
    weights: Float[Array, "b k"],
    amplitude: float | None = None,
) -> Float[Array, ""]:
    """Symmetric integral regression (Fang et al., AlphaPose, TPAMI 2022).

    Maps are normalised in two steps, c = sigmoid(logits) and p = c / Σc; the prediction μ̂ is the
    mean position under p; the loss is Σ w (|μ̂x − x| / width + |μ̂y − y| / height) over joints, per
    person. Its gradient is not the integral's own, ∂μ̂/∂p_i = i, which grows with the pixel's
    coordinate, but amplitude · sgn(i − μ̂), with +1 at 0, in either axis.

    Args:
      logits: a network's output. `decode(sigmoid(logits), "integral")` gives the predictions.
      keypoints: heatmap pixels; may be NaN where the weight is 0.
      weights: per joint.
      amplitude: of the gradient; when None the paper's, size / 8 in each axis. The published code
        has 2 for every size.
    """
    height, width = logits.shape[1:3]
    # Softmax of log c is c / Σc, and does not underflow where every logit is very negative.
    maps = jax.nn.softmax(jax.nn.log_sigmoid(logits.astype(jnp.float32)), axis=(1, 2))
    predicted = jnp.stack(
        [
            _mean_index(maps.sum(1), width / 8 if amplitude is None else amplitude),
            _mean_index(maps.sum(2), height / 8 if amplitude is None else amplitude),
        ],
        -1,
    )
    keypoints = jnp.where(weights[..., None] > 0, keypoints, 0)
    error = jnp.abs(predicted - keypoints) / jnp.array([width, height], jnp.float32)
    return (weights * error.sum(-1)).sum() / len(logits)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _mean_index(probs: Float[Array, "b n k"], amplitude: float) -> Float[Array, "b k"]:
    """Σ i p_i, whose gradient is taken to be amplitude · sgn(i − Σ i p_i)."""
    return (jnp.arange(probs.shape[1])[:, None] * probs).sum(1)


def _mean_index_forward(probs: Float[Array, "b n k"], amplitude: float):
    mean = _mean_index(probs, amplitude)
    after = jnp.arange(probs.shape[1])[:, None] >= mean[:, None, :]
    return mean, after


def _mean_index_backward(amplitude: float, after: Array, grad: Float[Array, "b k"]):
    return (jnp.where(after, amplitude, -amplitude) * grad[:, None, :],)


_mean_index.defvjp(_mean_index_forward, _mean_index_backward)


def heatmap_accuracy(
    predicted: Float[Array, "b k 2"],
    keypoints: Float[Array, "b k 2"],
    weights: Float[Array, "b k"],
    heatmap_size: tuple[int, int],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How many joints are right: nearer to the truth than half a tenth of the map.

    The distance is measured in tenths of the map's width and height, as in the stacked hourglass
    code and its descendants; joints of positive weight count once each.

    Returns:
      (number of right joints, number of joints); their quotient is the accuracy.
    """
    height, width = heatmap_size
    tenths = jnp.array([width, height], jnp.float32) / 10
    distance = jnp.linalg.norm((predicted - keypoints) / tenths, axis=-1)
    counted = weights > 0
    right = counted & (distance < 0.5)
    return right.sum(dtype=jnp.float32), counted.sum(dtype=jnp.float32)
