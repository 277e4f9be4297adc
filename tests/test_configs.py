"""The published recipes, as far as shapes and schedules go: nothing is computed here."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import pytest
import run_parts

from rmpe_jax.skeletons import get_skeleton

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
PUBLISHED = ("coco_fastpose_res50_256x192", "mpii_hourglass")


def load(name: str):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_step_keeps_the_state_as_it_is_shaped(name):
    config = load(name)
    if name == "mpii_hourglass":
        config.model.name = "hourglass_2"  # traced in a quarter of the time
    built = run_parts.parts(config)
    codec = built.codec
    assert codec.heatmap_size == tuple(side // 4 for side in config.model.input_size)
    state = jax.eval_shape(lambda: run_parts.start(config))
    b, k = config.batch_size, get_skeleton(config.model.skeleton).num_keypoints
    batch = {
        "image": jax.ShapeDtypeStruct((b, *codec.input_size, 3), jnp.uint8),
        "keypoints": jax.ShapeDtypeStruct((b, k, 2), jnp.float32),
        "weights": jax.ShapeDtypeStruct((b, k), jnp.float32),
        "corrupt": jax.ShapeDtypeStruct((b,), jnp.bool),
    }
    after, metrics = jax.eval_shape(built.step, state, batch)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert metrics["loss"].shape == ()


def test_fastpose_is_trained_for_210_epochs_and_slows_down_after_170_and_200():
    config = load("coco_fastpose_res50_256x192")
    epoch = 149_813 / 128
    rate = run_parts.rate(config)
    assert config.total_steps == pytest.approx(210 * epoch, abs=1)
    for number, expected in ((0, 1e-3), (169, 1e-3), (171, 1e-4), (199, 1e-4), (201, 1e-5)):
        assert float(rate(int(number * epoch))) == pytest.approx(expected)


def test_hourglass_slows_down_once():
    config = load("mpii_hourglass")
    rate = run_parts.rate(config)
    assert float(rate(599_999)) == pytest.approx(2.5e-4)
    assert float(rate(config.total_steps - 1)) == pytest.approx(2.5e-5)
