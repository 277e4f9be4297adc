"""A graph model of MoveNet with random weights, as TensorFlow.js writes it."""

import json

import numpy as np

CALL = "StatefulPartitionedCall/"
TRUNK = f"{CALL}center_net_mobile_net_v2fpn_feature_extractor/model_1/"
HEAD = f"{CALL}kpt_heatmap_0/"
# Strides of the blocks. By size: channels of the stem and of the blocks, and the number of the
# heatmaps' layers in their names. Read off the published files.
STRIDES = {1: 2, 3: 2, 6: 2, 13: 2}
SIZES = {
    "lightning": (32, [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320], 4),
    "multipose": (48, [24, *[40] * 2, *[48] * 3, *[96] * 4, *[144] * 3, *[240] * 3, 480], 6),
    "thunder": (56, [32, *[40] * 2, *[56] * 3, *[112] * 4, *[168] * 3, *[280] * 3, 560], 4),
}


def graph_tensors(size="lightning", seed=0):
    """Random weights by MoveNet's names, float16, and tensors that are not used."""
    stem, channels, number = SIZES[size]
    rng = np.random.default_rng(seed)
    tensors = {f"{CALL}Reshape_2/shape": np.array([1, 48, 34], np.int32)}

    def kernel(name, *shape):
        size = 2.0 ** rng.integers(-4, 1, shape[3])  # channels of very different sizes
        scale = size * np.sqrt(2 / np.prod(shape[:3]))
        if shape[3] == 1:  # depthwise
            scale = 2.0 ** rng.integers(-4, 1, (shape[2], 1)) / 3
        tensors[name] = (rng.normal(size=shape) * scale).astype(np.float16)

    def bias(name, outputs):
        tensors[name] = rng.normal(size=outputs).astype(np.float16)

    def folded(name, *shape):
        kernel(f"{TRUNK}model/{name}/Conv2D_weights", *shape)
        bias(f"{TRUNK}model/{name}/Conv2D_bn_offset", shape[3])

    folded("Conv1", 3, 3, 3, stem)
    inputs = stem
    for block, outputs in enumerate(channels):
        name = f"block_{block}" if block else "expanded_conv"
        wide = 6 * inputs if block else inputs
        if block:
            folded(f"{name}_expand", 1, 1, inputs, wide)
        kernel(f"{TRUNK}model/{name}_depthwise/depthwise_weights", 3, 3, wide, 1)
        bias(f"{TRUNK}model/{name}_depthwise/depthwise_bn_offset", wide)
        folded(f"{name}_project", 1, 1, wide, outputs)
        inputs = outputs
    folded("Conv_1", 1, 1, channels[-1], 1280)
    for name, block, outputs in LATERALS:
        inputs = 1280 if block is None else channels[block]
        kernel(f"{TRUNK}{name}/Conv2D/ReadVariableOp", 1, 1, inputs, outputs)
        bias(f"{TRUNK}{name}/BiasAdd/ReadVariableOp", outputs)
    for name, inputs, outputs in SMOOTHED:
        kernel(f"{TRUNK}{name}/separable_conv2d/ReadVariableOp", 3, 3, inputs, 1)
        kernel(f"{TRUNK}{name}/separable_conv2d_weights", 1, 1, inputs, outputs)
        bias(f"{TRUNK}{name}/separable_conv2d_bn_offset", outputs)
    separable, last = f"{HEAD}separable_conv2d_{number}", f"{HEAD}conv2d_{number + 1}"
    kernel(f"{separable}/separable_conv2d/ReadVariableOp", 3, 3, 24, 1)
    kernel(f"{separable}/separable_conv2d/ReadVariableOp_1", 1, 1, 24, 96)
    bias(f"{separable}/BiasAdd/ReadVariableOp", 96)
    kernel(f"{last}/Conv2D/ReadVariableOp", 1, 1, 96, 17)
    bias(f"{last}/BiasAdd/ReadVariableOp", 17)
    kernel(f"{CALL}kpt_regress_0/conv2d_{number + 2}/Conv2D/ReadVariableOp", 1, 1, 96, 34)
    return tensors


# Name, the block whose output it takes (None: the top), and channels.
LATERALS = (
    ("conv2d", None, 64), ("conv2d_1", 9, 64), ("conv2d_2", 5, 32), ("conv2d_3", 2, 24)
)  # fmt: skip
SMOOTHED = (
    ("separable_conv2d", 64, 32), ("separable_conv2d_1", 32, 24), ("separable_conv2d_2", 24, 24)
)  # fmt: skip


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
