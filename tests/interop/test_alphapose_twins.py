"""Random networks of AlphaPose in torch give the same heatmaps after saving and conversion."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from rmpe_jax import models
from rmpe_jax.interop import alphapose
from rmpe_jax.interop.alphapose import _detect_network, load_alphapose
from rmpe_jax.interop.torch_names import torch_key
from rmpe_jax.models import build_sppe, hrnet, resnet

torch = pytest.importorskip("torch")
import torch_networks as twins  # noqa: E402 (beside this file; it needs torch)
from same_outputs import assert_same_outputs  # noqa: E402

TINY = (2, 1, 1, 1)
SHORT = ((2, 1), (3, 1), (4, 1))
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@pytest.fixture
def tiny_depth(monkeypatch):
    """A ResNet-50 with five blocks, at its original widths."""
    monkeypatch.setitem(resnet.NUM_BLOCKS, 50, TINY)


def assert_converts(make, path, name):
    network = twins.randomized(make())
    torch.save(network.state_dict(), path)
    checkpoint = load_alphapose(path)
    assert checkpoint.spec.network == name
    assert_same_outputs(network, checkpoint)


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
    assert_converts(make, tmp_path / "net.pth", name)


@pytest.fixture
def narrow_hrnet(monkeypatch):
    """One module with one block per stage; the original's 300 convolutions compile slowly."""
    narrow = functools.partial(hrnet.HRNet, width=4)
    monkeypatch.setitem(models._MODELS, "hrnet_w4", narrow)
    monkeypatch.setattr(alphapose, "SPPE_NAMES", (*models.SPPE_NAMES, "hrnet_w4"))
    monkeypatch.setattr(hrnet, "_STAGES", SHORT)
    monkeypatch.setattr(hrnet, "_BLOCKS_PER_BRANCH", 1)


def test_hrnet(narrow_hrnet, tmp_path):
    make = functools.partial(twins.HRNet, 4, 17, SHORT, blocks=1)
    assert_converts(make, tmp_path / "net.pth", "hrnet_w4")


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
    assert_converts(make, tmp_path / "net.pth", name)


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
def test_names_are_those_of_torch(name):
    with torch.device("meta"):
        state = SHAPES[name]().state_dict()
    empty = {key: np.broadcast_to(np.float32(0), value.shape) for key, value in state.items()}
    found, head = _detect_network(empty)
    assert found == name
    shapes = {key: value.shape for key, value in state.items() if "num_batches" not in key}
    module = build_sppe(name, len(empty[f"{head}.bias"]))
    expected = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    ours = traverse_util.flatten_dict(dict(expected))
    assert {torch_key(path[1:]) for path in ours} == set(shapes)
