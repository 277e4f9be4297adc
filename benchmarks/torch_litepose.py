"""litepose_effnet0_s in torch, with the same layers, in the same order and by the same names.

For benchmarks and tests. Our names are in models/inverted_residual.py and models/small.py.
"""

import torch
from torch import nn
from torch.nn import functional

# (kernel, stride, expansion, channels) of the blocks, and the blocks that the head sees.
BLOCKS = (
    (3, 1, 1, 16),
    *((3, 2, 6, 24), (3, 1, 6, 24)),
    *((5, 2, 6, 40), (5, 1, 6, 40)),
    *((3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)),
    *((5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)),
    *((5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)),
    (3, 1, 6, 320),
)
PYRAMID_BLOCKS = (2, 4, 10, 15)
HEAD_WIDTHS = (128, 96, 64, 48)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, **options) -> nn.Conv2d:
    """A convolution, padded by kernel // 2; `options` of `nn.Conv2d`."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, **{"bias": False, **options})


class FrozenBatchNorm(nn.BatchNorm2d):
    """Constant statistics; scale and bias are trained."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        statistics = self.running_mean, self.running_var
        return functional.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)


class Backbone(nn.ModuleDict):
    """EfficientNet-Lite0: (b, 3, H, W) -> features at strides 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self["stem"], self["stem_bn"] = conv(3, 32, 3, 2), FrozenBatchNorm(32)
        inputs = 32
        for index, (kernel, stride, expansion, outputs) in enumerate(BLOCKS):
            name, middle = f"block{index}", expansion * inputs
            if expansion > 1:
                self[f"{name}_expand"] = conv(inputs, middle, 1)
                self[f"{name}_expand_bn"] = FrozenBatchNorm(middle)
            self[f"{name}_depthwise"] = conv(middle, middle, kernel, stride, groups=middle)
            self[f"{name}_depthwise_bn"] = FrozenBatchNorm(middle)
            self[f"{name}_project"] = conv(middle, outputs, 1)
            self[f"{name}_project_bn"] = FrozenBatchNorm(outputs)
            inputs = outputs

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = functional.relu6(self["stem_bn"](self["stem"](x)))
        pyramid = []
        for index in range(len(BLOCKS)):
            shortcut = x
            for part in (f"block{index}_expand", f"block{index}_depthwise"):
                if part in self:
                    x = functional.relu6(self[f"{part}_bn"](self[part](x)))
            x = self[f"block{index}_project_bn"](self[f"block{index}_project"](x))
            x = x + shortcut if x.shape == shortcut.shape else x
            if index in PYRAMID_BLOCKS:
                pyramid.append(x)
        return pyramid


class Head(nn.ModuleDict):
    """Top-down path: features, finest first -> (b, k, H/4, W/4)."""

    def __init__(self, num_keypoints: int) -> None:
        super().__init__()
        pyramid = [BLOCKS[index][3] for index in reversed(PYRAMID_BLOCKS)]
        coarser = 0
        for level, (features, width) in enumerate(zip(pyramid, HEAD_WIDTHS, strict=True)):
            self[f"lateral{level}"] = conv(features, width, 1, bias=True)
            if level:
                self[f"top_down{level}"] = conv(coarser, width, 1, bias=True)
            self[f"sum_bn{level}"] = nn.BatchNorm2d(width)
            self[f"smooth{level}"] = conv(width, width, 3)
            self[f"smooth_bn{level}"] = nn.BatchNorm2d(width)
            coarser = width
        self["conv_out"] = conv(coarser, num_keypoints, 1, bias=True)

    def forward(self, pyramid: list[torch.Tensor]) -> torch.Tensor:
        x = None
        for level, features in enumerate(reversed(pyramid)):
            total = self[f"lateral{level}"](features)
            if x is not None:
                total = total + functional.interpolate(self[f"top_down{level}"](x), scale_factor=2)
            x = functional.relu(self[f"sum_bn{level}"](total))
            x = functional.relu(self[f"smooth_bn{level}"](self[f"smooth{level}"](x)))
        return self["conv_out"](x)


class LitePose(nn.Module):
    """(b, 3, H, W) -> (b, k, H/4, W/4)."""

    def __init__(self, num_keypoints: int = 17) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), Head(num_keypoints)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))
