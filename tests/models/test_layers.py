import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.errors import UserError
from rmpe_jax.models import layers
from rmpe_jax.ops.convolutions import max_pool_3x3

jitted = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def nchw(x):
    return x.transpose(0, 3, 1, 2)


@jitted
@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle"])
def test_shuffles(ops, jit, name):
    x = draw(2, 4, 6, 8)
    actual = jit(getattr(layers, name))(jnp.asarray(x))
    np.testing.assert_array_equal(nchw(actual), getattr(ops, name)(nchw(x)))


def test_pixel_shuffle_from_its_formula():
    x = draw(3, 2, 8)
    y = np.asarray(layers.pixel_shuffle(jnp.asarray(x)))
    for row, column, c, i, j in np.ndindex(3, 2, 2, 2, 2):
        assert y[2 * row + i, 2 * column + j, c] == x[row, column, 4 * c + 2 * i + j]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=0, max_size=2), *[st.integers(1, 4)] * 3)
def test_shuffles_undo_each_other(batch, height, width, channels):
    x = draw(*batch, 2 * height, 2 * width, channels)
    y = layers.pixel_unshuffle(jnp.asarray(x))
    assert y.shape == (*batch, height, width, 4 * channels)
    np.testing.assert_array_equal(layers.pixel_shuffle(y), x)


@jitted
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)])
def test_max_pool(ops, jit, size):
    x = draw(2, *size, 3) - 5  # negative, so padding with zeros would change the result
    actual = jit(max_pool_3x3)(jnp.asarray(x))
    np.testing.assert_array_equal(nchw(actual), ops.max_pool2d(nchw(x), 3, 2, 1))


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_gradient_of_max_pool(size):
    """Equals that of XLA's pooling; all pixels differ."""
    x = np.random.default_rng(0).permutation(2 * size[0] * size[1] * 3).reshape(2, *size, 3) - 9.0
    weights = draw(2, (size[0] + 1) // 2, (size[1] + 1) // 2, 3)

    def xla(x):
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    actual, expected = (
        jax.grad(lambda x, pool=pool: (pool(x) * weights).sum())(jnp.asarray(x))
        for pool in (max_pool_3x3, xla)
    )
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_equal_pixels_share_the_gradient_of_max_pool_but_zeros_of_a_relu_get_none():
    x, weights = jnp.asarray(draw(2, 8, 6, 3)), draw(2, 4, 3, 3, seed=1)

    def gradient(pool, before):
        return jax.grad(lambda x: (pool(before(x)) * weights).sum())(x)

    constant = gradient(max_pool_3x3, lambda x: 0 * x + x.mean((1, 2), keepdims=True))
    np.testing.assert_allclose(constant.sum((1, 2)), weights.sum((1, 2)), atol=1e-5)

    def xla(x):
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    def mostly_zero(x):
        return nn.relu(x - 1)

    np.testing.assert_allclose(
        gradient(max_pool_3x3, mostly_zero), gradient(xla, mostly_zero), atol=1e-6
    )


def test_only_cpus_pool_by_slices():
    traced = jax.jit(max_pool_3x3).trace(jnp.ones((1, 4, 4, 2)))
    pooled = {
        platform: "reduce_window" in traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert pooled == {"cpu": False, "cuda": True, "tpu": True}


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upsample_nearest(ops, factor):
    x = draw(2, 3, 4, 5)
    actual = layers.upsample_nearest(jnp.asarray(x), factor)
    np.testing.assert_array_equal(nchw(actual), ops.upsample(nchw(x), factor))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_conv_pads_both_sides(ops, kernel, stride, size):
    x = draw(2, *size, 3)
    net = layers.conv(4, kernel, stride=stride, bias=True, name="layer")
    weight, bias = draw(kernel, kernel, 3, 4, seed=1), draw(4, seed=2)
    actual = jax.jit(net.apply)({"params": {"kernel": weight, "bias": bias}}, x)
    expected = ops.conv2d(nchw(x), weight.transpose(3, 2, 0, 1), bias, stride, kernel // 2)
    np.testing.assert_allclose(nchw(actual), expected, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_1x1_convolution_is_one_on_every_platform(stride):
    x, ct = draw(2, 7, 5, 3), draw(2, -(-7 // stride), -(-5 // stride), 4, seed=1)
    net = layers.conv(4, 1, stride=stride, name="layer")
    variables = {"params": {"kernel": draw(1, 1, 3, 4, seed=2)}}

    def convolution(variables, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel = variables["params"]["kernel"]
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=numbers
        )

    for actual, expected in zip(
        jax.tree.leaves(jax.vjp(net.apply, variables, x)[1](ct)),
        jax.tree.leaves(jax.vjp(convolution, variables, x)[1](ct)),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    traced = jax.jit(net.apply).trace(variables, x)
    assert "convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    for platform in ("cuda", "tpu"):
        assert "convolution" in traced.lower(lowering_platforms=(platform,)).as_text()


def test_deconv(ops):
    x, weight = draw(2, 3, 5, 4), draw(4, 6, 4, 4, seed=1)
    kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    actual = layers.Deconv4x4(6).apply({"params": {"kernel": kernel}}, jnp.asarray(x))
    assert actual.shape == (2, 6, 10, 6)
    expected = ops.conv_transpose2d(nchw(x), weight, None, 2, 1)
    np.testing.assert_allclose(nchw(actual), expected, atol=1e-4)


def test_deconv_is_the_one_of_flax():
    """With its gradients, in bfloat16, and with more batch axes; the parameters are the same."""
    x = jnp.asarray(draw(2, 3, 3, 5, 4))
    net = layers.Deconv4x4(6)
    flax = nn.ConvTranspose(6, (4, 4), (2, 2), ((2, 2), (2, 2)), use_bias=False)
    variables = net.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, flax.init(jax.random.key(0), x)
    )
    (y, vjp), (expected, flax_vjp) = (jax.vjp(n.apply, variables, x) for n in (net, flax))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    ct = draw(*y.shape, seed=1)
    for actual, other in zip(*(jax.tree.leaves(f(ct)) for f in (vjp, flax_vjp)), strict=True):
        np.testing.assert_allclose(actual, other, rtol=1e-5, atol=1e-5)
    assert layers.Deconv4x4(6, dtype=jnp.bfloat16).apply(variables, x).dtype == jnp.bfloat16


def test_deconv_is_a_transposed_convolution_on_accelerators():
    net, x = layers.Deconv4x4(6), jnp.asarray(draw(2, 3, 5, 4))
    traced = jax.jit(net.apply).trace(net.init(jax.random.key(0), x), x)
    dilated = "lhs_dilate = [2, 2]"
    assert dilated not in traced.lower(lowering_platforms=("cpu",)).as_text()
    for platform in ("cuda", "tpu"):
        assert dilated in traced.lower(lowering_platforms=(platform,)).as_text()


def train_batch_norm(x, dtype=jnp.float32):
    net = layers.BatchNorm(True, dtype)
    x = jnp.asarray(x)
    variables = net.init(jax.random.key(0), x)
    y, updates = net.apply(variables, x, mutable=["batch_stats"])
    return y, updates["batch_stats"]


def test_batch_norm_training_step():
    x = 3 * draw(4, 5, 6, 2) + 1
    y, stats = train_batch_norm(x)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, atol=1e-5)


@jitted
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("offset", "dtype"), [(1, "float32"), (30, "float32"), (1, "bfloat16")])
def test_batch_norm_is_that_of_flax(jit, train, offset, dtype):
    """Outputs, statistics, and gradients of input and parameters."""
    ours = layers.BatchNorm(train, dtype)
    theirs = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype)
    x = jnp.asarray(3 * draw(4, 5, 6, 2) + offset, dtype)
    weights = jnp.asarray(draw(4, 5, 6, 2, seed=1), dtype)
    variables = {
        "params": {"scale": jnp.array([2.0, 0.5]), "bias": jnp.array([0.1, -1.0])},
        "batch_stats": {"mean": jnp.array([1.0, 2.0]), "var": jnp.array([4.0, 9.0])},
    }
    initial = (norm.init(jax.random.key(0), x) for norm in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, *initial)

    def loss(net, params, x):
        y, moved = net.apply(variables | {"params": params}, x, mutable=["batch_stats"])
        return (y * weights).sum(), (y, moved["batch_stats"])

    actual, expected = (
        jit(jax.value_and_grad(functools.partial(loss, net), (0, 1), has_aux=True))(
            variables["params"], x
        )
        for net in (ours, theirs)
    )
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        exact = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 0.02, "atol": 0.2}
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), **exact)


def test_batch_norm_against_torch():
    torch = pytest.importorskip("torch")
    x = 3 * draw(2, 3, 4, 2) + 1
    y, stats = train_batch_norm(x)
    net = torch.nn.BatchNorm2d(2)
    expected = net(torch.from_numpy(nchw(x).copy())).detach().numpy()
    np.testing.assert_allclose(nchw(y), expected, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], net.running_mean, atol=1e-6)
    # torch stores the unbiased variance, n / (n - 1) times ours.
    count = x[..., 0].size
    unbiased = 0.9 + (stats["var"] - 0.9) * count / (count - 1)
    np.testing.assert_allclose(unbiased, net.running_var, atol=1e-5)


def test_batch_norm_statistics_stay_float32():
    x = draw(8, 32, 32, 2) + 100
    y, stats = train_batch_norm(x.astype(jnp.bfloat16), jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
    np.testing.assert_allclose(stats["mean"], 10, rtol=1e-2)


def test_heatmap_conv_starts_near_zero_and_is_float32():
    x = draw(1, 4, 4, 512).astype(jnp.bfloat16)
    net = layers.heatmap_conv(17, 3, name="layer")
    y, variables = net.init_with_output(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), 0.001, rtol=0.02)
    assert not variables["params"]["bias"].any()
    assert y.dtype == jnp.float32
    assert (y.astype(jnp.bfloat16) != y).mean() > 0.9  # also not rounded internally


def test_conv_starts_he_normal():
    variables = layers.conv(64, 3, name="layer").init(jax.random.key(0), draw(1, 4, 4, 32))
    np.testing.assert_allclose(variables["params"]["kernel"].var(), 2 / (32 * 9), rtol=0.05)


def test_check_size():
    layers.check_size(jnp.zeros((2, 64, 96, 3)), 32, "net")
    with pytest.raises(UserError, match=r"net: input of 64x80 pixels.*multiples of 32"):
        layers.check_size(jnp.zeros((2, 64, 80, 3)), 32, "net")
