"""AlphaPose's pose networks in torch, with the parameter names of its checkpoints.

Only for tests, which convert files of these networks with random weights.
"""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


def conv(channels, features, size, stride=1, bias=False):
    return nn.Conv2d(channels, features, size, stride, size // 2, bias=bias)


def conv_bn(channels, features, size, stride=1):
    return [conv(channels, features, size, stride), nn.BatchNorm2d(features)]


class Scale(nn.Module):
    """Squeeze-and-excitation without reduction."""

    def __init__(self, features):
        super().__init__()
        layers = (nn.Linear(features, features), nn.ReLU(), nn.Linear(features, features))
        self.fc = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, x):
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class Bottleneck(nn.Module):
    def __init__(self, channels, planes, stride=1, project=False, se=False, shuffle=False):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(channels, planes, 1)
        self.conv2, self.bn2 = conv_bn(planes, planes, 3, stride)
        if shuffle and stride == 2:
            self.conv2 = nn.Sequential(nn.PixelUnshuffle(2), conv(4 * planes, planes, 3))
        self.conv3, self.bn3 = conv_bn(planes, 4 * planes, 1)
        if project:
            self.downsample = nn.Sequential(*conv_bn(channels, 4 * planes, 1, stride))
        if se and project:
            self.se = Scale(4 * planes)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = self.se(y) if hasattr(self, "se") else y
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class BasicBlock(nn.Module):
    def __init__(self, channels, planes, stride=1):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(channels, planes, 3, stride)
        self.conv2, self.bn2 = conv_bn(planes, planes, 3)
        if stride == 2 or channels != planes:
            self.downsample = nn.Sequential(*conv_bn(channels, planes, 1, stride))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet(nn.Module):
    def __init__(self, blocks, se=False, shuffle=False, basic=False, classes=0):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(3, 64, 7, 2)
        channels = 64
        for stage, count in enumerate(blocks):
            planes, layers = 64 * 2**stage, []
            for index in range(count):
                stride = 2 if stage and not index else 1
                if basic:
                    layers.append(BasicBlock(channels, planes, stride))
                else:
                    block = Bottleneck(channels, planes, stride, index == 0, se, shuffle)
                    layers.append(block)
                channels = planes * (1 if basic else 4)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        if classes:
            self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Duc(nn.Module):
    def __init__(self, channels, features):
        super().__init__()
        self.conv, self.bn = conv_bn(channels, features, 3)

    def forward(self, x):
        return nn.functional.pixel_shuffle(torch.relu(self.bn(self.conv(x))), 2)


class FastPose(nn.Module):
    def __init__(self, blocks, joints, se=True, last=512):
        super().__init__()
        self.preact = ResNet(blocks, se)
        self.duc1, self.duc2 = Duc(512, 1024), Duc(256, last)
        self.conv_out = conv(last // 4, joints, 3, bias=True)

    def forward(self, x):
        x = nn.functional.pixel_shuffle(self.preact(x), 2)
        return self.conv_out(self.duc2(self.duc1(x)))


class FastPoseDuc(nn.Module):
    def __init__(self, blocks, joints, se=True, shuffle=False):
        super().__init__()
        self.preact = ResNet(blocks, se, shuffle)
        self.duc1 = self.stage(512, 512, 512, 512, 1024)
        self.duc2 = self.stage(256, 256, 512)
        self.duc3 = self.stage(128, 256)
        self.conv_out = conv(256, joints, 3, bias=True)

    def stage(self, channels, *widths):
        layers = [nn.PixelShuffle(2)]
        for width in widths:
            layers += [*conv_bn(channels, width, 3), nn.ReLU()]
            channels = width
        return nn.Sequential(*layers)

    def forward(self, x):
        return self.conv_out(self.duc3(self.duc2(self.duc1(self.preact(x)))))


class SimplePose(nn.Module):
    def __init__(self, blocks, joints):
        super().__init__()
        self.preact = ResNet(blocks)
        layers, channels = [], 2048
        for _ in range(3):
            layers += [nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(256), nn.ReLU()]
            channels = 256
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = conv(256, joints, 1, bias=True)

    def forward(self, x):
        return self.final_layer(self.deconv_layers(self.preact(x)))


class HighResolutionModule(nn.Module):
    def __init__(self, widths, outputs, blocks):
        super().__init__()
        blocks = [[BasicBlock(width, width) for _ in range(blocks)] for width in widths]
        self.branches = nn.ModuleList(nn.Sequential(*of_branch) for of_branch in blocks)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.bring(widths, j, i) for j in range(len(widths)))
            for i in range(outputs)
        )

    def bring(self, widths, source, target):
        if source == target:
            return nn.Identity()
        if source > target:
            layers = conv_bn(widths[source], widths[target], 1)
            return nn.Sequential(*layers, nn.Upsample(scale_factor=2 ** (source - target)))
        steps = []
        for step in range(source, target):
            last = step == target - 1
            layers = conv_bn(widths[source], widths[target if last else source], 3, 2)
            steps.append(nn.Sequential(*layers, *([] if last else [nn.ReLU()])))
        return nn.Sequential(*steps)

    def forward(self, x):
        x = [branch(y) for branch, y in zip(self.branches, x, strict=True)]
        return [
            torch.relu(sum(bring(y) for bring, y in zip(of_output, x, strict=True)))
            for of_output in self.fuse_layers
        ]


class HRNet(nn.Module):
    def __init__(self, width, joints, stages=((2, 1), (3, 4), (4, 3)), blocks=4):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(3, 64, 3, 2)
        self.conv2, self.bn2 = conv_bn(64, 64, 3, 2)
        self.layer1 = nn.Sequential(
            *(Bottleneck(256 if i else 64, 64, project=i == 0) for i in range(4))
        )
        widths = [width * 2**i for i in range(4)]
        first = nn.Sequential(*conv_bn(256, width, 3), nn.ReLU())
        self.transition1 = nn.ModuleList([first, self.coarser(256, widths[1])])
        for stage, count in stages:
            outputs = [1 if stage == 4 and i == count - 1 else stage for i in range(count)]
            modules = [HighResolutionModule(widths[:stage], out, blocks) for out in outputs]
            setattr(self, f"stage{stage}", nn.ModuleList(modules))
            if stage < 4:
                last = self.coarser(widths[stage - 1], widths[stage])
                kept = [nn.Identity() for _ in range(stage)]
                setattr(self, f"transition{stage}", nn.ModuleList([*kept, last]))
        self.final_layer = conv(width, joints, 1, bias=True)

    def coarser(self, channels, features):
        return nn.Sequential(nn.Sequential(*conv_bn(channels, features, 3, 2), nn.ReLU()))

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer1(torch.relu(self.bn2(self.conv2(x))))
        y = [transition(x) for transition in self.transition1]
        for stage, following in ((2, "transition2"), (3, "transition3"), (4, "")):
            for module in getattr(self, f"stage{stage}"):
                y = module(y)
            if following:
                y.append(getattr(self, following)[-1](y[-1]))
        return self.final_layer(y[0])


def randomized(network, seed=0):
    """Sets random weights and batch norm statistics; returns the network in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                weight = module.weight
                weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.2, generator=generator)
    return network.eval()
