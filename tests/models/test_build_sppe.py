import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.models import SPPE_NAMES, build_sppe
from rmpe_jax.models.fastpose import FastPose
from rmpe_jax.models.hourglass import Hourglass, StackedHourglass
from rmpe_jax.models.resnet import Bottleneck
from rmpe_jax.models.simplepose import SimplePose

PUBLISHED = (
    *(f"fastpose_res{depth}" for depth in (18, 34, 50, 101, 152)),
    *("fastpose_duc_res50", "fastpose_duc_res152", "fastpose_duc_res50_plain"),
    *("fastpose_res50_wide", "fastpose_res101_plain_wide"),
    *(f"simplepose_res{depth}" for depth in (18, 50, 101, 152)),
    *("hrnet_w32", "hrnet_w48", "hourglass_2", "hourglass_4", "hourglass_8"),
)


@functools.cache
def shapes(name, num_keypoints=17, dtype=jnp.float32):
    """The shapes of heatmaps and variables."""
    net = build_sppe(name, num_keypoints, dtype)
    x = jax.ShapeDtypeStruct((2, 128, 64, 3), jnp.float32)
    return jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x), x)


def test_all_published_networks_exist():
    assert set(PUBLISHED) <= set(SPPE_NAMES)


LARGE = {
    *("fastpose_res101", "fastpose_res152", "fastpose_duc_res152", "fastpose_res101_plain_wide"),
    *("simplepose_res101", "simplepose_res152", "hrnet_w48", "hourglass_4", "hourglass_8"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in PUBLISHED],
)
def test_heatmaps_and_parameters(name):
    heatmaps, variables = shapes(name, dtype=jnp.bfloat16)
    stacks = int(name.split("_")[1]) if name.startswith("hourglass") else None
    assert (len(heatmaps) if isinstance(heatmaps, list) else None) == stacks
    for leaf in jax.tree.leaves(heatmaps):
        assert leaf.shape == (2, 32, 16, 17)
        assert leaf.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("fastpose_res50", 40_577_745),
        ("simplepose_res50", 33_999_697),
        ("fastpose_duc_res50", 57_853_777),
        ("hrnet_w32", 28_536_113),
        pytest.param("hrnet_w48", 63_595_745, marks=pytest.mark.slow),
    ],
)
def test_parameter_counts(name, count):
    params = shapes(name, dtype=jnp.bfloat16)[1]["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def read_keys(path):
    """Reads {name: shape} from a list of checkpoint keys, one `name (shape)` per line."""
    lines = [line.split(" ", 1) for line in path.read_text().splitlines()]
    keys = {name: shape for name, shape in lines if shape.startswith("(")}
    return {name: shape for name, shape in keys.items() if "num_batches_tracked" not in name}


CHECKPOINTS = {
    "coco_resnet_res50_1x": lambda: build_sppe("fastpose_res50", 17),
    "coco_resnet_res50_1x-simple": lambda: build_sppe("simplepose_res50", 17),
    "coco_resnet_res50_1x-duc": lambda: build_sppe("fastpose_duc_res50", 17),
    "coco_resnet_res152_1x-duc": lambda: build_sppe("fastpose_duc_res152_se", 17),
    "coco_hrnet_w32": lambda: build_sppe("hrnet_w32", 17),
    "halpe_136_resnet_res50_2x-regression": lambda: build_sppe("fastpose_res50_wide", 136),
}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_every_checkpoint_key_has_its_parameter(shared, checkpoint_state, checkpoint):
    keys = read_keys(shared / "docs" / "checkpoint_keys" / f"{checkpoint}.txt")
    assert len(keys) > 250
    x = jnp.zeros((1, 64, 64, 3))
    net = CHECKPOINTS[checkpoint]()
    state = jax.eval_shape(lambda x: checkpoint_state(net.init(jax.random.key(0), x)), x)
    assert {name: str(leaf.shape) for name, leaf in state.items()} == keys


def test_unknown_name():
    with pytest.raises(UserError, match=r"no 'hrnet_w23'; choose one of hrnet_w32, ") as info:
        build_sppe("hrnet_w23", 17)
    assert all(name in str(info.value) for name in SPPE_NAMES)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["fastpose_res18", "simplepose_res18", "hrnet_w32", "hourglass_2"])
def test_invalid_input_size(name):
    with pytest.raises(UserError, match="input of 256x200 pixels"):
        jax.eval_shape(build_sppe(name, 17).init, jax.random.key(0), jnp.zeros((1, 256, 200, 3)))


def small_fastpose(dtype=jnp.float32):
    return FastPose(5, depth=18, duc_features=(32, 16), dtype=dtype)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (Bottleneck(4, stride=2, se=True), (2, 8, 8, 6)),
        (Hourglass(depth=1), (2, 8, 8, 6)),
        pytest.param(small_fastpose(), (2, 64, 32, 3), marks=pytest.mark.slow),
    ],
)
def test_eager_jitted_and_bfloat16_agree(random_variables, net, shape):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    variables = random_variables(net, x)
    eager = np.asarray(net.apply(variables, x))
    jitted = jax.jit(net.apply)(variables, x)
    np.testing.assert_allclose(jitted, eager, atol=1e-4 * np.abs(eager).max())
    bfloat16 = jax.jit(net.clone(dtype=jnp.bfloat16).apply)(variables, x)
    error = np.abs(np.asarray(bfloat16, np.float32) - eager).mean() / np.abs(eager).mean()
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (Bottleneck(4, stride=2, se=True), (2, 8, 8, 6)),
        (Bottleneck(4, stride=2, shuffle=True), (2, 8, 8, 6)),
        (Hourglass(depth=1), (2, 8, 8, 6)),
        pytest.param(small_fastpose(), (2, 64, 64, 3), marks=pytest.mark.slow),
        pytest.param(SimplePose(5, depth=18), (2, 64, 64, 3), marks=pytest.mark.slow),
        pytest.param(StackedHourglass(5, 2, features=8), (2, 64, 64, 3), marks=pytest.mark.slow),
    ],
)
def test_gradient_reaches_every_kernel_and_statistics_move(random_variables, net, shape):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    variables = random_variables(net, x)

    def loss(params):
        heatmaps, updates = net.apply(
            variables | {"params": params}, x, train=True, mutable=["batch_stats"]
        )
        return sum(((y - 1) ** 2).mean() for y in jax.tree.leaves(heatmaps)), updates

    gradient, updates = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert path[-1].key != "kernel" or np.abs(leaf).max() > 0, path
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), updates["batch_stats"], variables["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))
