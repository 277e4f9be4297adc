"""Checkpoints of RTMPose in MMPose's format with our own weights: conversion and refused files.

test_rtmpose_twins.py compares with networks in torch.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_files import random_variables, save_state, torch_state, zeros

from rmpe_jax import cli, models
from rmpe_jax.errors import UserError
from rmpe_jax.interop import load_mmpose, rtmpose
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.models.rtmpose import RTMPose

SIZE = (64, 96)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The name of the smallest RTMPose builds a narrow one."""
    narrow = functools.partial(RTMPose, deepen=0.1, widen=0.125)
    monkeypatch.setitem(models._MODELS, "rtmpose_t", narrow)
    monkeypatch.setattr(rtmpose, "_NETWORKS", {8: "rtmpose_t"})
    return narrow


def state_of(variables):
    state = torch_state(variables)
    state["head.gau.res_scale.scale"] = state.pop("head.gau.res_scale")
    return state


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        load_mmpose(path, **options)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line


def test_names_are_those_of_mmpose(tiny):
    names = set(state_of(zeros(tiny(17))))
    assert {
        "backbone.stem.0.conv.weight",
        "backbone.stem.2.bn.running_var",
        "backbone.stage1.0.conv.weight",
        "backbone.stage1.1.main_conv.conv.weight",
        "backbone.stage1.1.short_conv.bn.bias",
        "backbone.stage2.1.final_conv.conv.weight",
        "backbone.stage3.1.attention.fc.bias",
        "backbone.stage3.1.blocks.0.conv1.conv.weight",
        "backbone.stage3.1.blocks.0.conv2.depthwise_conv.conv.weight",
        "backbone.stage3.1.blocks.0.conv2.pointwise_conv.bn.weight",
        "backbone.stage4.1.conv2.conv.weight",
        "backbone.stage4.2.blocks.0.conv1.conv.weight",
        "head.final_layer.weight",
        "head.final_layer.bias",
        "head.mlp.0.g",
        "head.mlp.1.weight",
        "head.gau.ln.g",
        "head.gau.uv.weight",
        "head.gau.gamma",
        "head.gau.beta",
        "head.gau.o.weight",
        "head.gau.res_scale.scale",
        "head.cls_x.weight",
        "head.cls_y.weight",
    } <= names


@pytest.mark.parametrize(
    ("joints", "skeleton"), [(17, "coco"), (26, "halpe26"), (21, "unnamed_21")]
)
def test_a_file_converts_back_to_its_network(tiny, tmp_path, joints, skeleton):
    variables = random_variables(tiny(joints), size=SIZE)
    beside = {
        "ema_backbone_stem_0_conv_weight": np.zeros(3, np.float32),
        "data_preprocessor.mean": np.zeros((3, 1, 1), np.float32),
    }
    save_state(tmp_path / "net.pth", state_of(variables) | beside)
    found = load_mmpose(tmp_path / "net.pth")
    assert (found.spec.network, found.spec.input_size) == ("rtmpose_t", SIZE)
    assert found.spec.skeleton.name == skeleton
    assert (found.spec.padding, found.spec.crop.udp) == (1.25, False)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
    assert load_mmpose(tmp_path / "net.pth", input_size=SIZE).spec == found.spec


def test_the_command_writes_a_model_file(tiny, tmp_path, capsys):
    save_state(tmp_path / "net.pth", state_of(random_variables(tiny(17), size=SIZE)))
    out = tmp_path / "net.safetensors"
    assert cli.main(["convert", "mmpose", str(tmp_path / "net.pth"), "--out", str(out)]) == 0
    assert "64x96 pixels, joints of coco, decoded by SimCC" in capsys.readouterr().out
    module, codec = (model := load_pose_model(out)).build()
    assert not model.spec.has_heatmaps
    assert codec.input_size == SIZE
    maps = jax.eval_shape(module.apply, model.variables, jnp.zeros((1, *SIZE, 3)))
    assert (maps.x.shape, maps.y.shape) == ((1, 17, 192), (1, 17, 128))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.stem.2.conv.weight": (9, 4, 3, 3)}, "9 channels in its stem, none of t, s"),
        ({"head.mlp.1.weight": None}, "lacks head.mlp.1.weight"),
        ({"head.cls_x.weight": (128, 256)}, "whose size differs"),
        ({"head.cls_x.weight": None}, "lacks head.cls_x.weight"),
        ({"head.cls_x.weight": ()}, "whose size differs"),
        ({"head.cls_x.weight": (200, 256)}, "rtmpose: input of 64x100 pixels"),
        ({"head.gau.w": (33,)}, "has head.gau.w, unknown"),
        ({"head.gau.uv.weight": None}, "SimCC .* and is no RTMPose"),
        ({"head.final_layer.weight": (5000, 128, 7, 7)}, "too many for joints"),
    ],
)
def test_files_that_do_not_fit_give_a_one_line_error(tiny, tmp_path, changes, message):
    state = state_of(zeros(tiny(17), size=SIZE))
    for name, shape in changes.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = np.broadcast_to(np.float32(0), shape)
    save_state(tmp_path / "net.pth", state)
    assert re.search(message, refusal(tmp_path / "net.pth"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (256, 192)}, "is an RTMPose for crops of 64x96, which its last layers fix"),
        ({"codec": "udp"}, "is an RTMPose, whose codec is SimCC: leave the codec out"),
        ({"skeleton": "coco"}, "is an RTMPose for 26 joints, .* none can be left out"),
        ({"skeleton": "mpii"}, "has 26 joints, and the joints of mpii are not the first"),
    ],
)
def test_arguments_that_do_not_fit(tiny, tmp_path, options, message):
    save_state(tmp_path / "net.pth", state_of(zeros(tiny(26), size=SIZE)))
    assert re.search(message, refusal(tmp_path / "net.pth", **options))
