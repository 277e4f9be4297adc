"""Checkpoints in AlphaPose's format with our own weights: conversion and refused files.

test_alphapose_twins.py compares with networks in torch, tests/experiments/test_convert.py converts
files to files.
"""

import functools
import re

import jax
import numpy as np
import pytest
from torch_files import random_variables, save_state, torch_state, zeros

from rmpe_jax.config import spec_to_dict
from rmpe_jax.errors import UserError
from rmpe_jax.interop.alphapose import _detect_network, load_alphapose
from rmpe_jax.models import build_sppe, resnet


@pytest.fixture
def tiny_depth(monkeypatch):
    """A ResNet-50 with five blocks, at its original widths."""
    monkeypatch.setitem(resnet.NUM_BLOCKS, 50, (2, 1, 1, 1))


@pytest.mark.parametrize(
    "name", ["fastpose_res50", "fastpose_duc_res50_shuffle", "simplepose_res50"]
)
def test_a_file_converts_back_to_its_network(tiny_depth, tmp_path, name):
    module = build_sppe(name, 17)
    variables = random_variables(module)
    save_state(tmp_path / "net.pth", torch_state(variables))
    checkpoint = load_alphapose(tmp_path / "net.pth")
    assert checkpoint.spec.network == name
    assert build_sppe(checkpoint.spec.network, 17) == module
    jax.tree.map(np.testing.assert_array_equal, checkpoint.variables, dict(variables))


@pytest.mark.parametrize(
    "name",
    [
        "fastpose_res101",
        "fastpose_res152_plain_wide",
        "fastpose_duc_res50_plain",
        pytest.param("fastpose_duc_res152_se", marks=pytest.mark.slow),
        "fastpose_duc_res50_shuffle",
        "simplepose_res101",
        pytest.param("hrnet_w32", marks=pytest.mark.slow),
    ],
)
def test_architectures_are_detected_by_their_keys(name):
    found, head = _detect_network(torch_state(zeros(build_sppe(name, 5))))
    assert found == name
    assert head == ("conv_out" if name.startswith("fastpose") else "final_layer")


def test_the_width_of_an_hrnet():
    branch = {"stage4.0.branches.0.0.conv1.weight": of_shape(48, 48, 3, 3)}
    head = {"final_layer.weight": of_shape(17, 48, 1, 1), "final_layer.bias": of_shape(17)}
    assert _detect_network(branch | head) == ("hrnet_w48", "final_layer")


@functools.cache
def zero_state(joints):
    return torch_state(zeros(build_sppe("fastpose_res50", joints)))


def small_state(joints=17, **changes):
    """The state dict of a FastPose of `tiny_depth`: all zeros, which take no memory."""
    state = zero_state(joints) | changes
    return {key: value for key, value in state.items() if value is not None}


def of_shape(*shape, dtype=np.float32):
    return np.broadcast_to(dtype(0), shape)


def load(tmp_path, state, **options):
    save_state(tmp_path / "net.pth", state)
    return load_alphapose(tmp_path / "net.pth", **options)


def refusal(tmp_path, state, **options):
    with pytest.raises(UserError) as caught:
        load(tmp_path, state, **options)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / 'net.pth'}: ")
    return line


def test_config_is_alphaposes(tiny_depth, tmp_path):
    content = spec_to_dict(load(tmp_path, small_state()).spec)
    assert content["model"]["mean"] == (0.406, 0.457, 0.480)
    assert content["model"]["std"] == (1.0, 1.0, 1.0)
    assert content["model"]["skeleton"] == "coco"
    assert content["model"]["input_size"] == (256, 192)
    assert content["codec"] == {
        "loss": "mse",
        "sigma": 2.0,
        "integer_center": True,
        "decode": "quarter",
        "alignment": "first_pixel",
        "blur_sigma": 0.0,
    }
    assert content["data"]["padding"] == 1.25


@pytest.mark.parametrize(
    ("joints", "requested", "skeleton", "kept"),
    [
        (26, "", "halpe26", 26),
        (26, "coco", "coco", 17),
        (33, "", "coco", 17),
        (16, "", "mpii", 16),
        (14, "", "unnamed_14", 14),
        (14, "crowdpose", "crowdpose", 14),
        (21, "unnamed_21", "unnamed_21", 21),
    ],
)
def test_any_number_of_joints(tiny_depth, tmp_path, joints, requested, skeleton, kept):
    numbers = np.arange(joints, dtype=np.float32)[:, None, None, None]
    weight = np.broadcast_to(numbers, (joints, 128, 3, 3))
    state = small_state(joints, **{"conv_out.weight": weight})
    spec, variables = load(tmp_path, state, skeleton=requested, input_size=(320, 256))
    assert spec.skeleton.name == skeleton
    assert spec.input_size == (320, 256)
    assert spec.skeleton.num_keypoints == kept
    kernel = variables["params"]["conv_out"]["kernel"]
    assert kernel.shape == (3, 3, 128, kept)
    np.testing.assert_array_equal(kernel[1, 1, 5], np.arange(kept))


@pytest.mark.parametrize("joints", [133, 136])
def test_whole_bodies_are_read_by_the_integral(tiny_depth, tmp_path, joints):
    spec = load(tmp_path, small_state(joints)).spec
    assert spec.loss == "symmetric_integral"
    assert spec.decode == "integral"
    spec = load(tmp_path, small_state(joints), loss="mse").spec
    assert (spec.loss, spec.decode) == ("mse", "quarter")


def test_the_prefix_of_data_parallel_and_half_precision(tiny_depth, tmp_path):
    state = {
        f"module.{key}": of_shape(*value.shape, dtype=np.float16)
        for key, value in small_state().items()
    }
    variables = load(tmp_path, state).variables
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"duc1.bn.weight": None}, "lacks duc1.bn.weight"),
        (
            {f"preact.layer2.0.bn{i}.weight": None for i in (1, 2, 3)} | {"duc2.bn.bias": None},
            "and 1 more",
        ),
        ({"smpl.joints": of_shape(3)}, "has smpl.joints, unknown to this network"),
        ({"conv_out.bias": None}, "lacks conv_out.bias"),
        ({"conv_out.bias": of_shape(18)}, r"whose size differs .*conv_out.weight \(17x128x3x3\)"),
        ({"duc1.conv.weight": of_shape(1024, 512, 1, 1)}, r"duc1.conv.weight \(1024x512x1x1\)"),
        ({"conv_out.bias": np.full(17, np.nan, np.float32)}, "not finite in conv_out.bias"),
        (
            {"preact.layer2.0.conv2_offset.weight": of_shape(18, 128, 3, 3)},
            r"deformable convolutions \(preact.layer2.0.conv2_offset.weight\)",
        ),
        ({"preact.layer4.1.bn1.bias": of_shape(512)}, "ResNet with 2, 1, 1, 2 blocks per stage"),
        ({"preact.layer1.0.conv3.weight": None}, "only the depths 50, 101 and 152"),
        ({"conv_out.bias": of_shape(2**40)}, "too many for joints"),
        ({"conv_out.weight": of_shape(17, 2**40, 3, 3)}, "whose size differs"),
    ],
)
def test_files_that_do_not_fit_give_a_one_line_error(tiny_depth, tmp_path, changes, message):
    assert re.search(message, refusal(tmp_path, small_state(**changes)))


def test_other_networks_and_skeletons(tiny_depth, tmp_path):
    line = refusal(tmp_path, {"backbone.stem.weight": of_shape(3), "head.bias": of_shape(2)})
    assert "is not a supported network (FastPose, FastPose-DUC, SimplePose or HRNet" in line
    assert "backbone.stem.weight, head.bias" in line
    stage4 = {"stage4.0.branches.0.0.conv1.weight": of_shape(18, 18, 3, 3)}
    assert "is hrnet_w18, which is not supported; use one of" in refusal(tmp_path, stage4)
    assert "the joints of mpii are not the first" in refusal(
        tmp_path, small_state(), skeleton="mpii"
    )
    assert "no skeleton is called 'cocoo'" in refusal(tmp_path, small_state(), skeleton="cocoo")
