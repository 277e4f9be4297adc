"""Checkpoints of random torch networks, converted: the same heatmaps come out."""

import functools
import re

import jax
import numpy as np
import pytest
from flax import traverse_util

from rmpe_jax import models
from rmpe_jax.errors import UserError
from rmpe_jax.interop.alphapose import _network, load_alphapose
from rmpe_jax.interop.torch_names import torch_key
from rmpe_jax.models import build_sppe, hrnet, resnet

torch = pytest.importorskip("torch")
import torch_networks as twins  # noqa: E402 (beside this file; it needs torch)

TINY = (2, 1, 1, 1)
SHORT = ((2, 1), (3, 1), (4, 1))
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@pytest.fixture
def tiny_depth(monkeypatch):
    """A ResNet-50 of five blocks, at its own widths."""
    monkeypatch.setitem(resnet.NUM_BLOCKS, 50, TINY)


def save(network, path, **options):
    torch.save(network.state_dict(), path, **options)
    return path


def assert_same_heatmaps(network, path, size=(64, 32)):
    """Ours within 1e-4 of torch's greatest value, for the same file and input."""
    checkpoint = load_alphapose(path)
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    actual = jax.jit(checkpoint.module.apply)(checkpoint.variables, x)
    expected = expected.transpose(0, 2, 3, 1)
    assert expected.std() > 0.01
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    return checkpoint


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (functools.partial(twins.FastPose, TINY, 17), "fastpose_res50"),
        (
            functools.partial(twins.FastPoseDuc, TINY, 17, shuffle=True),
            "fastpose_duc_res50_shuffle",
        ),
        (functools.partial(twins.SimplePose, TINY, 17), "simplepose_res50"),
    ],
    ids=["fastpose", "fastpose_duc", "simplepose"],
)
def test_every_family(tiny_depth, tmp_path, make, name):
    network = twins.randomised(make())
    checkpoint = assert_same_heatmaps(network, save(network, tmp_path / "net.pth"))
    assert checkpoint.config.model.name == name


@pytest.fixture
def narrow_hrnet(monkeypatch):
    """One module of one block a stage; three hundred convolutions take long to compile."""
    narrow = functools.partial(hrnet.HRNet, width=4)
    monkeypatch.setitem(models._MODELS, "hrnet_w32", narrow)
    monkeypatch.setattr(hrnet, "_STAGES", SHORT)
    monkeypatch.setattr(hrnet, "_BLOCKS", 1)


def test_hrnet(narrow_hrnet, tmp_path):
    network = twins.randomised(twins.HRNet(4, 17, SHORT, blocks=1))
    checkpoint = assert_same_heatmaps(network, save(network, tmp_path / "net.pth"))
    assert checkpoint.config.model.name == "hrnet_w32"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (functools.partial(twins.FastPose, BLOCKS[50], 17), "fastpose_res50"),
        (functools.partial(twins.FastPose, BLOCKS[101], 26), "fastpose_res101"),
        (functools.partial(twins.FastPose, BLOCKS[152], 17), "fastpose_res152"),
        (functools.partial(twins.FastPose, BLOCKS[50], 17, se=False), "fastpose_res50_plain"),
        (functools.partial(twins.FastPose, BLOCKS[50], 136, last=1024), "fastpose_res50_wide"),
        (
            functools.partial(twins.FastPoseDuc, BLOCKS[50], 17, shuffle=True),
            "fastpose_duc_res50_shuffle",
        ),
        (functools.partial(twins.FastPoseDuc, BLOCKS[152], 133), "fastpose_duc_res152_se"),
        (
            functools.partial(twins.FastPoseDuc, BLOCKS[50], 17, se=False),
            "fastpose_duc_res50_plain",
        ),
        (functools.partial(twins.SimplePose, BLOCKS[50], 17), "simplepose_res50"),
        (functools.partial(twins.HRNet, 32, 17), "hrnet_w32"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_networks_at_full_size(tmp_path, make, name):
    network = twins.randomised(make())
    checkpoint = assert_same_heatmaps(network, save(network, tmp_path / "net.pth"))
    assert checkpoint.config.model.name == name


SHAPES = {
    "fastpose_res101": functools.partial(twins.FastPose, BLOCKS[101], 17),
    "fastpose_res152_plain_wide": functools.partial(
        twins.FastPose, BLOCKS[152], 133, se=False, last=1024
    ),
    "fastpose_duc_res50_plain": functools.partial(twins.FastPoseDuc, BLOCKS[50], 17, se=False),
    "fastpose_duc_res152_se": functools.partial(twins.FastPoseDuc, BLOCKS[152], 17),
    "simplepose_res152": functools.partial(twins.SimplePose, BLOCKS[152], 17),
}


@pytest.mark.parametrize("name", SHAPES)
def test_architectures_are_told_by_their_keys(name):
    with torch.device("meta"):
        state = SHAPES[name]().state_dict()
    empty = {key: np.broadcast_to(np.float32(0), value.shape) for key, value in state.items()}
    found, head = _network(empty)
    assert found == name
    shapes = {key: value.shape for key, value in state.items() if "num_batches" not in key}
    module = build_sppe(name, len(empty[f"{head}.bias"]))
    expected = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    ours = traverse_util.flatten_dict(dict(expected))
    assert {torch_key(path[1:]) for path in ours} == set(shapes)


def small_state(joints=17, **changes):
    """A FastPose of TINY depth, all zero, as a state dict of tensors that take no memory."""
    with torch.device("meta"):
        state = twins.FastPose(TINY, joints).state_dict()
    zero = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}
    zero |= changes
    return {key: value for key, value in zero.items() if value is not None}


def load(tmp_path, state, **options):
    torch.save(state, tmp_path / "net.pth")
    return load_alphapose(tmp_path / "net.pth", **options)


def refusal(tmp_path, state, **options):
    with pytest.raises(UserError) as caught:
        load(tmp_path, state, **options)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / 'net.pth'}: ")
    return line


def test_config_is_alphaposes(tiny_depth, tmp_path):
    config = load(tmp_path, small_state()).config
    assert config.model.mean == (0.406, 0.457, 0.480)
    assert config.model.std == (1.0, 1.0, 1.0)
    assert config.model.skeleton == "coco"
    assert config.model.input_size == (256, 192)
    assert config.codec.to_dict() == {
        "loss": "mse",
        "sigma": 2.0,
        "integer_centre": True,
        "decode": "quarter",
        "alignment": "first_pixel",
    }
    assert config.data.padding == 1.25


@pytest.mark.parametrize(
    ("joints", "asked", "skeleton", "left"),
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
def test_any_number_of_joints(tiny_depth, tmp_path, joints, asked, skeleton, left):
    weight = torch.arange(joints)[:, None, None, None].expand(joints, 128, 3, 3).float()
    state = small_state(joints, **{"conv_out.weight": weight})
    module, variables, config = load(tmp_path, state, skeleton=asked, input_size=(320, 256))
    assert config.model.skeleton == skeleton
    assert config.model.input_size == (320, 256)
    assert module.num_keypoints == left
    kernel = variables["params"]["conv_out"]["kernel"]
    assert kernel.shape == (3, 3, 128, left)
    np.testing.assert_array_equal(kernel[1, 1, 5], np.arange(left))


@pytest.mark.parametrize("joints", [133, 136])
def test_whole_bodies_are_read_by_the_integral(tiny_depth, tmp_path, joints):
    config = load(tmp_path, small_state(joints)).config
    assert config.codec.loss == "symmetric_integral"
    assert config.codec.decode == "integral"
    config = load(tmp_path, small_state(joints), loss="mse").config
    assert (config.codec.loss, config.codec.decode) == ("mse", "quarter")


def test_the_prefix_of_data_parallel_and_half_precision(tiny_depth, tmp_path):
    state = {f"module.{key}": value.half() for key, value in small_state().items()}
    variables = load(tmp_path, state).variables
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"duc1.bn.weight": None}, "lacks duc1.bn.weight"),
        (
            {f"preact.layer2.0.bn{i}.weight": None for i in (1, 2, 3)} | {"duc2.bn.bias": None},
            "and 1 more",
        ),
        ({"smpl.joints": torch.zeros(3)}, "has smpl.joints, for which there is no place"),
        ({"conv_out.bias": None}, "lacks conv_out.bias"),
        ({"conv_out.bias": torch.zeros(18)}, r"of another size .*conv_out.weight \(17x128x3x3\)"),
        ({"duc1.conv.weight": torch.zeros(1024, 512, 1, 1)}, r"duc1.conv.weight \(1024x512x1x1\)"),
        ({"conv_out.bias": torch.full((17,), torch.nan)}, "not finite in conv_out.bias"),
        (
            {"preact.layer2.0.conv2_offset.weight": torch.zeros(18, 128, 3, 3)},
            r"deformable convolutions \(preact.layer2.0.conv2_offset.weight\)",
        ),
        ({"preact.layer4.1.bn1.bias": torch.zeros(512)}, "ResNet of 2, 1, 1, 2 blocks a stage"),
        ({"preact.layer1.0.conv3.weight": None}, "none of the depths 50, 101 and 152"),
        ({"conv_out.bias": torch.zeros(()).expand(2**40)}, "cannot be joints"),
        ({"conv_out.weight": torch.zeros(()).expand(17, 2**40, 3, 3)}, "of another size"),
    ],
)
def test_what_does_not_fit_is_one_line(tiny_depth, tmp_path, changes, says):
    assert re.search(says, refusal(tmp_path, small_state(**changes)))


def test_other_networks_and_skeletons(tiny_depth, tmp_path):
    line = refusal(tmp_path, {"backbone.stem.weight": torch.zeros(3), "head.bias": torch.zeros(2)})
    assert "none of FastPose, FastPose-DUC, SimplePose and HRNet" in line
    assert "backbone.stem.weight, head.bias" in line
    assert "those of mpii are not the first" in refusal(tmp_path, small_state(), skeleton="mpii")
    assert "no skeleton is called 'cocoo'" in refusal(tmp_path, small_state(), skeleton="cocoo")
