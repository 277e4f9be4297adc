"""Random networks of MMPose in torch give the same heatmaps after saving and conversion."""

import functools

import numpy as np
import pytest

from rmpe_jax import models
from rmpe_jax.interop import alphapose, load_mmpose
from rmpe_jax.models import hrnet, resnet

torch = pytest.importorskip("torch")
import torch_networks as twins  # noqa: E402 (beside this file; it needs torch)
from same_outputs import assert_same_outputs  # noqa: E402

TINY = (2, 1, 1, 1)
SHORT = ((2, 1), (3, 1), (4, 1))
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@pytest.fixture
def tiny(monkeypatch):
    """A ResNet-50 with five blocks, and a narrow HRNet with one module per stage."""
    monkeypatch.setitem(resnet.NUM_BLOCKS, 50, TINY)
    monkeypatch.setitem(models._MODELS, "hrnet_w4", functools.partial(hrnet.HRNet, width=4))
    monkeypatch.setattr(alphapose, "SPPE_NAMES", (*models.SPPE_NAMES, "hrnet_w4"))
    monkeypatch.setattr(hrnet, "_STAGES", SHORT)
    monkeypatch.setattr(hrnet, "_BLOCKS_PER_BRANCH", 1)


class HeatmapHead(torch.nn.Module):
    def __init__(self, channels, joints, num_deconvs):
        super().__init__()
        layers = []
        for _ in range(num_deconvs):
            layers += [torch.nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False)]
            layers += [torch.nn.BatchNorm2d(256), torch.nn.ReLU()]
            channels = 256
        self.deconv_layers = torch.nn.Sequential(*layers) if layers else torch.nn.Identity()
        self.final_layer = torch.nn.Conv2d(channels, joints, 1)

    def forward(self, x):
        return self.final_layer(self.deconv_layers(x))


class TopDown(torch.nn.Module):
    """A backbone and a head, which is `keypoint_head` in MMPose 0.x and `head` in 1.x."""

    def __init__(self, backbone, head, version):
        super().__init__()
        self.backbone = backbone
        self.head_name = "head" if version == 1 else "keypoint_head"
        setattr(self, self.head_name, head)

    def forward(self, x):
        return getattr(self, self.head_name)(self.backbone(x))


def simple_baseline(blocks, version, joints=17):
    return TopDown(twins.ResNet(blocks), HeatmapHead(2048, joints, 3), version)


def high_resolution(width, version, joints=17, **options):
    backbone = twins.HRNet(width, joints, **options)
    backbone.final_layer = torch.nn.Identity()
    return TopDown(backbone, HeatmapHead(width, joints, 0), version)


def assert_converts(network, path, name):
    network = twins.randomized(network)
    torch.save({"meta": {"sigmas": np.ones(17)}, "state_dict": network.state_dict()}, path)
    checkpoint = load_mmpose(path)
    assert checkpoint.spec.network == name
    assert_same_outputs(network, checkpoint)


def test_simple_baseline(tiny, tmp_path):
    network = simple_baseline(TINY, version=0)
    assert_converts(network, tmp_path / "net.pth", "simplepose_res50")


def test_hrnet(tiny, tmp_path):
    network = high_resolution(4, version=1, stages=SHORT, blocks=1)
    assert_converts(network, tmp_path / "net.pth", "hrnet_w4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (functools.partial(simple_baseline, BLOCKS[50], 0), "simplepose_res50"),
        (functools.partial(simple_baseline, BLOCKS[101], 1), "simplepose_res101"),
        (functools.partial(simple_baseline, BLOCKS[152], 1), "simplepose_res152"),
        (functools.partial(high_resolution, 32, 0), "hrnet_w32"),
        (functools.partial(high_resolution, 48, 1), "hrnet_w48"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_networks_at_full_size(tmp_path, make, name):
    assert_converts(make(), tmp_path / "net.pth", name)
