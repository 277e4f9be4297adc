"""RTMPose: sizes, its attention against NumPy, precision, training, prediction.

tests/interop/test_rtmpose_twins.py compares whole networks with torch.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from one_program import compiled

from rmpe_jax.codecs.simcc import SimccCodec, SimccMaps
from rmpe_jax.errors import UserError
from rmpe_jax.models import build_sppe
from rmpe_jax.models.folding import fold_batch_norm
from rmpe_jax.models.rtmpose import (
    ChannelAttention,
    ConvModule,
    CSPLayer,
    CSPNeXt,
    GatedAttention,
    RTMCCHead,
    RTMPose,
    ScaleNorm,
    SPPBottleneck,
)
from rmpe_jax.skeletons import COCO
from rmpe_jax.top_down.prediction import make_predict
from rmpe_jax.training.objectives import PoseObjective

SIZE = (64, 64)
tiny = functools.partial(RTMPose, deepen=0.1, widen=0.125)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("name", "millions", "gigaflops"),
    [
        ("rtmpose_t", 3.34, 0.36),
        ("rtmpose_s", 5.47, 0.68),
        ("rtmpose_m", 13.59, 1.93),
        pytest.param("rtmpose_l", 27.66, 4.16, marks=pytest.mark.slow),
    ],
)
def test_shapes_and_published_sizes(name, millions, gigaflops):
    """MMPose counts a multiplication and an addition as one, and norms and activations too."""
    net = build_sppe(name, 17, jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 256, 192, 3), jnp.float32)
    outputs, variables = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x), x)
    assert isinstance(outputs, SimccMaps)
    assert outputs.x.shape == (2, 17, 384)
    assert outputs.y.shape == (2, 17, 512)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((outputs, variables)))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert round(count / 1e6, 2) == millions
    flops = jax.jit(net.apply).lower(variables, x).cost_analysis()["flops"]
    assert 0.93 < flops / 2e9 / len(outputs.x) / gigaflops < 1


def test_invalid_input_size():
    with pytest.raises(UserError, match="rtmpose: input of 256x200 pixels"):
        jax.eval_shape(tiny(17).init, jax.random.key(0), jnp.zeros((1, 256, 200, 3)))


def silu(x):
    return x / (1 + np.exp(-x))


def test_the_attention_is_the_formula():
    x = 3 * normal(2, 7, 16)
    params = jax.tree.map(
        lambda leaf: 0.3 * normal(*leaf.shape, seed=leaf.size),
        jax.eval_shape(GatedAttention().init, jax.random.key(0), x)["params"],
    )
    actual = compiled(GatedAttention().apply)({"params": params}, x)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for tokens, ours in zip(np.asarray(x, np.float64), actual, strict=True):
        rms = np.sqrt((tokens**2).mean(-1, keepdims=True))
        mixed = silu(p["ln"]["g"] * tokens / rms @ p["uv"]["kernel"])
        u, v, z = mixed[:, :32], mixed[:, 32:64], mixed[:, 64:]
        assert z.shape == (7, 128)
        query, key = (z * p["gamma"][:, i] + p["beta"][:, i] for i in (0, 1))
        weights = np.maximum(query @ key.T / np.sqrt(128), 0) ** 2
        expected = p["res_scale"] * tokens + (u * (weights @ v)) @ p["o"]["kernel"]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_scale_norm_of_zeros_is_zero_and_has_a_gradient():
    variables = {"params": {"g": jnp.array([2.0])}}
    norm = jax.jit(functools.partial(ScaleNorm().apply, variables))
    np.testing.assert_allclose(norm(np.float32([3, 4])), np.array([6, 8]) / np.sqrt(12.5))
    np.testing.assert_array_equal(norm(np.zeros(4, np.float32)), 0)
    gradient = jax.jit(jax.grad(lambda x: norm(x).sum()))
    assert np.isfinite(gradient(np.zeros(4, np.float32))).all()


@pytest.mark.parametrize(
    "net",
    [
        ConvModule(8, 5, depthwise=True),
        CSPLayer(1, residual=True),
        ChannelAttention(),
        SPPBottleneck(),
    ],
    ids=lambda net: type(net).__name__,
)
def test_eager_jitted_and_bfloat16_agree(random_variables, net):
    x = normal(2, 6, 4, 8)
    variables = random_variables(net, x)
    eager = np.asarray(net.apply(variables, x))
    jitted = jax.jit(net.apply)(variables, x)
    np.testing.assert_allclose(jitted, eager, rtol=0, atol=1e-5 * np.abs(eager).max())
    half = jax.jit(net.clone(dtype=jnp.bfloat16).apply)(variables, x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    error = np.abs(np.asarray(half, np.float32) - eager).mean() / np.abs(eager).mean()
    assert 1e-4 < error < 0.05


@pytest.mark.slow
def test_the_whole_network_eager_and_jitted(random_variables):
    net, x = tiny(3), normal(2, *SIZE, 3)
    variables = random_variables(net, x)
    eager = net.apply(variables, x)
    for ours, theirs in zip(jax.jit(net.apply)(variables, x), eager, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_each_norm_is_folded_into_its_convolution(random_variables):
    """test_folding.py compares outputs."""
    net = tiny(3)
    variables = random_variables(net, normal(2, *SIZE, 3))
    folded, _ = fold_batch_norm(net, variables, SIZE)
    stats = traverse_util.flatten_dict(variables["batch_stats"])
    assert folded.norms == {path[:-1] for path in stats}


def test_a_token_sees_its_own_map_only_before_the_attention(random_variables):
    """Joint 1's last convolution changes the other joints through the attention alone."""
    head, x = RTMCCHead(4), normal(1, 2, 1, 8)
    variables = random_variables(head, x)
    params = variables["params"]
    bias = params["final_layer"]["bias"]
    moved = params | {"final_layer": params["final_layer"] | {"bias": bias.at[1].add(1)}}
    apply = compiled(head.apply)
    for closed in (False, True):
        gau = moved["gau"] | ({"o": {"kernel": 0 * moved["gau"]["o"]["kernel"]}} if closed else {})
        before, after = (apply({"params": tree | {"gau": gau}}, x).x for tree in (params, moved))
        changed = np.abs(after - before).max((0, 2)) > 0
        assert changed.tolist() == ([False, True, False, False] if closed else [True] * 4)


def test_features_are_at_stride_32():
    net = CSPNeXt(deepen=0.1, widen=0.125)
    shape = jax.eval_shape(
        lambda x: net.init_with_output(jax.random.key(0), x)[0],
        jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32),
    ).shape
    assert shape == (2, 3, 2, 128)


@pytest.fixture(scope="module")
def trained():
    """A tiny network after steps on one batch, the batch, and the losses."""
    rng = np.random.default_rng(0)
    codec = SimccCodec(SIZE, (0.5,) * 3, (0.25,) * 3)
    net, objective = tiny(17), PoseObjective(codec)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (2, *SIZE, 3), np.uint8)),
        "keypoints": jnp.asarray(rng.integers(16, 112, (2, 17, 2)) / 2, jnp.float32),
        "weights": jnp.ones((2, 17)),
    }
    variables = jax.jit(net.init)(jax.random.key(0), objective.inputs(batch))
    optimizer = optax.adam(5e-3)

    @jax.jit
    def step(variables, state):
        def loss(params):
            outputs, updates = net.apply(
                variables | {"params": params},
                objective.inputs(batch),
                train=True,
                mutable=["batch_stats"],
            )
            value, metrics = objective.loss(outputs, batch)
            return value, (updates, metrics)

        params = variables["params"]
        (value, (updates, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        change, state = optimizer.update(gradient, state)
        variables = {"params": optax.apply_updates(params, change), **updates}
        return variables, state, value, metrics, gradient

    state, losses, first = optimizer.init(variables["params"]), [], None
    for _ in range(150):
        variables, state, value, metrics, gradient = step(variables, state)
        losses.append(float(value))
        first = gradient if first is None else first
    return net, codec, variables, batch, losses, metrics, first


@pytest.mark.slow
def test_it_learns_a_batch_by_heart(trained):
    _, _, _, _, losses, metrics, _ = trained
    assert losses[-1] < losses[0] / 10
    assert metrics["correct"] > 0.95 * metrics["joints"]


@pytest.mark.slow
def test_the_gradient_reaches_every_kernel(trained):
    for path, leaf in jax.tree.leaves_with_path(trained[-1]):
        assert np.isfinite(leaf).all(), path
        assert path[-1].key != "kernel" or np.abs(leaf).max() > 0, path


@pytest.mark.slow
@pytest.mark.parametrize("flip_test", [False, True])
def test_prediction_is_network_merge_and_decoding(trained, flip_test):
    net, codec, variables, batch, *_ = trained
    predict = make_predict(net, codec, COCO, flip_test=flip_test)
    to_image = jnp.tile(jnp.array([[2.0, 0, 10], [0, 2, 20]]), (2, 1, 1))
    found, scores = predict(variables, batch["image"], to_image)
    assert found.shape == (2, 17, 2)
    assert ((scores >= 0) & (scores <= 1)).all()
    maps = net.apply(variables, codec.inputs(batch["image"]))
    if flip_test:
        flipped = net.apply(variables, codec.inputs(batch["image"][:, :, ::-1]))
        maps = codec.merge_flipped(maps, flipped, COCO.flip_indices)
    expected = codec.keypoints(maps)[0] * 2 + jnp.array([10, 20])
    # A tie of two bins may be broken otherwise.
    assert (np.abs(found - expected).max(-1) < 1e-3).mean() > 0.95
