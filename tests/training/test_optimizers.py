import math

import jax
import numpy as np
import pytest
from run_parts import parts, rate

from rmpe_jax.config import default_config
from rmpe_jax.training.optimizers import (
    join_frozen,
    layer_of,
    split_frozen,
)


@pytest.fixture
def config():
    config = default_config()
    config.total_steps = 100
    config.optim.learning_rate = 0.2
    return config


def rates(config) -> np.ndarray:
    schedule = rate(config)
    return np.array([float(schedule(step)) for step in range(config.total_steps)])


def test_constant(config):
    config.optim.schedule = "constant"
    np.testing.assert_allclose(rates(config), 0.2, rtol=1e-6)


def test_cosine_falls_to_one_percent(config):
    config.optim.schedule = "cosine"
    steps = np.arange(100)
    expected = 0.2 * (0.01 + 0.99 * (1 + np.cos(math.pi * steps / 100)) / 2)
    np.testing.assert_allclose(rates(config), expected, rtol=1e-5)
    assert float(rate(config)(100)) == pytest.approx(0.002)


def test_cosine_after_a_warm_up(config):
    config.optim.schedule, config.optim.warmup_steps = "cosine", 20
    steps = np.arange(100)
    after = 0.2 * (0.01 + 0.99 * (1 + np.cos(math.pi * (steps - 20) / 80)) / 2)
    expected = np.where(steps < 20, 0.2 * steps / 20, after)
    np.testing.assert_allclose(rates(config), expected, rtol=1e-5)


@pytest.mark.parametrize("warmup", [0, 20])
def test_steps_divide_by_ten_at_the_milestones(config, warmup):
    config.optim.schedule, config.optim.milestones = "step", (50, 80)
    config.optim.warmup_steps = warmup
    steps = np.arange(100)
    expected = 0.2 * 0.1 ** ((steps >= 50).astype(int) + (steps >= 80))
    if warmup:
        expected = np.where(steps < warmup, 0.2 * steps / warmup, expected)
    np.testing.assert_allclose(rates(config), expected, rtol=1e-5)


PARAMS = {
    "backbone/conv/kernel": np.array([[1.0, -2.0], [3.0, 0.5]], np.float32),
    "head/conv/kernel": np.array([[0.3, 0.1]], np.float32),
    "head/conv/bias": np.array([0.7, -0.2], np.float32),
}
rng = np.random.default_rng(0)
GRADS = [
    {path: rng.normal(size=value.shape).astype(np.float32) for path, value in PARAMS.items()}
    for _ in range(4)
]


def run(config) -> dict[str, np.ndarray]:
    """The parameters after four steps with the gradients `GRADS`."""
    optimizer = parts(config).optimizer
    params, state = PARAMS, optimizer.init(PARAMS)
    for grads in GRADS:
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
    return jax.tree.map(np.asarray, params)


def assert_close(found: dict, expected: dict) -> None:
    for path in PARAMS:
        # Adam's corrections 1 - 0.999^t lose digits in float32.
        np.testing.assert_allclose(found[path], expected[path], rtol=1e-4, atol=2e-5, err_msg=path)


def test_rmsprop_is_torch7s(config):
    """m = 0.99 m + 0.01 g², x -= rate · g / (√m + 1e-8), from m = 0."""
    config.optim.name, config.optim.schedule = "rmsprop", "constant"
    expected = {path: value.astype(np.float64) for path, value in PARAMS.items()}
    means = dict.fromkeys(PARAMS, 0.0)
    for grads in GRADS:
        for path, grad in grads.items():
            means[path] = 0.99 * means[path] + 0.01 * grad.astype(np.float64) ** 2
            expected[path] -= 0.2 * grad / (np.sqrt(means[path]) + 1e-8)
    assert_close(run(config), expected)


def adam_by_formula(rate_of, decay_of=lambda path: 0.0, scale=lambda grads: 1.0) -> dict:
    """Kingma and Ba's algorithm 1, with Loshchilov and Hutter's decoupled weight decay."""
    x = {path: value.astype(np.float64) for path, value in PARAMS.items()}
    m, v = dict.fromkeys(PARAMS, 0.0), dict.fromkeys(PARAMS, 0.0)
    for t, grads in enumerate(GRADS, 1):
        factor = scale(grads)
        for path, grad in grads.items():
            g = factor * grad.astype(np.float64)
            m[path] = 0.9 * m[path] + 0.1 * g
            v[path] = 0.999 * v[path] + 0.001 * g**2
            step = m[path] / (1 - 0.9**t) / (np.sqrt(v[path] / (1 - 0.999**t)) + 1e-8)
            x[path] -= rate_of(path, t) * (step + decay_of(path) * x[path])
    return x


def test_adam_with_the_schedule(config):
    schedule = rates(config)
    assert_close(run(config), adam_by_formula(lambda path, t: schedule[t - 1]))


def test_adamw_decays_matrices_only(config):
    config.optim.name, config.optim.weight_decay = "adamw", 0.3
    config.optim.schedule = "constant"
    expected = adam_by_formula(
        lambda path, t: 0.2, decay_of=lambda path: 0.3 if path.endswith("kernel") else 0.0
    )
    assert_close(run(config), expected)


def test_the_backbone_learns_at_its_own_rate(config):
    config.optim.backbone_factor, config.optim.schedule = 0.1, "constant"
    expected = adam_by_formula(lambda path, t: 0.02 if path.startswith("backbone/") else 0.2)
    assert_close(run(config), expected)


def test_clipping_is_by_the_global_norm(config):
    config.optim.clip_norm, config.optim.schedule = 0.5, "constant"

    def scale(grads):
        return min(
            1.0, 0.5 / math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
        )

    expected = adam_by_formula(lambda path, t: 0.2, scale=scale)
    assert_close(run(config), expected)


TREE = {
    "backbone": {"stem": {"kernel": 1}, "block1": {"kernel": 2, "bias": 3}},
    "head": {"conv_out": {"kernel": 4}},
}


@pytest.mark.parametrize(
    ("frozen", "paths"),
    [
        ("", set()),
        ("stem", {"backbone/stem/kernel"}),
        ("bias$", {"backbone/block1/bias"}),
        ("^backbone/", {"backbone/stem/kernel", "backbone/block1/kernel", "backbone/block1/bias"}),
        ("nothing of the kind", set()),
    ],
)
def test_split_frozen_and_join_frozen(frozen, paths):
    trainable, kept = split_frozen(TREE, frozen)
    assert set(kept) == paths
    assert not trainable.keys() & kept.keys()
    assert join_frozen(trainable, kept) == TREE


TRANSFORMER = {
    "backbone/pos_embed": 0,
    "backbone/patch_embed/kernel": 0,
    "backbone/blocks_0/attn/qkv/kernel": 1,
    "backbone/blocks_11/norm1/scale": 12,
    "backbone/last_norm/scale": None,
    "keypoint_head/final_layer/kernel": None,
}


def test_layers_of_a_transformer():
    assert {path: layer_of(path) for path in TRANSFORMER} == TRANSFORMER
    assert layer_of("sppe/backbone/blocks_3/mlp/fc1/kernel") == 4
    assert layer_of("preact/layer1_0/conv1/kernel") is None


def test_earlier_layers_learn_more_slowly(config):
    """The last of 12 blocks learns at 0.5 of the head's rate, the embedding at 0.5 ** 13."""
    config.model.name = "vitpose_s_simple"
    config.optim.layer_decay, config.optim.schedule = 0.5, "constant"
    params = {path: np.ones(3, np.float32) for path in TRANSFORMER}
    optimizer = parts(config).optimizer
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    head = np.asarray(updates["keypoint_head/final_layer/kernel"])
    for path, layer in TRANSFORMER.items():
        factor = 1 if layer is None else 0.5 ** (13 - layer)
        np.testing.assert_allclose(updates[path], factor * head, rtol=1e-6)


def test_position_embeddings_do_not_decay(config):
    config.optim.name, config.optim.weight_decay = "adamw", 0.3
    params = {path: np.ones((1, 3, 2), np.float32) for path in ("backbone/pos_embed", "fc1/kernel")}
    optimizer = parts(config).optimizer
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    assert not np.any(updates["backbone/pos_embed"])
    assert np.all(np.asarray(updates["fc1/kernel"]) < 0)


def test_the_localization_network_warms_up(config):
    """Its updates are 0, a third, two thirds and all of those without warm-up; others are whole."""
    config.optim.schedule, config.sstn.localization_factor = "constant", 0.5
    params = {"localization/theta/bias": np.ones(6, np.float32), "sppe/conv": np.ones(2)}
    grads = jax.tree.map(np.ones_like, params)

    def updates() -> list[dict]:
        optimizer, found = parts(config).optimizer, []
        state = optimizer.init(params)
        for _ in range(5):
            update, state = optimizer.update(grads, state, params)
            found.append(update)
        return found

    whole = updates()
    config.sstn.localization_warmup = 3
    for warm, plain, part in zip(updates(), whole, (0, 1 / 3, 2 / 3, 1, 1), strict=True):
        bias, rest = params
        np.testing.assert_allclose(warm[bias], part * plain[bias], rtol=1e-6)
        np.testing.assert_array_equal(warm[rest], plain[rest])
