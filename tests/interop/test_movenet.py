"""MoveNet's backbone from the files of TensorFlow.js."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.interop.movenet import movenet_variables, read_graph_model
from rmpe_jax.models.inverted_residual import MobileNetV2

PREFIX = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/model/"
# Stride and channels of the blocks, written down a second time.
STRIDES = {1: 2, 3: 2, 6: 2, 13: 2}
CHANNELS = [16] + 2 * [24] + 3 * [32] + 4 * [64] + 3 * [96] + 3 * [160] + [320]


def graph_tensors(rng):
    """Random folded convolutions by MoveNet's names, float16, and tensors that are not used."""
    tensors = {"StatefulPartitionedCall/Reshape_2/shape": np.array([1, 48, 34], np.int32)}

    def add(name, kind, shape, outputs):
        size = 2.0 ** rng.integers(-3, 3, outputs)  # channels of very different sizes
        size = size[:, None] if kind == "depthwise" else size
        kernel = rng.normal(size=shape) * size * np.sqrt(2 / np.prod(shape[:3]))
        tensors[f"{PREFIX}{name}/{kind}_weights"] = kernel.astype(np.float16)
        tensors[f"{PREFIX}{name}/{kind}_bn_offset"] = rng.normal(size=outputs).astype(np.float16)

    add("Conv1", "Conv2D", (3, 3, 3, 32), 32)
    inputs = 32
    for block, outputs in enumerate(CHANNELS):
        name = f"block_{block}" if block else "expanded_conv"
        wide = 6 * inputs if block else inputs
        if block:
            add(f"{name}_expand", "Conv2D", (1, 1, inputs, wide), wide)
        add(f"{name}_depthwise", "depthwise", (3, 3, wide, 1), wide)
        add(f"{name}_project", "Conv2D", (1, 1, wide, outputs), outputs)
        inputs = outputs
    add("Conv_1", "Conv2D", (1, 1, 320, 1280), 1280)
    return tensors


def write(folder, tensors, **changes):
    """A graph model of two files of weights."""
    weights = []
    for name, array in tensors.items():
        entry = {"name": name, "shape": list(array.shape), "dtype": "float32"}
        if array.dtype == np.float16:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
        else:
            entry["dtype"] = str(array.dtype)
        weights.append(entry | changes)
    data = b"".join(array.tobytes() for array in tensors.values())
    (folder / "one.bin").write_bytes(data[:100])
    (folder / "two.bin").write_bytes(data[100:])
    manifest = [{"paths": ["one.bin", "two.bin"], "weights": weights}]
    (folder / "model.json").write_text(json.dumps({"weightsManifest": manifest}))
    return folder / "model.json"


def folded_features(tensors, x):
    """The features by XLA's convolutions, with the folded kernels as they are."""

    def conv(x, name, *, stride=1, grouped=False, relu6=True):
        kind = "depthwise" if grouped else "Conv2D"
        kernel = np.asarray(tensors[f"{PREFIX}{name}/{kind}_weights"], np.float32)
        if grouped:
            kernel = kernel.transpose(0, 1, 3, 2)
        pad = kernel.shape[0] // 2
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1] if grouped else 1,
        )
        y += np.asarray(tensors[f"{PREFIX}{name}/{kind}_bn_offset"], np.float32)
        return jnp.clip(y, 0, 6) if relu6 else y

    x, features = conv(x, "Conv1", stride=2), []
    for block in range(len(CHANNELS)):
        name = f"block_{block}" if block else "expanded_conv"
        y = conv(x, f"{name}_expand") if block else x
        y = conv(y, f"{name}_depthwise", stride=STRIDES.get(block, 1), grouped=True)
        y = conv(y, f"{name}_project", relu6=False)
        x = x + y if x.shape == y.shape else y
        if block in (2, 5, 12, 16):
            features.append(x)
    return features


def test_features_are_those_of_the_folded_convolutions(tmp_path):
    rng = np.random.default_rng(0)
    tensors = graph_tensors(rng)
    variables = movenet_variables(read_graph_model(write(tmp_path, tensors)))
    x = rng.uniform(-1, 1, (2, 64, 96, 3)).astype(np.float32)
    ours = jax.jit(MobileNetV2().apply)(variables, x)
    expected = jax.jit(lambda x: folded_features(tensors, x))(x)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(np.abs(b).max()))


def test_all_channels_have_kernels_of_one_size():
    variables = movenet_variables(graph_tensors(np.random.default_rng(0)))
    kernel = variables["params"]["block1_expand"]["kernel"]
    np.testing.assert_allclose((kernel**2).mean((0, 1, 2)), 2 / 16, rtol=1e-5)
    scale = variables["params"]["block1_expand_bn"]["scale"]
    assert scale.max() / scale.min() > 10


def test_a_channel_of_zeros_stays_zero():
    tensors = graph_tensors(np.random.default_rng(0))
    tensors[PREFIX + "Conv1/Conv2D_weights"][..., 5] = 0
    params = movenet_variables(tensors)["params"]
    assert not params["stem"]["kernel"][..., 5].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_tensors_are_read_as_they_were_written(tmp_path):
    tensors = {
        "a": np.arange(200, dtype=np.int32),
        "b": np.float32([[1.5, -2]]),
        "c": np.float16([0.1]),
    }
    read = read_graph_model(write(tmp_path, tensors))
    jax.tree.map(np.testing.assert_array_equal, read, tensors)
    assert [read[name].dtype for name in "abc"] == [np.int32, np.float32, np.float16]


def test_weights_of_eight_bits_are_refused(tmp_path):
    quantized = {"dtype": "uint8", "scale": 0.1, "min": 0}
    path = write(tmp_path, {"a": np.zeros(50, np.float16)}, quantization=quantized)
    with pytest.raises(UserError, match="a is stored as uint8"):
        read_graph_model(path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = write(tmp_path, {"a": np.full(60, np.nan, np.float32)})
    with pytest.raises(UserError, match="a has values that are not finite"):
        read_graph_model(path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weightsManifest": [{}]}', "null"])
def test_another_json_file_is_refused(tmp_path, content):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match="not a complete graph model"):
        read_graph_model(tmp_path / "model.json")


def test_a_cut_file_of_weights_is_refused(tmp_path):
    path = write(tmp_path, {"a": np.zeros(100, np.float32)})
    (tmp_path / "two.bin").write_bytes(b"12")
    with pytest.raises(UserError, match=r"model\.json: not a complete graph model"):
        read_graph_model(path)


def test_a_missing_file_of_weights_is_named(tmp_path):
    path = write(tmp_path, {"a": np.zeros(100, np.float32)})
    (tmp_path / "two.bin").unlink()
    with pytest.raises(UserError, match=r"two\.bin: No such file"):
        read_graph_model(path)


def test_a_graph_model_of_another_network_is_refused():
    with pytest.raises(UserError, match="no backbone of a MoveNet"):
        movenet_variables({"a/Conv2D_weights": np.zeros((1, 1, 3, 4), np.float32)})


def test_a_convolution_without_its_bias_is_named():
    tensors = graph_tensors(np.random.default_rng(0))
    del tensors[PREFIX + "block_3_expand/Conv2D_bn_offset"]
    with pytest.raises(UserError, match="block_3_expand/Conv2D_weights has no bias"):
        movenet_variables(tensors)
