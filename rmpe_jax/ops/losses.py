"""Losses of heatmap networks, and the accuracy shown during training.

Heatmaps, targets and logits are (b, h, w, k). Keypoints (b, k, 2) are heatmap pixels with pixel
centers at integers. Weights (b, k) are 0 for joints that are not annotated; their targets and
keypoints are then ignored. Losses are float32 scalars.
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
    """½ mean((w y − w t)²) over all elements, including those of joints with weight 0.

    This is AlphaPose's loss: ½ nn.MSELoss on outputs and targets multiplied by the weights.
    """
    difference = (heatmaps.astype(jnp.float32) - targets) * weights[:, None, None, :]
    return 0.5 * jnp.mean(difference**2)


def cross_entropy(
    logits: Float[Array, "b h w k"],
    targets: Float[Array, "b h w k"],
    weights: Float[Array, "b k"],
) -> Float[Array, ""]:
    """Cross-entropy of the softmax over positions: the weighted mean over joints.

    Targets are scaled to sum 1 per joint; a joint with an empty target has weight 0. The lowest
    value is not 0 but the entropy of the targets, ln(2πe σ²) for complete Gaussians.
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

    Maps are normalized in two steps, c = sigmoid(logits) and p = c / Σc. The prediction μ̂ is the
    mean position under p. The loss per person is Σ w (|μ̂x − x| / width + |μ̂y − y| / height) over
    joints. The gradient of μ̂ in each axis is not the true one, ∂μ̂/∂p_i = i, which grows with the
    pixel's coordinate, but amplitude · sgn(i − μ̂), where sgn(0) is +1.

    Args:
      logits: a network's output. `decode(sigmoid(logits), "integral")` gives the predictions.
      keypoints: heatmap pixels; may be NaN where the weight is 0.
      weights: per joint.
      amplitude: of the gradient. None means the paper's value, size / 8 in each axis; the published
        code uses 2 for every size.
    """
    height, width = logits.shape[1:3]
    # Softmax of log c is c / Σc, and does not underflow if all logits are very negative.
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
    """Σ i p_i, with its gradient replaced by amplitude · sgn(i − Σ i p_i)."""
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
    """The number of correct joints: those within half a tenth of the map from the ground truth.

    The distance is measured in tenths of the map's width and height, as in the code of stacked
    hourglass networks and its descendants. Each joint with a positive weight counts once.

    Returns:
      The number of correct joints and the number of joints; their quotient is the accuracy.
    """
    height, width = heatmap_size
    tenths = jnp.array([width, height], jnp.float32) / 10
    distance = jnp.linalg.norm((predicted - keypoints) / tenths, axis=-1)
    counted = weights > 0
    correct = counted & (distance < 0.5)
    return correct.sum(dtype=jnp.float32), counted.sum(dtype=jnp.float32)
