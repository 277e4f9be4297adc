"""A checkpoint of another project becomes a model file that works like one of this project."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_files import random_variables, save_state, torch_state

from rmpe_jax import cli, models
from rmpe_jax.interop import vitpose
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.models import build_sppe, resnet
from rmpe_jax.models.vitpose import ViTPose
from rmpe_jax.pose_nms import PoseNmsParams


@pytest.fixture
def tiny_depth(monkeypatch):
    """A ResNet-50 of five blocks, at its own widths."""
    monkeypatch.setitem(resnet.NUM_BLOCKS, 50, (2, 1, 1, 1))


@pytest.fixture
def checkpoint(tiny_depth, tmp_path):
    """checkpoint(k): path of a random FastPose in AlphaPose's format, its network and variables."""

    def save(num_keypoints):
        network = build_sppe("fastpose_res50", num_keypoints)
        variables = random_variables(network)
        save_state(tmp_path / "net.pth", torch_state(variables))
        return str(tmp_path / "net.pth"), network, variables

    return save


def alphapose_decode(heatmaps):
    """The highest pixel, a quarter towards the higher neighbor, times the stride of 4.

    A map without a positive value gives (0, 0).
    """
    height, width, k = heatmaps.shape
    points = np.zeros((k, 2))
    for joint in np.flatnonzero(heatmaps.max((0, 1)) > 0):
        y, x = np.unravel_index(heatmaps[..., joint].argmax(), (height, width))
        points[joint] = x, y
        if 1 < x < width - 1 and 1 < y < height - 1:
            row, column = heatmaps[y, :, joint], heatmaps[:, x, joint]
            points[joint] += 0.25 * np.sign(
                [row[x + 1] - row[x - 1], column[y + 1] - column[y - 1]]
            )
    return 4 * points


def test_converted_network_decodes_images_as_alphapose_does(checkpoint, tmp_path, capsys):
    out = tmp_path / "net.safetensors"
    path, original, variables = checkpoint(17)
    arguments = [path, "--out", str(out), "--input-size", "96x64"]
    assert cli.main(["convert", "alphapose", *arguments]) == 0
    line, wrote = capsys.readouterr().out.splitlines()
    assert line.startswith("fastpose_res50, ")
    assert line.endswith("96x64 pixels, joints of coco, decoded by 'quarter'")
    assert wrote == f"wrote {out}"
    model = load_pose_model(out)
    assert model.nms == PoseNmsParams.preset("alphapose")
    network, codec = model.build()
    crop = np.random.default_rng(0).integers(0, 256, (1, 96, 64, 3), np.uint8)
    pixels = (crop / 255 - [0.406, 0.457, 0.480]).astype(np.float32)
    maps = np.asarray(jax.jit(network.apply)(model.variables, pixels))[0]
    expected = np.asarray(jax.jit(original.apply)(variables, pixels))[0]
    assert expected.std() > 0.01
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert maps.shape == (24, 16, 17)
    assert (maps.max((0, 1)) > 0).sum() > 5
    np.testing.assert_allclose(codec.inputs(jnp.asarray(crop)), pixels, atol=1e-6)
    points, scores = codec.keypoints(codec.maps(jnp.asarray(maps[None])))
    np.testing.assert_allclose(points[0], alphapose_decode(maps), atol=1e-4)
    np.testing.assert_allclose(scores[0], np.clip(maps.max((0, 1)), 0, 1), atol=1e-6)


def test_whole_bodies_have_an_nms_of_their_own(checkpoint, tmp_path):
    out = tmp_path / "net.safetensors"
    assert cli.main(["convert", "alphapose", checkpoint(133)[0], "--out", str(out)]) == 0
    model = load_pose_model(out)
    assert model.nms == PoseNmsParams.preset("alphapose_whole_body")
    assert model.spec.decode == "integral"
    assert model.spec.skeleton.name == "coco_wholebody"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--input-size", "100x64"], "make both sides multiples of 32"),
        (
            ["--skeleton", "mpii"],
            "net.pth: has 17 joints, and the joints of mpii are not the first",
        ),
    ],
)
def test_an_invalid_conversion_is_one_line(checkpoint, tmp_path, capsys, arguments, says):
    out = tmp_path / "net.safetensors"
    arguments = [checkpoint(17)[0], "--out", str(out), *arguments]
    assert cli.main(["convert", "alphapose", *arguments]) == 1
    line = capsys.readouterr().err
    assert says in line
    assert line.count("\n") == 1
    assert not out.exists()


def test_a_file_that_is_not_a_checkpoint(tmp_path, capsys):
    path = tmp_path / "net.pth"
    path.write_bytes(b"<!DOCTYPE html>")
    assert cli.main(["convert", "alphapose", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "is a web page, not the file itself" in capsys.readouterr().err


def test_a_network_of_mmpose_becomes_a_model_file(tiny_depth, tmp_path, capsys):
    network = build_sppe("simplepose_res50", 17)
    variables = random_variables(network)
    heads = ("deconv_layers", "final_layer")
    state = {
        f"head.{name}" if name.startswith(heads) else name.replace("preact.", "backbone."): tensor
        for name, tensor in torch_state(variables).items()
    }
    save_state(tmp_path / "net.pth", state)
    out = tmp_path / "net.safetensors"
    command = ["convert", "mmpose", str(tmp_path / "net.pth"), "--out", str(out)]
    assert cli.main([*command, "--codec", "udp", "--input-size", "96x64"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("simplepose_res50, ")
    assert line.endswith("96x64 pixels, joints of coco, decoded by 'dark_udp'")
    model = load_pose_model(out)
    _, codec = model.build()
    assert (codec.alignment, codec.decode, codec.heatmap_size) == ("udp", "dark_udp", (24, 16))
    crop = np.random.default_rng(0).integers(0, 256, (1, 96, 64, 3), np.uint8)
    pixels = (crop - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(codec.inputs(jnp.asarray(crop)), pixels, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, model.variables, dict(variables))


@pytest.mark.slow
def test_a_vitpose_becomes_a_model_file(tmp_path, monkeypatch, capsys):
    tiny = functools.partial(
        ViTPose, width=24, depth=2, num_heads=3, expert_width=6, simple_head=False
    )
    monkeypatch.setitem(models._MODELS, "vitpose_plus_s", tiny)
    monkeypatch.setattr(vitpose, "VITPOSE_MODELS", {"vitpose_plus_s": tiny})
    network = tiny(num_keypoints=17)
    variables = random_variables(network, size=(64, 48))
    save_state(tmp_path / "net.pth", torch_state(variables))
    out = tmp_path / "net.safetensors"
    command = ["convert", "vitpose", str(tmp_path / "net.pth"), "--out", str(out)]
    cli.main([*command, "--expert", "3"])
    assert "vitpose_plus_s" in capsys.readouterr().out
    model = load_pose_model(out)
    module, codec = model.build()
    assert model.spec.transformer.expert == 3
    assert (codec.alignment, codec.decode, codec.heatmap_size) == ("udp", "dark_udp", (16, 12))
    x = np.random.default_rng(0).standard_normal((2, 64, 48, 3)).astype(np.float32)
    expected = network.apply(variables, jnp.asarray(x), expert=jnp.array([3, 3]))
    np.testing.assert_allclose(module.apply(model.variables, jnp.asarray(x)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("project", "option"),
    [
        ("vitpose", ("--loss", "mse")),
        ("alphapose", ("--expert", "2")),
        ("alphapose", ("--codec", "udp")),
        ("mmpose", ("--loss", "mse")),
    ],
)
def test_an_option_of_the_other_project(tmp_path, capsys, project, option):
    assert cli.main(["convert", project, "x.pth", "--out", str(tmp_path / "x"), *option]) == 1
    assert f"{option[0]} is not for {project}" in capsys.readouterr().err
