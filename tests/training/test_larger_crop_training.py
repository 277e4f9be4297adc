"""Training with views that are smaller than the crop: the parallel target, and whole steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_parts
from toy import same

from rmpe_jax.models.rmpe import RMPE, TrainingOutputs, stn
from rmpe_jax.ops import geometry
from rmpe_jax.ops.spatial_transformer import theta_from_pixels

CROP, VIEW = (48, 48), (32, 32)
SHIFT = np.array([3, -2])  # crop pixels: where a crop is, from the well-placed one


@pytest.fixture
def control(config):
    """The toy network alone, on crops of the views' size."""
    config.model.input_size = VIEW
    return config


@pytest.fixture
def larger(control):
    """The same network as both branches of a transformer, on larger crops."""
    config = control.copy_and_resolve_references()
    config.sstn.enabled, config.sstn.parallel = True, "toy"
    config.model.init_from = "somewhere"
    config.sstn.context, config.model.input_size, config.data.padding = 1.5, CROP, 1.5 * 1.25
    return config


@pytest.fixture(scope="module")
def batch():
    """Eight crops, each SHIFT away from the well-placed crop of an image of noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 64, 64, 3), np.uint8)
    (x, y), keypoints = 8 + SHIFT, rng.uniform(2, 46, (8, 17, 2)).astype(np.float32)
    affine = np.concatenate([np.eye(2), SHIFT[:, None]], 1)
    return {
        "image": images[:, y : y + CROP[0], x : x + CROP[1]],
        "keypoints": keypoints,
        "weights": (rng.uniform(size=(8, 17)) < 0.8).astype(np.float32),
        "corrupt": np.zeros(8, bool),
        "centered_from_crop": np.tile(affine, (8, 1, 1)).astype(np.float32),
        "control": images[:, 16:48, 16:48],  # the window of the well-placed crop
    }


@pytest.mark.slow
def test_the_parallel_target_is_that_of_the_well_placed_control(control, larger, batch):
    alone, built = run_parts.parts(control), run_parts.parts(larger)
    assert isinstance(built.model, RMPE)
    variables = run_parts.start(control).latest
    apply = jax.jit(alone.model.apply)
    batch = jax.tree.map(jnp.asarray, batch)

    keypoints = batch["keypoints"] + SHIFT - 8
    is_inside = ((keypoints >= -0.5) & (keypoints < 31.5)).all(-1)
    assert 0.2 < is_inside.mean() < 0.8
    heatmaps = apply(variables, alone.codec.inputs(batch["control"]))
    expected = alone.codec.compute_loss(heatmaps, keypoints, batch["weights"] * is_inside)

    theta = theta_from_pixels(geometry.invert(batch["centered_from_crop"]), CROP)
    views = stn(built.codec.inputs(batch["image"]), theta, VIEW)
    seen = apply(variables, views)
    whole = jnp.zeros((8, 12, 12, 17))
    probes = jnp.stack([seen] * 7 + [0 * seen], 1)
    _, metrics = built.objective.loss(TrainingOutputs(whole, seen, theta), batch)
    assert float(metrics["parallel_loss"]) == pytest.approx(float(expected), rel=1e-3)
    assert float(metrics["placement"]) == pytest.approx(0, abs=1e-5)

    def guided(theta):
        return built.objective.loss(TrainingOutputs(whole, seen, theta, probes), batch)[0]

    # The last probe is that of t_y, one step behind.
    nothing = alone.codec.compute_loss(0 * seen, keypoints, batch["weights"] * is_inside)
    slopes = jax.grad(guided)(theta).sum(0)
    assert float(slopes[1, 2]) == pytest.approx(float(expected - nothing) / 0.5, rel=0.01)
    assert float(jnp.abs(slopes.at[1, 2].set(0)).max()) < 1e-4


@pytest.mark.slow
def test_at_the_identity_the_parallel_branch_sees_the_control(control, larger, batch):
    """Both start from the same weights; the crop is well placed."""
    variables = run_parts.start(control).latest
    built, state = run_parts.parts(larger), run_parts.start(larger)
    for branch in ("sppe", "parallel_sppe"):
        state.params[branch], state.batch_stats[branch] = (
            jax.tree.map(jnp.copy, variables[kind]) for kind in ("params", "batch_stats")
        )
    images = jnp.asarray(batch["image"])
    found = jax.jit(built.model.apply)(state.latest, built.codec.inputs(images))
    alone = run_parts.parts(control)
    window = alone.codec.inputs(images[:, 8:40, 8:40])
    expected = jax.jit(alone.model.apply)(variables, window)
    assert found.shape == (8, 12, 12, 17)
    np.testing.assert_allclose(found[:, 2:10, 2:10], expected, atol=1e-5)
    assert float(jnp.abs(found).sum()) == pytest.approx(float(jnp.abs(expected).sum()), rel=1e-4)


@pytest.mark.parametrize("parallel", ["toy", ""])
@pytest.mark.parametrize(
    "guidance", [pytest.param("autodiff", marks=pytest.mark.slow), "differences"]
)
def test_steps_of_training(larger, batch, guidance, parallel):
    larger.sstn.guidance, larger.sstn.parallel = guidance, parallel
    first, step = run_parts.start(larger), jax.jit(run_parts.parts(larger).step)
    state, metrics = step(first, batch)
    state, metrics = step(state, batch)
    assert np.isfinite(float(metrics["loss"]))
    moved = {name: not same(state.params[name], first.params[name]) for name in first.params}
    expected = {"sppe": True, "localization": True}
    assert moved == expected | ({"parallel_sppe": False} if parallel else {})
