import jax
import numpy as np
import pytest

from rmpe_jax.models.hourglass import Hourglass, Residual, StackedHourglass


def residual(twin, x, name=""):
    y = x
    for i in "123":
        y = twin.conv(np.maximum(twin.norm(y, f"{name}bn{i}"), 0), f"{name}conv{i}")
    return y + (twin.conv(x, f"{name}skip") if f"{name}skip.weight" in twin.state else x)


def hourglass(twin, x, name="", depth=4):
    low = residual(twin, twin.ops.max_pool2d(x, 2, 2, 0), f"{name}down.")
    if depth > 1:
        low = hourglass(twin, low, f"{name}inner.", depth - 1)
    else:
        low = residual(twin, low, f"{name}bottom.")
    low = residual(twin, low, f"{name}up.")
    return residual(twin, x, f"{name}skip.") + twin.ops.upsample(low, 2)


def stacked(twin, x):
    x = np.maximum(twin.norm(twin.conv(x, "conv1", 2), "bn1"), 0)
    x = twin.ops.max_pool2d(residual(twin, x, "stem.1."), 2, 2, 0)
    x = residual(twin, residual(twin, x, "stem.2."), "stem.3.")
    heatmaps = []
    for stack in "01":
        y = residual(twin, hourglass(twin, x, f"hourglass.{stack}."), f"residual.{stack}.")
        y = np.maximum(twin.norm(twin.conv(y, f"linear.{stack}"), f"linear_bn.{stack}"), 0)
        heatmaps.append(twin.conv(y, f"heatmaps.{stack}"))
        if stack == "0":
            x = x + twin.conv(y, "remap_features.0") + twin.conv(heatmaps[0], "remap_heatmaps.0")
    return heatmaps


@pytest.mark.parametrize("channels", [8, 6])
def test_residual(assert_twins, channels):
    assert_twins(Residual(8), (5, 4), channels, residual)


@pytest.mark.slow
def test_hourglass(assert_twins):
    assert_twins(Hourglass(depth=2), (8, 4), 8, lambda twin, x: hourglass(twin, x, depth=2))


@pytest.mark.slow
def test_stacked_hourglass(assert_twins):
    assert_twins(StackedHourglass(5, num_stacks=2, features=8), (64, 128), 3, stacked)


@pytest.mark.parametrize("num_stacks", [2, 3])
def test_parameter_count_by_hand(num_stacks):
    def conv(features, out, kernel=1):
        return (features * kernel**2 + 1) * out

    def residual(features, out):
        half = out // 2
        norms = 2 * (features + 2 * half)
        convs = conv(features, half) + conv(half, half, 3) + conv(half, out)
        return norms + convs + (conv(features, out) if features != out else 0)

    stem = conv(3, 64, 7) + 2 * 64 + residual(64, 128) + residual(128, 128) + residual(128, 256)
    stack = (13 + 1) * residual(256, 256) + conv(256, 256) + 2 * 256 + conv(256, 16)
    remaps = conv(256, 256) + conv(16, 256)
    net = StackedHourglass(16, num_stacks)
    x = jax.ShapeDtypeStruct((1, 256, 256, 3), np.float32)
    params = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), x)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == stem + num_stacks * stack + (num_stacks - 1) * remaps
