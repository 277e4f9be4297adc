"""FastPose-50 in torch, with the same layers in the same order as ours; for benchmarks, tests."""

import torch
from torch import nn
from torch.nn import functional


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class SqueezeExcite(nn.Module):
    """Channels scaled by sigmoid(W2 relu(W1 mean))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, channels)
        self.second = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = functional.relu(self.first(x.mean((2, 3))))
        return x * self.second(scale).sigmoid()[:, :, None, None]


class Bottleneck(nn.Module):
    """1x1, 3x3 (stride), 1x1 to four times the planes; the `first` has SE and projection."""

    def __init__(self, inputs: int, planes: int, stride: int, first: bool) -> None:
        super().__init__()
        self.reduce = conv_bn(inputs, planes, 1)
        self.middle = conv_bn(planes, planes, 3, stride)
        self.expand = conv_bn(planes, 4 * planes, 1)
        self.se = SqueezeExcite(4 * planes) if first else nn.Identity()
        self.shortcut = conv_bn(inputs, 4 * planes, 1, stride) if first else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.reduce(x))
        y = functional.relu(self.middle(y))
        return functional.relu(self.se(self.expand(y)) + self.shortcut(x))


class FastPose50(nn.Module):
    """(b, 3, H, W) -> (b, k, H/4, W/4)."""

    def __init__(self, num_keypoints: int = 17) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks, channels = [], 64
        for stage, count in enumerate((3, 4, 6, 3)):
            for index in range(count):
                first, planes = index == 0, 64 * 2**stage
                stride = 2 if first and stage > 0 else 1
                blocks.append(Bottleneck(channels, planes, stride, first))
                channels = 4 * planes
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.PixelShuffle(2),
            *(conv_bn(512, 1024, 3), nn.ReLU(), nn.PixelShuffle(2)),
            *(conv_bn(256, 512, 3), nn.ReLU(), nn.PixelShuffle(2)),
            nn.Conv2d(128, num_keypoints, 3, 1, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))
