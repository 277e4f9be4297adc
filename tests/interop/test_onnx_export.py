"""Compares every rule in onnxruntime with JAX's arithmetic."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rmpe_jax.errors import UserError
from rmpe_jax.models import layers
from rmpe_jax.models.inverted_residual import depthwise
from rmpe_jax.models.layers import pixel_shuffle, pixel_unshuffle, upsample_nearest
from rmpe_jax.models.rmpe import sdtn, stn
from rmpe_jax.ops import heatmaps

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from rmpe_jax.interop.onnx_export import to_onnx  # noqa: E402
from rmpe_jax.interop.onnx_graph import OPSET  # noqa: E402

RNG = np.random.default_rng(0)
SIZE = (8, 6, 4)
KERNEL = RNG.standard_normal((3, 3, 4, 5)).astype(np.float32)
GROUPED = RNG.standard_normal((3, 2, 2, 6)).astype(np.float32)
MATRIX = RNG.standard_normal((4, 3)).astype(np.float32)
ROWS = RNG.standard_normal((8, 3)).astype(np.float32)


def conv(x, kernel=KERNEL, strides=(1, 1), padding=((1, 1), (1, 1)), **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=numbers, **options
    )


def to_integers(x):
    return jnp.floor(3 * x).astype(jnp.int32)


def thetas(x):
    """Warps that depend on x."""
    small = 0.2 * jnp.tanh(x[:, 0, 0, :1])
    return jnp.stack(
        [jnp.stack([1 + small, small, -small], -1), jnp.stack([-small, 1 - small, small], -1)], -2
    )[:, 0]


FUNCTIONS = {
    # elementwise
    "arithmetic": lambda x: (2 * x - 1) / (3 + x * x) - x + 0.5,
    "two_arrays": lambda x: x * x[:, 4:, :1].repeat(2, 1) - x[:, :1] + x[..., :1] / (4 + x),
    "powers": lambda x: x**3 + jnp.square(x) + jnp.abs(x) ** 1.5 + jnp.sqrt(jnp.abs(x)),
    "exponentials": lambda x: jnp.exp(x) + jnp.log(1 + x * x) + jnp.tanh(x) + lax.logistic(x),
    "rsqrt_erf": lambda x: lax.rsqrt(1 + x * x) + lax.erf(x),
    "rounding": lambda x: jnp.floor(x) + 10 * jnp.ceil(x) + 100 * jnp.sign(x) - jnp.abs(x),
    "maxima": lambda x: jnp.maximum(x, 0) + jnp.minimum(x, 0.3) + jnp.maximum(-x, x[:, :1]),
    "infinite_bounds": lambda x: jnp.maximum(x, -jnp.inf) + jnp.minimum(jnp.inf, x),
    "activations": lambda x: jax.nn.relu6(9 * x) + jax.nn.silu(x) + jax.nn.gelu(x),
    "clip": lambda x: jnp.clip(x, -0.5, 0.25) + lax.clamp(-x * x, x, 0.1 + x * x),
    "comparisons": lambda x: (
        jnp.where((x > 0) & (x <= 1) | (x < -1), x, -x) + jnp.where(~(x >= 0.5), 1.0, x)
    ),
    "equality": lambda x: (
        jnp.where(to_integers(x) == 1, 5, 0) + jnp.where(to_integers(x) != 2, to_integers(x), 7)
    ),
    "integers": lambda x: (
        to_integers(x) // 2 + 10 * (to_integers(x) % 3) + lax.rem(to_integers(x), 4)
    ),
    "integer_bounds": lambda x: (
        jnp.maximum(to_integers(x), 0) - jnp.minimum(to_integers(x), jnp.int32(1))
    ),
    "types": lambda x: to_integers(x).astype(jnp.float32) + (x > 0).astype(jnp.float32),
    "softmax": lambda x: jax.nn.softmax(x, axis=(1, 2)),
    "platforms": lambda x: lax.platform_dependent(x, cpu=lambda x: x + x, default=lambda x: 2 * x),
    "identities": lambda x: lax.optimization_barrier(lax.stop_gradient(x)) + x,
    # shapes
    "transpose": lambda x: x.transpose(0, 3, 2, 1) + 1,
    "flatten": lambda x: x.reshape(x.shape[0], -1),
    "reshape": lambda x: x.transpose(0, 2, 1, 3).reshape(-1, 2, 3, 2, 4, 2, 2).reshape(-1, 12, 16),
    "batch_merged": lambda x: x.reshape(-1, 4).sum(1).reshape(-1, 8, 6),
    "new_axes": lambda x: x[:, None, :, :, None] + x.sum((1, 2))[:, None, None, None, :, None],
    "squeeze": lambda x: x[:, :1, :, :1].squeeze((1, 3)) + lax.squeeze(x[:, 2:3, :, 1:2], (1, 3)),
    "slices": lambda x: x[:, 1:4, 2:] + x[:, :3, :4] - x[:, 3, 1:5][:, None],
    "lax_slice": lambda x: lax.slice(x, (0, 1, 0, 2), (x.shape[0], 8, 6, 3), (1, 3, 2, 1)),
    "pad": lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 3), (0, 0)), constant_values=2.0),
    "concatenate": lambda x: jnp.concatenate([x, jnp.ones_like(x[..., :2]), 2 * x[..., 1:]], -1),
    "stack": lambda x: jnp.stack([x, -x, jnp.zeros_like(x)], 2),
    "broadcast": lambda x: jnp.broadcast_to(jnp.arange(6.0)[:, None], x.shape).at[:].get() + x,
    "constant": lambda x: jnp.broadcast_to(jnp.arange(24.0).reshape(6, 4), x.shape),
    "iota": lambda x: x + lax.broadcasted_iota(jnp.float32, x.shape, 2),
    "take": lambda x: jnp.take_along_axis(x, to_integers(x[:, :2]) % 8, axis=1, mode="clip"),
    "take_outside": lambda x: jnp.take_along_axis(x, 5 * to_integers(x), axis=3, mode="clip"),
    "constant_index": lambda x: x[:, 3] + x[:, -1] + x[:, 2, :, :1],
    "pixel_shuffle": lambda x: pixel_shuffle(conv(x, KERNEL[..., :4])) + 1,
    "pixel_unshuffle": lambda x: conv(pixel_unshuffle(x), KERNEL.repeat(4, 2)),
    "upsample": lambda x: upsample_nearest(conv(x), 2) + 1,
    # layers
    "conv": conv,
    "conv_strided": lambda x: conv(x, strides=(2, 3), padding=((0, 1), (2, 0))),
    "conv_dilated": lambda x: conv(x, rhs_dilation=(2, 1), padding="VALID"),
    "conv_grouped": lambda x: conv(x, GROUPED, feature_group_count=2),
    "conv_transposed": lambda x: conv(x, lhs_dilation=(2, 3), padding=((1, 2), (2, 0))),
    "conv_transposed_grouped": lambda x: conv(
        x, GROUPED, lhs_dilation=(2, 2), feature_group_count=2, padding=((0, 2), (1, 0))
    ),
    "conv_transposed_dilated": lambda x: conv(
        x, lhs_dilation=(2, 2), rhs_dilation=(2, 1), padding=((3, 4), (1, 1))
    ),
    "conv_nchw": lambda x: lax.conv_general_dilated(
        x.transpose(0, 3, 1, 2), KERNEL.transpose(3, 2, 0, 1), (1, 1), "SAME"
    ),
    "conv_in_a_row": lambda x: conv(
        jax.nn.relu(conv(x) * 2 - ROWS[0, :1]), KERNEL.repeat(2, 2)[:, :, :5]
    ),
    "depthwise": lambda x: (
        depthwise(x, KERNEL[..., 0], 2) + depthwise(x[:, :4, :3], KERNEL[..., 1], 1)
    ),
    "max_pool": lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
    ),
    "sum_pool": lambda x: lax.reduce_window(
        x, 0.0, lax.add, (1, 2, 3, 1), (1, 2, 3, 1), ((0, 0), (0, 0), (1, 2), (0, 0))
    ),
    "reductions": lambda x: (
        x.sum(2) + x.mean((1, 2))[:, None] + x.max(2) - x.min((1, 2, 3))[:, None, None]
    ),
    "reduced_layer": lambda x: conv(x).max((1, 3)) + conv(x).sum(-1).min(1),
    "argmax": lambda x: x.reshape(-1, 48, 4).argmax(1),
    "dense": lambda x: x @ MATRIX,
    "dot_layer": lambda x: conv(x, KERNEL[..., :4]) @ MATRIX,
    "einsum": lambda x: jnp.einsum("bhwc,hk,bhwd->bkcd", x, ROWS, x),
    "matmul": lambda x: x @ x.swapaxes(-1, -2),
    # functions of the method
    "stn": lambda x: stn(x, thetas(x)),
    "sdtn": lambda x: sdtn(x, thetas(x), (32, 24), logits=True),
    **{
        f"decode_{method}": lambda x, method=method: heatmaps.decode(jnp.abs(x), method)
        for method in ("argmax", "quarter", "dark", "integral")
    },
}


def export(function, size=SIZE, **options):
    outputs = jax.eval_shape(function, jnp.zeros((2, *size)))
    names = [f"y{i}" for i in range(len(jax.tree.leaves(outputs)))]
    return to_onnx(function, size, input_name="x", output_names=names, **options)


def run(model, x):
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_onnxruntime_agrees_with_jax(name):
    function = FUNCTIONS[name]
    x = RNG.standard_normal((3, *SIZE)).astype(np.float32)
    model = export(function)
    expected = jax.tree.leaves(jax.jit(function)(x))
    for count in (3, 1):
        actual = run(model, x[:count])
        for ours, theirs in zip(actual, expected, strict=True):
            theirs = np.asarray(theirs)[: count * len(theirs) // 3]
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


def kinds(model):
    return collections.Counter(node.op_type for node in model.graph.node)


def test_channels_first():
    x = RNG.standard_normal((2, *SIZE)).astype(np.float32)
    model = export(conv, channels_first=True)
    (actual,) = run(model, x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(actual, conv(x).transpose(0, 3, 1, 2), atol=2e-5)
    assert kinds(model) == {"Conv": 1, "Identity": 1}


def test_consecutive_layers_need_no_transposes():
    model = export(FUNCTIONS["conv_in_a_row"])
    assert kinds(model)["Transpose"] == 2
    assert kinds(model)["Conv"] == 2
    # The shuffle itself adds one transpose.
    assert kinds(export(FUNCTIONS["pixel_shuffle"]))["Transpose"] == 3


def test_a_1x1_convolution_is_a_convolution():
    """On CPUs JAX computes it as a matrix product, but models are exported for any machine."""
    network = layers.conv(5, 1, name="layer")
    variables = network.init(jax.random.key(0), jnp.zeros((1, *SIZE)))
    nodes = kinds(export(lambda x: network.apply(variables, x), channels_first=True))
    assert nodes["Conv"] == 1
    assert not nodes["MatMul"]


def test_constants_are_folded_and_unused_values_are_left_out():
    weights = jnp.asarray(MATRIX)

    def function(x):
        unused = jnp.exp(x) @ weights
        del unused
        return x @ (2 * weights + 1).reshape(2, 2, 3).reshape(4, 3)

    model = export(function)
    assert kinds(model) == {"MatMul": 1, "Identity": 1}
    (weight,) = model.graph.initializer
    np.testing.assert_allclose(onnx.numpy_helper.to_array(weight), 2 * MATRIX + 1, rtol=1e-6)


def test_the_model_has_names_shapes_and_metadata():
    model = export(lambda x: (x, x > 0), metadata={"joints": "nose"})
    (opset,) = model.opset_import
    assert opset.version == OPSET
    (prop,) = model.metadata_props
    assert (prop.key, prop.value) == ("joints", "nose")
    (given,), results = model.graph.input, model.graph.output
    assert [info.name for info in (given, *results)] == ["x", "y0", "y1"]
    for info in (given, *results):
        batch, *sizes = info.type.tensor_type.shape.dim
        assert batch.dim_param == "batch"
        assert tuple(size.dim_value for size in sizes) == SIZE
    assert results[1].type.tensor_type.elem_type == onnx.TensorProto.BOOL


def test_uint8_inputs():
    x = RNG.integers(0, 256, (2, *SIZE), np.uint8)
    model = export(lambda x: x.astype(jnp.float32) / 255, dtype=np.uint8)
    np.testing.assert_allclose(run(model, x)[0], x / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.sort(x), "the primitive 'sort' is not supported"),
        (lambda x: jnp.cumsum(x, 1), "the primitive 'cumsum' is not supported"),
        (lambda x: x / x.shape[0], "the primitive 'dim_as_value' is not supported"),
        (lambda x: lax.fori_loop(0, 3, lambda _, y: y + x, x), "the primitive 'scan' is not"),
        (lambda x: to_integers(x) & 3, "the primitive 'and' of integers is not"),
        (
            lambda x: jnp.take_along_axis(x, to_integers(x), 1, mode="fill"),
            "the primitive 'gather' with a fill value is not",
        ),
        (lambda x: x[:, ::2, :1], "the primitive 'gather' of partial slices"),
        (lambda x: x + lax.broadcasted_iota(jnp.float32, x.shape, 0), "'iota' along the batch"),
        (
            lambda x: conv(x, x.sum(0)[:3, :3, :, None]),
            "'conv_general_dilated' with computed weights",
        ),
        (
            lambda x: lax.pad(x, 0.0, [(0, 0, 0), (1, 1, 1), (0, 0, 0), (0, 0, 0)]),
            "'pad' with negative, interior or computed padding",
        ),
    ],
)
def test_unsupported_primitives_are_named_in_the_error(function, message):
    with pytest.raises(UserError, match=r"^to ONNX: ") as info:
        export(function)
    assert message in str(info.value)
    assert "\n" not in str(info.value)
