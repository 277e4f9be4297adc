"""A checkpoint of another project becomes a model file that is used like a network of ours."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from rmpe_jax import cli
from rmpe_jax.inference.pose_model import load_pose_model
from rmpe_jax.interop.torch_names import torch_key
from rmpe_jax.models import build_sppe, resnet
from rmpe_jax.pose_nms import PoseNmsParams

torch = pytest.importorskip("torch")


@pytest.fixture
def checkpoint(monkeypatch, tmp_path):
    """checkpoint(k): a SimplePose of few blocks, random, as AlphaPose saves it, and its path."""
    monkeypatch.setitem(resnet.NUM_BLOCKS, 50, (1, 1, 1, 1))

    def save(num_keypoints):
        x = np.zeros((1, 64, 64, 3), np.float32)
        net = build_sppe("simplepose_res50", num_keypoints)
        shapes = jax.eval_shape(net.init, jax.random.key(0), x)
        state = {}
        for path, leaf in traverse_util.flatten_dict(dict(shapes)).items():
            shape = leaf.shape
            if len(shape) == 4:
                order = (2, 3, 0, 1) if "deconv" in path[1] else (3, 2, 0, 1)
                shape = tuple(shape[axis] for axis in order)
            scale = np.prod(shape[1:]) ** -0.5 if len(shape) == 4 else 0.1
            value = scale * torch.randn(shape, generator=torch.Generator().manual_seed(len(state)))
            state[torch_key(path[1:])] = (
                value.abs() + 0.5 if path[-1] in ("var", "scale") else value
            )
        torch.save(state, tmp_path / "net.pth")
        return tmp_path / "net.pth"

    return save


def alphapose_decode(heatmaps):
    """The highest pixel, a quarter towards the higher neighbour, times the stride of 4.

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


def test_converted_network_reads_pictures_as_alphapose_does(checkpoint, tmp_path, capsys):
    out = tmp_path / "net.safetensors"
    arguments = [str(checkpoint(17)), "--out", str(out), "--input-size", "96x64"]
    assert cli.main(["convert", "alphapose", *arguments]) == 0
    line, wrote = capsys.readouterr().out.splitlines()
    assert line.startswith("simplepose_res50, ")
    assert line.endswith("96x64 pixels, joints of coco, read by 'quarter'")
    assert wrote == f"wrote {out}"
    model = load_pose_model(out)
    assert model.nms == PoseNmsParams.preset("alphapose")
    network, codec = model.build()
    crop = np.random.default_rng(0).integers(0, 256, (1, 96, 64, 3), np.uint8)
    pixels = (crop / 255 - [0.406, 0.457, 0.480]).astype(np.float32)
    maps = np.asarray(jax.jit(network.apply)(model.variables, pixels))[0]
    assert maps.shape == (24, 16, 17)
    assert (maps.max((0, 1)) > 0).sum() > 5
    np.testing.assert_allclose(codec.inputs(crop), pixels, atol=1e-6)
    points, scores = codec.keypoints(codec.heatmaps(maps[None]))
    np.testing.assert_allclose(points[0], alphapose_decode(maps), atol=1e-4)
    np.testing.assert_allclose(scores[0], np.clip(maps.max((0, 1)), 0, 1), atol=1e-6)


def test_whole_bodies_have_an_nms_of_their_own(checkpoint, tmp_path):
    out = tmp_path / "net.safetensors"
    assert cli.main(["convert", "alphapose", str(checkpoint(133)), "--out", str(out)]) == 0
    model = load_pose_model(out)
    assert model.nms == PoseNmsParams.preset("alphapose_whole_body")
    assert model.config.codec.decode == "integral"
    assert model.skeleton.name == "coco_wholebody"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--input-size", "100x64"], "make both sides multiples of 32"),
        (
            ["--skeleton", "mpii"],
            "net.pth: has 17 joints, of which those of mpii are not the first",
        ),
    ],
)
def test_what_cannot_be_is_one_line(checkpoint, tmp_path, capsys, arguments, says):
    out = tmp_path / "net.safetensors"
    assert (
        cli.main(["convert", "alphapose", str(checkpoint(17)), "--out", str(out), *arguments]) == 1
    )
    line = capsys.readouterr().err
    assert says in line
    assert line.count("\n") == 1
    assert not out.exists()


def test_a_file_that_is_no_checkpoint(tmp_path, capsys):
    path = tmp_path / "net.pth"
    path.write_bytes(b"<!DOCTYPE html>")
    assert cli.main(["convert", "alphapose", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "damaged or no PyTorch file" in capsys.readouterr().err
