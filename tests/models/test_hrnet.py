import numpy as np
import pytest

from rmpe_jax.models.hrnet import HRNet


def layer(twin, x, name, stride=1, relu=True):
    y = twin.norm(twin.conv(x, f"{name}.0", stride), f"{name}.1")
    return np.maximum(y, 0) if relu else y


def fuse(twin, x, name, target, source):
    if source > target:
        return twin.ops.upsample(layer(twin, x, name, relu=False), 2 ** (source - target))
    for step in range(target - source):
        x = layer(twin, x, f"{name}.{step}", 2, relu=step < target - source - 1)
    return x


def module(twin, branches, name, num_outputs):
    for i in range(len(branches)):
        for index in range(4):
            branches[i] = twin.basic_block(branches[i], f"{name}branches.{i}.{index}.")
    return [
        np.maximum(
            sum(fuse(twin, x, f"{name}fuse_layers.{i}.{j}", i, j) for j, x in enumerate(branches)),
            0,
        )
        for i in range(num_outputs)
    ]


def hrnet(twin, x):
    for index in "12":
        x = np.maximum(twin.norm(twin.conv(x, f"conv{index}", 2), f"bn{index}"), 0)
    for index in range(4):
        x = twin.bottleneck(x, f"layer1.{index}.")
    y = [layer(twin, x, "transition1.0"), layer(twin, x, "transition1.1.0", 2)]
    y = module(twin, y, "stage2.0.", 2)
    y.append(layer(twin, y[-1], "transition2.2.0", 2))
    for index in range(4):
        y = module(twin, y, f"stage3.{index}.", 3)
    y.append(layer(twin, y[-1], "transition3.3.0", 2))
    for index in range(3):
        y = module(twin, y, f"stage4.{index}.", 4 if index < 2 else 1)
    return twin.conv(y[0], "final_layer")


@pytest.mark.slow
def test_hrnet(assert_twins):
    assert_twins(HRNet(5, width=2), (64, 32), 3, hrnet)
