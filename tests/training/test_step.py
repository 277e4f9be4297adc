import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_parts
from toy import same

from rmpe_jax.training.optimizers import split_frozen
from rmpe_jax.training.step import make_train_step

SIZE = (32, 32)


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """Eight crops of noise with joints inside, one in five not annotated."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (8, *SIZE, 3), np.uint8),
        "keypoints": rng.uniform(2, 29, (8, 17, 2)).astype(np.float32),
        "weights": (rng.uniform(size=(8, 17)) < 0.8).astype(np.float32),
        "corrupt": np.array([0, 0, 1, 0, 0, 1, 0, 0], bool),
    }


def build(config):
    built = run_parts.parts(config)
    return built.model, built.codec, run_parts.start(config), built.step


def steps(config, batch, count: int):
    """The states after 0, 1, ... count steps, and the metrics of each."""
    _, _, state, step = build(config)
    step, states, metrics = jax.jit(step), [state], []
    for _ in range(count):
        state, found = step(state, batch)
        states.append(state)
        metrics.append(found)
    return states, metrics


def pieces_gradient(config, batch, parts: int):
    """Mean gradient over `parts`, piece j of rows j, j + parts, ..., one after the other."""
    model, codec, state, _ = build(config)
    stats, grads, losses = state.batch_stats, [], []
    for j in range(parts):
        rows = {name: jnp.asarray(value[j::parts]) for name, value in batch.items()}

        def loss(params, stats=stats, rows=rows):
            out, moved = model.apply(
                {"params": params, "batch_stats": stats},
                codec.inputs(rows["image"]),
                train=True,
                mutable=["batch_stats"],
            )
            return codec.compute_loss(out, rows["keypoints"], rows["weights"]), moved

        (value, moved), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params)
        stats = moved.get("batch_stats", {})
        grads.append(grad)
        losses.append(value)
    return jax.tree.map(lambda *g: sum(g) / parts, *grads), stats, sum(losses) / parts


def close(a, b, **tolerance) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize(("name", "parts"), [("toy", 1), ("toy", 2)])
def test_a_step_follows_the_gradient(config, batch, name, parts):
    """RMSprop's first step is rate · g / (0.1 |g| + 1e-8), which says what g was, but for scale."""
    config.model.name, config.optim.name, config.optim.learning_rate = name, "rmsprop", 1.0
    config.grad_accumulation = parts
    (before, after), (metrics,) = steps(config, batch, 1)
    grads, stats, loss = pieces_gradient(config, batch, parts)
    moments = after.opt_state[0].nu
    flat = {"/".join(key.key for key in path): g for path, g in jax.tree.leaves_with_path(grads)}
    close(moments, {path: 0.01 * g**2 for path, g in flat.items()}, rtol=1e-3, atol=1e-11)
    close(after.batch_stats, stats, rtol=1e-5, atol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert int(after.step) == 1
    assert not same(before.params, after.params)


def test_accumulation_equals_the_whole_batch_without_batch_norm(config, batch):
    config.model.name, config.optim.name = "toy_plain", "rmsprop"
    (_, whole), (metrics,) = steps(config, batch, 1)
    config.grad_accumulation = 4
    (_, parts), (metrics_of_parts,) = steps(config, batch, 1)
    close(parts.opt_state[0].nu, whole.opt_state[0].nu, rtol=1e-3, atol=1e-11)
    close(parts.params, whole.params, rtol=1e-4, atol=1e-6)
    for name in ("loss", "correct", "joints", "corrupt"):
        assert float(metrics_of_parts[name]) == pytest.approx(float(metrics[name]), rel=1e-5), name


def test_averages_follow_their_formula(config, batch):
    config.optim.ema_decay = 0.3
    states, _ = steps(config, batch, 4)

    def exact(variables):
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)

    expected = exact(states[0].latest)
    for step, state in enumerate(states[1:]):
        decay = min(0.3, (1 + step) / (10 + step))  # 0.1, 0.18, 0.25, then 0.3
        expected = jax.tree.map(
            lambda mean, new, decay=decay: decay * mean + (1 - decay) * new,
            expected,
            exact(state.latest),
        )
        close(state.ema, expected, rtol=1e-5, atol=1e-6)
        assert not same(state.ema["batch_stats"], state.batch_stats)


def test_frozen_parameters_stay_to_the_last_bit(config, batch):
    config.optim.name, config.optim.weight_decay = "adamw", 0.1
    config.optim.frozen, config.optim.ema_decay = "backbone|conv_out/bias", 0.999
    states, _ = steps(config, batch, 6)
    first, last = states[0], states[-1]
    for params in (last.params, last.ema["params"]):
        assert same(params["backbone"], first.params["backbone"])
        assert same(params["conv_out"]["bias"], first.params["conv_out"]["bias"])
        assert not same(params["conv_out"]["kernel"], first.params["conv_out"]["kernel"])


def test_frozen_parameters_do_not_change_the_others_gradients(config, batch):
    config.optim.name = "rmsprop"
    (_, free), _ = steps(config, batch, 1)
    config.optim.frozen = "backbone"
    (_, frozen), _ = steps(config, batch, 1)
    close(frozen.params["conv_out"], free.params["conv_out"], rtol=1e-5, atol=1e-7)


def test_bfloat16_stays_close(config, batch):
    _, expected = steps(config, batch, 3)
    config.model.dtype = "bfloat16"
    states, found = steps(config, batch, 3)
    losses = [[float(m["loss"]) for m in metrics] for metrics in (found, expected)]
    np.testing.assert_allclose(*losses, rtol=0.03)
    assert losses[0] != losses[1]  # the arithmetic is another
    floats = [leaf for leaf in jax.tree.leaves(states[-1]) if leaf.dtype != jnp.int32]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}


def test_one_program_for_all_steps_and_the_state_is_donated(config, batch):
    _, _, state, step = build(config)
    step = jax.jit(step, donate_argnums=0)
    old = state
    for _ in range(3):
        state, _ = step(state, batch)
    assert step._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.params, old.opt_state)))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "symmetric_integral"])
def test_a_batch_is_learned_by_heart(config, batch, loss):
    config.codec.loss, config.codec.decode = loss, "integral" if "sym" in loss else "argmax"
    config.optim.learning_rate = 0.01
    _, metrics = steps(config, batch, 150)
    first, last = metrics[0], metrics[-1]
    # Cross-entropy ends at the entropy of its targets, not at 0.
    floor = np.log(2 * np.pi * np.e * 2.0**2) if loss == "cross_entropy" else 0.0
    assert float(last["loss"]) - floor < 0.6 * (float(first["loss"]) - floor)
    accuracy = [float(m["correct"] / m["joints"]) for m in (first, last)]
    assert accuracy[1] > accuracy[0]


def test_metrics_count_joints_and_unreadable_pictures(config, batch):
    model, codec, state, step = build(config)
    _, metrics = jax.jit(step)(state, batch)
    out, _ = model.apply(
        {"params": state.params, "batch_stats": state.batch_stats},
        codec.inputs(jnp.asarray(batch["image"])),
        train=True,
        mutable=["batch_stats"],
    )
    out = np.asarray(out).reshape(8, 64, 17)
    # Heatmap pixels are at 0, 1, ... 7 of the 8, crop pixels at 0, 1, ... 31 of the 32: centers.
    peaks = (np.stack([out.argmax(1) % 8, out.argmax(1) // 8], -1) + 0.5) * 4 - 0.5
    peaks = np.where(out.max(1)[..., None] > 0, peaks, 1.5)
    near = np.linalg.norm(peaks - batch["keypoints"], axis=-1) / 3.2 < 0.5
    assert float(metrics["joints"]) == batch["weights"].sum()
    assert float(metrics["correct"]) == (near & (batch["weights"] > 0)).sum()
    assert float(metrics["corrupt"]) == 2


def test_a_batch_without_joints_moves_nothing(config, batch):
    config.optim.name = "rmsprop"
    nothing = batch | {"weights": np.zeros((8, 17), np.float32)}
    for loss in ("cross_entropy", "symmetric_integral"):
        config.codec.loss = loss
        (before, after), (metrics,) = steps(config, nothing, 1)
        assert same(before.params, after.params), loss
        assert float(metrics["loss"]) == 0


@pytest.mark.slow
def test_every_stack_of_an_hourglass_is_trained(config, batch):
    config.model.name, config.model.input_size = "hourglass_2", (64, 64)
    batch = batch | {"image": np.repeat(np.repeat(batch["image"], 2, 1), 2, 2)[:2]}
    batch = {name: value[:2] for name, value in batch.items()}
    (before, after), (metrics,) = steps(config, batch, 1)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before.params, after.params)
    assert np.isfinite(float(metrics["loss"]))
    for name, leaves in moved.items():
        assert any(jax.tree.leaves(leaves)), name


def test_random_numbers_depend_on_seed_and_step(config, batch):
    """A network that drops paths in training, within the spatial transformer too."""

    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Conv(17, (4, 4), (4, 4), "VALID")(x)
            return nn.Dropout(0.5, deterministic=not train, rng_collection="drop_path")(x)

    config.grad_accumulation = 1
    built = run_parts.parts(config)
    model = Noisy()
    params = model.init(jax.random.key(0), jnp.zeros((1, *SIZE, 3)))["params"]
    state = run_parts.start(config).replace(
        params=params,
        batch_stats={},
        ema=None,
        opt_state=built.optimizer.init(split_frozen(params, "")[0]),
    )

    def loss(seed, parts, step):
        train_step = make_train_step(
            model, built.objective, built.optimizer, grad_accumulation=parts, seed=seed
        )
        later = state.replace(step=jnp.int32(step))
        return float(jax.jit(train_step)(later, batch)[1]["loss"])

    assert loss(0, 1, 0) == loss(0, 1, 0)
    assert len({loss(0, 1, 0), loss(1, 1, 0), loss(0, 1, 1), loss(0, 2, 0)}) == 4
