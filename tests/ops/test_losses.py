"""Losses against NumPy from the formula and torch; gradients against formula and differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from jax.test_util import check_grads
from one_program import compiled

from rmpe_jax.ops import heatmaps, losses

SIZE = HEIGHT, WIDTH = (9, 7)


encode = compiled(heatmaps.encode, 2, 3)


@pytest.fixture
def batch():
    """Logits, target maps, keypoints and weights of 3 people with 4 joints, some not annotated."""
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, [WIDTH - 1, HEIGHT - 1], (3, 4, 2)).astype(np.float32)
    weights = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [2, 0.5, 1, 1]], np.float32)
    targets, _ = encode(keypoints, np.ones((3, 4)), SIZE, 1.0)
    logits = rng.normal(scale=2, size=(3, *SIZE, 4)).astype(np.float32)
    return logits, targets, keypoints, weights


def losses_of(batch):
    """Each loss as a function of the logits alone."""
    targets, keypoints, weights = map(jnp.asarray, batch[1:])
    return {
        "mse": lambda x: losses.mse(x, targets, weights),
        "cross_entropy": lambda x: losses.cross_entropy(x, targets, weights),
        "symmetric_integral": lambda x: losses.symmetric_integral(x, keypoints, weights),
    }


NAMES = ("mse", "cross_entropy", "symmetric_integral")


def reference_integral(logits, keypoints, weights, amplitudes):
    """Loss and gradient of symmetric integral regression, one joint at a time, float64."""
    loss, grads = 0.0, np.zeros(logits.shape)
    for i, j in np.ndindex(weights.shape):
        c = scipy.special.expit(logits[i, :, :, j].astype(float))
        p = c / c.sum()
        grad_p = np.zeros(SIZE)
        for axis, (size, amplitude) in enumerate(zip((WIDTH, HEIGHT), amplitudes, strict=True)):
            index = np.arange(WIDTH)[None, :] if axis == 0 else np.arange(HEIGHT)[:, None]
            mean = (index * p).sum()
            miss = mean - keypoints[i, j, axis]
            scale = weights[i, j] / size / len(logits)
            loss += scale * abs(miss)
            grad_p += scale * np.sign(miss) * amplitude * np.where(index >= mean, 1, -1)
        grads[i, :, :, j] = (grad_p - (grad_p * p).sum()) / c.sum() * c * (1 - c)
    return loss, grads


def test_mse_is_the_formula(batch):
    logits, targets, _, weights = batch
    masks = weights[:, None, None, :]
    expected = 0.5 * np.mean((logits.astype(float) * masks - targets * masks) ** 2)
    arguments = [jnp.asarray(x) for x in (logits, targets, weights)]
    for loss in (losses.mse, jax.jit(losses.mse)):
        np.testing.assert_allclose(loss(*arguments), expected, 1e-5)


def test_cross_entropy_is_the_formula(batch):
    logits, targets, _, weights = batch
    total = 0.0
    for i, j in np.ndindex(weights.shape):
        probs = targets[i, :, :, j].astype(float) / targets[i, :, :, j].sum()
        total -= weights[i, j] * (probs * scipy.special.log_softmax(logits[i, :, :, j])).sum()
    loss = jax.jit(losses.cross_entropy)
    np.testing.assert_allclose(loss(logits, targets, weights), total / weights.sum(), 1e-5)
    np.testing.assert_allclose(loss(logits, 7 * targets, weights), total / weights.sum(), 1e-5)


def test_mse_and_cross_entropy_are_torchs(batch):
    torch = pytest.importorskip("torch")
    logits, targets, _, weights = batch
    x = torch.tensor(logits.transpose(0, 3, 1, 2), requires_grad=True)
    y, w = torch.tensor(targets.transpose(0, 3, 1, 2)), torch.tensor(weights)
    mask = w[:, :, None, None]
    probs = (y / y.sum((2, 3), keepdim=True)).flatten(0, 1).flatten(1)
    each = torch.nn.functional.cross_entropy(x.flatten(0, 1).flatten(1), probs, reduction="none")
    expected = {
        "mse": 0.5 * torch.nn.MSELoss()(x * mask, y * mask),
        "cross_entropy": (w.flatten() * each).sum() / w.sum(),
    }
    for name, theirs in expected.items():
        (grad,) = torch.autograd.grad(theirs, x)
        value, ours = jax.jit(jax.value_and_grad(losses_of(batch)[name]))(logits)
        np.testing.assert_allclose(value, theirs.item(), rtol=1e-5)
        np.testing.assert_allclose(ours, grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("amplitude", "amplitudes"), [(None, (WIDTH / 8, HEIGHT / 8)), (2.0, (2.0, 2.0))]
)
def test_symmetric_integral_and_its_gradient_are_the_formula(batch, amplitude, amplitudes):
    logits, _, keypoints, weights = batch
    expected, expected_grad = reference_integral(logits, keypoints, weights, amplitudes)
    loss = functools.partial(losses.symmetric_integral, amplitude=amplitude)
    value, grad = jax.jit(jax.value_and_grad(loss))(logits, keypoints, weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-3, atol=1e-8)


def test_symmetric_integral_changes_the_gradient_and_not_the_value(batch):
    logits, _, keypoints, weights = batch

    def plain(logits):
        predicted, _ = heatmaps.decode(jax.nn.sigmoid(logits), "integral")
        error = jnp.abs(predicted - keypoints) / jnp.array([WIDTH, HEIGHT])
        return (weights[..., None] * error).sum() / len(logits)

    symmetric = losses_of(batch)["symmetric_integral"]
    value, grad = compiled(jax.value_and_grad(symmetric))(logits)
    plain_value, plain_grad = compiled(jax.value_and_grad(plain))(logits)
    np.testing.assert_allclose(value, plain_value, rtol=1e-5)
    assert np.abs(grad - plain_grad).max() > 1e-3
    # Both pull every annotated joint's pixels towards the same side: they descend together.
    product = (grad * plain_grad).sum((1, 2))
    assert (product[weights > 0] > 0).all()


def test_symmetric_integral_counts_the_mean_itself_as_after():
    def loss(logits):
        return losses.symmetric_integral(logits, jnp.zeros((1, 1, 2)), jnp.ones((1, 1)), 1.0)

    # Three pixels in a row: p = 1/3, mean 1, dL/dp = (-1, 1, 1) / 3, dp/dlogits = p (δ - p) / 2.
    grad = compiled(jax.grad(loss))(np.zeros((1, 1, 3, 1), np.float32))
    np.testing.assert_allclose(grad.ravel(), np.array([-2, 1, 1]) / 27, rtol=1e-5)


def test_symmetric_integral_is_finite_for_extreme_logits(batch):
    logits, _, keypoints, weights = batch
    function = compiled(jax.value_and_grad(losses.symmetric_integral))
    for extreme in (np.full_like(logits, -1e4), np.full_like(logits, 1e4), 1e4 * logits):
        value, grad = function(extreme, keypoints, weights)
        assert np.isfinite(value)
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_gradients_are_finite_differences(batch, name):
    loss = jax.jit(losses_of(batch)[name])
    check_grads(loss, (batch[0],), order=1, modes=("rev",), eps=1e-1, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_joints_without_weight_matter_to_nothing(batch, name):
    logits, targets, keypoints, weights = batch
    masked = weights == 0
    value, grad = compiled(jax.value_and_grad(losses_of(batch)[name]))(logits)
    assert not np.moveaxis(grad, -1, 1)[masked].any()
    assert np.abs(np.moveaxis(grad, -1, 1)[~masked]).max((1, 2)).all()

    # What an unannotated joint is in practice: NaN, from which `encode` makes an empty target.
    keypoints = np.where(masked[..., None], np.nan, keypoints).astype(np.float32)
    targets, _ = encode(keypoints, weights, SIZE, 1.0)
    again = jax.jit(jax.value_and_grad(losses_of((logits, targets, keypoints, weights))[name]))
    np.testing.assert_allclose(again(logits)[0], value, rtol=1e-6)
    np.testing.assert_allclose(again(logits)[1], grad, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_annotated_gives_zero_and_no_gradient(batch, name):
    logits, targets, keypoints, weights = batch
    empty = (logits, 0 * targets, np.full_like(keypoints, np.nan), 0 * weights)
    value, grad = compiled(jax.value_and_grad(losses_of(empty)[name]))(logits)
    assert value == 0
    assert not grad.any()


def test_cross_entropy_leaves_out_empty_targets(batch):
    logits, targets, _, weights = batch
    targets = targets.copy()
    targets[2, :, :, 1] = 0
    unweighted = weights.copy()
    unweighted[2, 1] = 0
    loss = jax.jit(losses.cross_entropy)
    np.testing.assert_allclose(
        loss(logits, targets, weights), loss(logits, targets, unweighted), rtol=1e-6
    )


def test_least_cross_entropy_is_the_entropy_of_a_gaussian():
    targets, weights = encode(np.full((1, 1, 2), 20, np.float32), np.ones((1, 1)), (41, 41), 2.0)
    logits = np.log(np.maximum(targets, 1e-30))
    value, grad = jax.jit(jax.value_and_grad(losses.cross_entropy))(logits, targets, weights)
    np.testing.assert_allclose(value, np.log(2 * np.pi * np.e * 2.0**2), rtol=1e-4)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_symmetric_integral_is_per_person(batch):
    logits, _, keypoints, weights = batch
    doubled = (np.concatenate([x, x]) for x in (logits, keypoints, weights))
    loss = jax.jit(losses.symmetric_integral)
    np.testing.assert_allclose(loss(*doubled), loss(logits, keypoints, weights), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_float32_of_bfloat16_outputs(batch, name):
    loss = losses_of(batch)[name]
    value = loss(jnp.asarray(batch[0], jnp.bfloat16))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, loss(jnp.asarray(batch[0])), rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "method", "normalize"),
    [
        ("mse", "dark", lambda x: x),
        ("cross_entropy", "dark", heatmaps.spatial_softmax),
        ("symmetric_integral", "integral", jax.nn.sigmoid),
    ],
    ids=NAMES,
)
def test_descending_a_loss_finds_the_keypoints(name, method, normalize):
    rng = np.random.default_rng(1)
    keypoints = rng.uniform(5, 12, (2, 3, 2)).astype(np.float32)
    weights = np.ones((2, 3), np.float32)
    targets, _ = encode(keypoints, weights, (18, 18), 1.5)
    loss = losses_of((None, targets, keypoints, weights))[name]
    optimizer = optax.adam(optax.cosine_decay_schedule(0.3, 200))

    def step(carry, _):
        logits, state = carry
        updates, state = optimizer.update(jax.grad(loss)(logits), state)
        return (optax.apply_updates(logits, updates), state), None

    start = jnp.asarray(rng.normal(scale=0.1, size=targets.shape), jnp.float32)
    (logits, _), _ = jax.jit(
        lambda x: jax.lax.scan(step, (x, optimizer.init(x)), None, length=200)
    )(start)
    decoded, _ = compiled(lambda x: heatmaps.decode(normalize(x), method, 1.5))(logits)
    assert np.abs(decoded - keypoints).max() < 0.1


def test_heatmap_accuracy_counts_joints_within_half_a_tenth():
    # Map 40 wide, 60 high: within 2 px in x, 3 px in y, or inside of the ellipse of these axes.
    truth = np.full((2, 4, 2), 20, np.float32)
    offsets = [
        [(1.99, 0), (2, 0), (0, 2.99), (0, 3)],
        [(1.5, 2.5), (1.2, 1.8), (0, 0), (np.nan, 0)],
    ]
    predicted = (truth + np.array(offsets)).astype(np.float32)
    accuracy = compiled(losses.heatmap_accuracy, 3)
    correct, count = accuracy(predicted, truth, np.ones((2, 4), np.float32), (60, 40))
    assert (correct, count) == (4, 8)
    weights = np.array([[1, 1, 0, 0], [0.5, 0, 2, 0]], np.float32)
    truth[weights == 0] = np.nan
    assert accuracy(predicted, truth, weights, (60, 40)) == (2, 4)
    assert accuracy(predicted, truth, 0 * weights, (60, 40)) == (0, 0)
