"""Weights of MoveNet from the files of TensorFlow.js."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from movenet_graph import (
    HEAD,
    LATERALS,
    SIZES,
    SMOOTHED,
    STRIDES,
    TRUNK,
    graph_tensors,
    write,
)

from rmpe_jax.config import ModelConfig, SstnConfig
from rmpe_jax.errors import UserError
from rmpe_jax.interop.movenet import movenet_variables, read_graph_model
from rmpe_jax.models import build_sppe
from rmpe_jax.skeletons import COCO, POSETRACK
from rmpe_jax.training.pretrained import load_backbone, require_weights


def heatmaps(tensors, size, x):
    """The graph of TensorFlow.js by XLA's convolutions, with the weights as they are."""

    def conv(x, kernel, bias=None, *, stride=1):
        kernel = np.asarray(tensors[kernel], np.float32)
        grouped = kernel.shape[3] == 1
        y = jax.lax.conv_general_dilated(
            x,
            kernel.transpose(0, 1, 3, 2) if grouped else kernel,
            (stride, stride),
            "SAME",  # as in TensorFlow
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1] if grouped else 1,
        )
        return y if bias is None else y + np.asarray(tensors[bias], np.float32)

    def folded(x, name, *, stride=1, kind="Conv2D"):
        name = f"{TRUNK}model/{name}/{kind}"
        return conv(x, f"{name}_weights", f"{name}_bn_offset", stride=stride)

    def relu6(x):
        return jnp.clip(x, 0, 6)

    def lateral(x, name):
        return conv(
            x, f"{TRUNK}{name}/Conv2D/ReadVariableOp", f"{TRUNK}{name}/BiasAdd/ReadVariableOp"
        )

    def smooth(x, name):
        x = conv(x, f"{TRUNK}{name}/separable_conv2d/ReadVariableOp")
        name = f"{TRUNK}{name}/separable_conv2d"
        return jax.nn.relu(conv(x, f"{name}_weights", f"{name}_bn_offset"))

    def upsample(x):
        """Bilinear, half-pixel centers, edges repeated: 3/4 of the nearest and 1/4 of the next."""
        for axis in (1, 2):
            edges = [(0, 0)] * 4
            edges[axis] = (1, 1)
            wide = jnp.pad(x, edges, mode="edge")
            before, after = (
                jax.lax.slice_in_dim(wide, i, i + x.shape[axis], axis=axis) for i in (0, 2)
            )
            pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
            shape = list(x.shape)
            shape[axis] *= 2
            x = pairs.reshape(shape)
        return x

    x, features = relu6(folded(x, "Conv1", stride=2)), {}
    for block in range(17):
        name = f"block_{block}" if block else "expanded_conv"
        y = relu6(folded(x, f"{name}_expand")) if block else x
        stride = STRIDES.get(block, 1)
        y = relu6(folded(y, f"{name}_depthwise", stride=stride, kind="depthwise"))
        y = folded(y, f"{name}_project")
        features[block] = x = x + y if x.shape == y.shape else y
    x = lateral(relu6(folded(x, "Conv_1")), "conv2d")
    for (name, block, _), (smoothed, *_) in zip(LATERALS[1:], SMOOTHED, strict=True):
        x = smooth(upsample(x) + lateral(features[block], name), smoothed)
    number = SIZES[size][2]
    separable, last = f"{HEAD}separable_conv2d_{number}", f"{HEAD}conv2d_{number + 1}"
    x = conv(x, f"{separable}/separable_conv2d/ReadVariableOp")
    names = ("separable_conv2d/ReadVariableOp_1", "BiasAdd/ReadVariableOp")
    x = jax.nn.relu(conv(x, *(f"{separable}/{name}" for name in names)))
    return conv(x, f"{last}/Conv2D/ReadVariableOp", f"{last}/BiasAdd/ReadVariableOp")


@pytest.mark.parametrize("size", SIZES)
def test_heatmaps_are_those_of_the_graph(size, tmp_path):
    tensors = graph_tensors(size)
    variables = movenet_variables(read_graph_model(write(tmp_path, tensors)))
    x = np.random.default_rng(1).uniform(-1, 1, (2, 64, 96, 3)).astype(np.float32)
    ours = jax.jit(build_sppe(f"movenet_{size}", 17).apply)(variables, x)
    expected = jax.jit(lambda x: heatmaps(tensors, size, x))(x)
    assert ours.shape == (2, 16, 24, 17)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    ("joints", "read"), [(COCO.joints, True), (POSETRACK.joints, False), ((), False)]
)
def test_training_starts_from_all_layers_but_for_a_last_one_of_other_joints(tmp_path, joints, read):
    """PoseTrack's are 17 too; a detector has none."""
    tensors = graph_tensors()
    path = str(write(tmp_path, tensors))
    module = build_sppe("movenet_lightning", len(joints) or 5)
    x = jnp.zeros((1, 32, 32, 3))
    variables = jax.tree.map(np.array, jax.jit(module.init)(jax.random.key(0), x))
    before = variables["params"]["conv_out"]
    parts = variables["params"], variables["batch_stats"]
    load_backbone(path, "movenet_lightning", (32, 32), *parts, joints)
    expected = movenet_variables(tensors)
    if not read:
        expected["params"]["conv_out"] = before
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_inputs_of_another_range_are_refused(tmp_path):
    model = ModelConfig(name="movenet_lightning", backbone_weights=str(write(tmp_path, {})))
    with pytest.raises(UserError, match=r"set model\.mean and model\.std to \(0\.5, 0\.5, 0\.5\)"):
        require_weights(model, SstnConfig())
    half = (0.5, 0.5, 0.5)
    require_weights(dataclasses.replace(model, mean=half, std=half), SstnConfig())


def test_the_file_of_weights_alone_is_refused(tmp_path):
    write(tmp_path, {"a": np.zeros(100, np.float32)})
    with pytest.raises(UserError, match=r"one\.bin: these are weights alone; name the \.json"):
        read_graph_model(tmp_path / "one.bin")


@pytest.mark.parametrize("shape", [(), (3, 3, 3), (3, 3, 0, 4)])
def test_a_kernel_of_another_shape_is_refused(shape):
    tensors = graph_tensors()
    tensors[f"{TRUNK}model/Conv1/Conv2D_weights"] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=r"Conv1/Conv2D_weights has the shape \("):
        movenet_variables(tensors)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [("lightning", 2_320_849), ("multipose", 4_728_593), ("thunder", 6_240_753)],
)
def test_numbers_of_parameters(network, parameters):
    """Those of the published files, without the heads other than the heatmaps."""
    module = build_sppe(f"movenet_{network}", 17)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == parameters


def test_weights_of_another_width_are_refused(tmp_path):
    path = write(tmp_path, graph_tensors())
    module = build_sppe("movenet_thunder", 17)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    with pytest.raises(UserError, match="for movenet_thunder: the weights of another"):
        load_backbone(
            str(path), "movenet_thunder", (64, 64), shapes["params"], shapes["batch_stats"]
        )


def test_all_channels_have_kernels_of_one_size():
    variables = movenet_variables(graph_tensors())
    kernel = variables["params"]["backbone"]["block1_expand"]["kernel"]
    np.testing.assert_allclose((kernel**2).mean((0, 1, 2)), 2 / 16, rtol=1e-5)
    scale = variables["params"]["backbone"]["block1_expand_bn"]["scale"]
    assert scale.max() / scale.min() > 10


def test_a_channel_of_zeros_stays_zero():
    tensors = graph_tensors()
    tensors[f"{TRUNK}model/Conv1/Conv2D_weights"][..., 5] = 0
    params = movenet_variables(tensors)["params"]
    assert not params["backbone"]["stem"]["kernel"][..., 5].any()
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
    with pytest.raises(UserError, match="'a' is stored as 'uint8'"):
        read_graph_model(path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = write(tmp_path, {"a": np.full(60, np.nan, np.float32)})
    with pytest.raises(UserError, match="'a' has values that are not finite"):
        read_graph_model(path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weightsManifest": [{}]}', "null"])
def test_another_json_file_is_refused(tmp_path, content):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match="graph model"):
        read_graph_model(tmp_path / "model.json")


def test_a_cut_file_of_weights_is_refused(tmp_path):
    path = write(tmp_path, {"a": np.zeros(100, np.float32)})
    (tmp_path / "two.bin").write_bytes(b"12")
    with pytest.raises(UserError, match=r"model\.json: not a complete graph model"):
        read_graph_model(path)


def test_a_missing_file_of_weights_is_named(tmp_path):
    path = write(tmp_path, {"a": np.zeros(100, np.float32)})
    (tmp_path / "two.bin").unlink()
    with pytest.raises(UserError, match=r"two\.bin': No such file"):
        read_graph_model(path)


def test_a_graph_model_of_another_network_is_refused():
    with pytest.raises(UserError, match="there is no model/Conv1/Conv2D_weights; use the files of"):
        movenet_variables({"a/Conv2D_weights": np.zeros((1, 1, 3, 4), np.float32)})


@pytest.mark.parametrize(
    "name",
    [
        "model/block_3_expand/Conv2D_bn_offset",
        "conv2d_2/BiasAdd/ReadVariableOp",
        "separable_conv2d_1/separable_conv2d/ReadVariableOp",
    ],
)
def test_a_missing_tensor_is_named(name):
    tensors = graph_tensors()
    del tensors[TRUNK + name]
    with pytest.raises(UserError, match=f"there is no {name}"):
        movenet_variables(tensors)
