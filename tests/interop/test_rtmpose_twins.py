"""A random RTMPose in torch gives the same vectors after saving and conversion."""

import functools

import numpy as np
import pytest

from rmpe_jax import models
from rmpe_jax.interop import load_mmpose
from rmpe_jax.interop import rtmpose as conversion
from rmpe_jax.models import rtmpose

torch = pytest.importorskip("torch")
from same_outputs import assert_same_outputs  # noqa: E402 (beside this file; it needs torch)
from torch_networks import randomized  # noqa: E402

nn = torch.nn


class Conv(nn.Module):
    def __init__(self, channels, features, size, stride=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(
            channels, features, size, stride, size // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(features)

    def forward(self, x):
        return nn.functional.silu(self.bn(self.conv(x)))


class Separable(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.depthwise_conv = Conv(width, width, 5, groups=width)
        self.pointwise_conv = Conv(width, width, 1)

    def forward(self, x):
        return self.pointwise_conv(self.depthwise_conv(x))


class Block(nn.Module):
    def __init__(self, width, residual):
        super().__init__()
        self.conv1, self.conv2, self.residual = Conv(width, width, 3), Separable(width), residual

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        return y + x if self.residual else y


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Conv2d(width, width, 1)

    def forward(self, x):
        gate = (self.fc(x.mean((2, 3), keepdim=True)) + 3).clamp(0, 6) / 6
        return x * gate


class CrossStage(nn.Module):
    def __init__(self, width, count, residual):
        super().__init__()
        self.main_conv, self.short_conv = Conv(width, width // 2, 1), Conv(width, width // 2, 1)
        self.blocks = nn.Sequential(*(Block(width // 2, residual) for _ in range(count)))
        self.attention, self.final_conv = Attention(width), Conv(width, width, 1)

    def forward(self, x):
        both = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], 1)
        return self.final_conv(self.attention(both))


class Pyramid(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2 = Conv(width, width // 2, 1), Conv(2 * width, width, 1)

    def forward(self, x):
        x = self.conv1(x)
        pools = [nn.functional.max_pool2d(x, size, 1, size // 2) for size in (5, 9, 13)]
        return self.conv2(torch.cat([x, *pools], 1))


class Backbone(nn.Module):
    def __init__(self, stem, counts):
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, stem // 2, 3, 2), Conv(stem // 2, stem // 2, 3), Conv(stem // 2, stem, 3)
        )
        for i, count in enumerate(counts):
            width = stem * 2 ** (i + 1)
            layers = [Conv(width // 2, width, 3, 2), CrossStage(width, count, residual=i < 3)]
            if i == 3:
                layers.insert(1, Pyramid(width))
            setattr(self, f"stage{i + 1}", nn.Sequential(*layers))

    def forward(self, x):
        x = self.stem(x)
        for i in range(4):
            x = getattr(self, f"stage{i + 1}")(x)
        return x


class ScaleNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.tensor([0.7]))

    def forward(self, x):
        norm = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return self.g * x / norm.clamp(min=1e-5)


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, width))

    def forward(self, x):
        return self.scale * x


class Gated(nn.Module):
    def __init__(self, width=256, size=128):
        super().__init__()
        self.ln, self.res_scale, self.size = ScaleNorm(), Scale(width), size
        self.uv = nn.Linear(width, 4 * width + size, bias=False)
        self.o = nn.Linear(2 * width, width, bias=False)
        self.gamma = nn.Parameter(torch.linspace(-1, 2, 2 * size).reshape(2, size))
        self.beta = nn.Parameter(torch.linspace(1, -0.5, 2 * size).reshape(2, size))

    def forward(self, x):
        mixed = nn.functional.silu(self.uv(self.ln(x)))
        inner = (mixed.shape[-1] - self.size) // 2
        u, v, base = mixed.split([inner, inner, self.size], -1)
        query, key = base * self.gamma[0] + self.beta[0], base * self.gamma[1] + self.beta[1]
        kernel = (query @ key.mT / self.size**0.5).clamp(min=0) ** 2
        return self.res_scale(x) + self.o(u * (kernel @ v))


class Head(nn.Module):
    def __init__(self, channels, joints, size):
        super().__init__()
        height, width = size
        self.final_layer = nn.Conv2d(channels, joints, 7, padding=3)
        self.mlp = nn.Sequential(ScaleNorm(), nn.Linear(height * width // 1024, 256, bias=False))
        self.gau = Gated()
        self.cls_x = nn.Linear(256, 2 * width, bias=False)
        self.cls_y = nn.Linear(256, 2 * height, bias=False)

    def forward(self, x):
        x = self.gau(self.mlp(self.final_layer(x).flatten(2)))
        return self.cls_x(x), self.cls_y(x)


class RTMPose(nn.Module):
    def __init__(self, stem, counts, joints=17, size=(64, 32)):
        super().__init__()
        self.backbone, self.head = Backbone(stem, counts), Head(16 * stem, joints, size)

    def forward(self, x):
        return self.head(self.backbone(x))


def assert_converts(path, name, stem, counts, joints, size):
    network = randomized(RTMPose(stem, counts, joints, size))
    beside = {"ema_state_dict": {"steps": torch.tensor(3)}, "meta": {"sigmas": np.ones(17)}}
    torch.save({"state_dict": network.state_dict(), **beside}, path)
    checkpoint = load_mmpose(path)
    assert checkpoint.spec.network == name
    assert checkpoint.spec.input_size == size
    assert checkpoint.spec.skeleton.num_keypoints == joints
    assert_same_outputs(network, checkpoint, size)


def test_a_narrow_network(monkeypatch, tmp_path):
    narrow = functools.partial(rtmpose.RTMPose, deepen=0.1, widen=0.125)
    monkeypatch.setitem(models._MODELS, "rtmpose_t", narrow)
    monkeypatch.setattr(conversion, "_NETWORKS", {8: "rtmpose_t"})
    assert_converts(tmp_path / "net.pth", "rtmpose_t", 8, (1, 1, 1, 1), 17, (96, 64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stem", "counts", "joints", "size"),
    [
        ("rtmpose_t", 24, (1, 1, 1, 1), 17, (96, 64)),
        ("rtmpose_s", 32, (1, 2, 2, 1), 26, (256, 192)),
        ("rtmpose_m", 48, (2, 4, 4, 2), 17, (64, 96)),
        ("rtmpose_l", 64, (3, 6, 6, 3), 133, (64, 64)),
    ],
)
def test_every_size(tmp_path, name, stem, counts, joints, size):
    assert_converts(tmp_path / "net.pth", name, stem, counts, joints, size)
