"""Checkpoints in MMPose's format with our own weights: conversion and refused files.

test_mmpose_twins.py compares with networks in torch.
"""

import functools
import pickle
import re
import sys
import types

import jax
import numpy as np
import pytest
from torch_files import named, random_variables, save_state, torch_state, zeros

from rmpe_jax import models
from rmpe_jax.config import spec_to_dict
from rmpe_jax.errors import UserError
from rmpe_jax.interop import alphapose, load_mmpose, vitpose
from rmpe_jax.models import build_sppe, hrnet, resnet
from rmpe_jax.models.vitpose import ViTPose


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A ResNet-50 with five blocks, and a narrow HRNet with one module per stage."""
    monkeypatch.setitem(resnet.NUM_BLOCKS, 50, (2, 1, 1, 1))
    narrow = functools.partial(hrnet.HRNet, width=4)
    monkeypatch.setitem(models._MODELS, "hrnet_w4", narrow)
    monkeypatch.setattr(alphapose, "SPPE_NAMES", (*models.SPPE_NAMES, "hrnet_w4"))
    monkeypatch.setattr(hrnet, "_STAGES", ((2, 1), (3, 1), (4, 1)))
    monkeypatch.setattr(hrnet, "_BLOCKS_PER_BRANCH", 1)


def mmpose_state(variables, version):
    """Tensors by MMPose's names: everything is of the backbone, except for the head."""
    head = {0: "keypoint_head.", 1: "head."}[version]
    return {
        head + name
        if name.startswith(("deconv_layers.", "final_layer."))
        else f"backbone.{name.removeprefix('preact.')}": tensor
        for name, tensor in torch_state(variables).items()
    }


@functools.cache
def variables_of(name):
    return random_variables(build_sppe(name, 17))


@functools.cache
def zero_state(joints, name="simplepose_res50", version=1):
    """Of zeros: what a file says besides its weights."""
    return mmpose_state(zeros(build_sppe(name, joints)), version)


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, dict(expected))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("name", ["simplepose_res50", "hrnet_w4"])
def test_a_file_converts_back_to_its_network(tmp_path, name, version):
    variables = variables_of(name)
    save_state(tmp_path / "net.pth", mmpose_state(variables, version), meta={"epoch": 210})
    checkpoint = load_mmpose(tmp_path / "net.pth")
    assert checkpoint.spec.network == name
    assert_equal(checkpoint.variables, variables)


def opcodes(value):
    """The instructions that push an object of any class, as torch.save writes them."""
    return pickle.dumps(value, protocol=2)[2:-1]


@pytest.fixture
def history(monkeypatch):
    """A log of mmengine with NumPy arrays, and with methods, which pickles get by `getattr`."""

    class HistoryBuffer:
        def mean(self):
            return self.values.mean()

    for thing, name in (
        (HistoryBuffer, "HistoryBuffer"),
        (HistoryBuffer.mean, "HistoryBuffer.mean"),
    ):
        thing.__module__, thing.__qualname__ = "mmengine.logging.history_buffer", name
    module = types.ModuleType(HistoryBuffer.__module__)
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, HistoryBuffer.__module__, module)
    log = HistoryBuffer()
    log.values, log.methods = np.arange(3.0), {"mean": HistoryBuffer.mean}
    return log


def test_what_mmengine_stores_beside_the_weights(tmp_path, history):
    """`state_dict` has the averaged weights, `ema_state_dict` those before averaging."""
    variables = variables_of("hrnet_w4")
    beside = {
        "meta": {"dataset_meta": {"sigmas": opcodes(np.ones(17))}, "seed": opcodes(np.int64(5))},
        "message_hub": {"log_scalars": {"train/loss": opcodes(history)}},
        "ema_state_dict": {"steps": 7},
    }
    save_state(tmp_path / "net.pth", mmpose_state(variables, 1), **beside)
    assert_equal(load_mmpose(tmp_path / "net.pth").variables, variables)


def test_only_what_is_known_is_left_out(tmp_path):
    state = mmpose_state(variables_of("hrnet_w4"), 1)
    save_state(tmp_path / "net.pth", state, meta={"hook": named("mmengine.hooks.EMAHook")})
    with pytest.raises(UserError, match=r"refused to load 'mmengine\.hooks\.EMAHook'"):
        load_mmpose(tmp_path / "net.pth")


def test_mmcv_averages_weights_under_the_ordinary_names(tmp_path):
    variables = variables_of("hrnet_w4")
    state = mmpose_state(variables, 0)
    before = {f"ema_{name.replace('.', '_')}": np.zeros_like(state[name]) for name in state}
    save_state(tmp_path / "net.pth", state | before)
    assert_equal(load_mmpose(tmp_path / "net.pth").variables, variables)


@pytest.mark.parametrize(
    ("codec", "size", "sigma", "alignment", "decode", "integer_center"),
    [
        ("", (256, 192), 2.0, "first_pixel", "quarter", True),
        ("msra", (384, 288), 3.0, "first_pixel", "quarter", True),
        ("dark", (256, 192), 2.0, "first_pixel", "dark", False),
        ("udp", (256, 192), 2.0, "udp", "dark_udp", False),
    ],
)
def test_config_is_mmposes(tmp_path, codec, size, sigma, alignment, decode, integer_center):
    save_state(tmp_path / "net.pth", zero_state(17))
    content = spec_to_dict(load_mmpose(tmp_path / "net.pth", input_size=size, codec=codec).spec)
    # MMPose subtracts (123.675, 116.28, 103.53) and divides by (58.395, 57.12, 57.375), RGB.
    model = content["model"]
    np.testing.assert_allclose(np.multiply(model["mean"], 255), (123.675, 116.28, 103.53))
    np.testing.assert_allclose(np.multiply(model["std"], 255), (58.395, 57.12, 57.375))
    assert (model["skeleton"], model["input_size"]) == ("coco", size)
    assert content["data"]["padding"] == 1.25
    assert content["codec"] == {
        "loss": "mse",
        "sigma": sigma,
        "integer_center": integer_center,
        "decode": decode,
        "alignment": alignment,
        "blur_sigma": 0.0,
    }


@pytest.mark.parametrize(
    ("joints", "requested", "skeleton"),
    [
        (16, "", "mpii"),
        (133, "", "coco_wholebody"),
        (133, "coco", "coco"),
        (14, "", "unnamed_14"),
        (14, "crowdpose", "crowdpose"),
        (33, "", "unnamed_33"),  # not COCO's and MPII's, as in AlphaPose's networks
        (51, "unnamed_51", "unnamed_51"),
    ],
)
def test_joints(tmp_path, joints, requested, skeleton):
    save_state(tmp_path / "net.pth", zero_state(joints))
    spec = load_mmpose(tmp_path / "net.pth", skeleton=requested).spec
    assert spec.skeleton.name == skeleton


def test_a_vitpose(monkeypatch, tmp_path):
    tiny = functools.partial(
        ViTPose, width=24, depth=2, num_heads=3, expert_width=0, simple_head=False
    )
    monkeypatch.setitem(models._MODELS, "vitpose_s", tiny)
    monkeypatch.setattr(vitpose, "VITPOSE_MODELS", {"vitpose_s": tiny})
    variables = random_variables(tiny(num_keypoints=17), size=(64, 48))
    save_state(tmp_path / "net.pth", torch_state(variables))
    found = load_mmpose(tmp_path / "net.pth", codec="udp")
    assert (found.spec.network, found.spec.input_size) == ("vitpose_s", (64, 48))
    assert (found.spec.alignment, found.spec.decode) == ("udp", "dark_udp")
    assert_equal(found.variables, variables)
    with pytest.raises(UserError, match=r"net\.pth: is a ViTPose, whose codec is udp"):
        load_mmpose(tmp_path / "net.pth", codec="msra")


def of_shape(*shape):
    return np.broadcast_to(np.float32(0), shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.conv1.weight": None}, "lacks conv1.weight"),
        ({"head.final_layer.bias": None}, "lacks final_layer.bias"),
        ({"head.conv_layers.0.weight": of_shape(3)}, "has conv_layers.0.weight, unknown"),
        ({"backbone.stage4.0.branches.0.0.conv1.weight": of_shape(18, 18, 3, 3)}, "is hrnet_w18"),
        ({"head.final_layer.weight": of_shape(17, 8, 1, 1)}, "whose size differs"),
        ({"head.cls_x.weight": of_shape(384, 256)}, r"SimCC \(head.cls_x.weight\)"),
        (
            {"backbone.stage4.0.branches.0.0.conv1.weight": None},
            r"not a supported network \(HRNet, SimpleBaseline, ViTPose or RTMPose of MMPose\)",
        ),
    ],
)
def test_files_that_do_not_fit_give_a_one_line_error(tmp_path, changes, message):
    state = zero_state(17, "hrnet_w4") | changes
    save_state(tmp_path / "net.pth", {k: v for k, v in state.items() if v is not None})
    assert re.search(message, refusal(tmp_path / "net.pth"))


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        load_mmpose(path, **options)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line


@pytest.mark.parametrize(("channels", "joints"), [(51, 17), (399, 133)])
def test_offsets_are_not_taken_for_joints(tmp_path, channels, joints):
    save_state(tmp_path / "net.pth", zero_state(channels, version=0))
    line = refusal(tmp_path / "net.pth", codec="udp")
    assert f"probably heatmaps and offsets of {joints} joints" in line


def test_a_codec_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="codec 'simcc': use one of msra, dark, udp"):
        load_mmpose(tmp_path / "net.pth", codec="simcc")
