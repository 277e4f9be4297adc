import jax
import numpy as np
import pytest

from rmpe_jax.models.resnet import BasicBlock, Bottleneck, ResNet


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("se", [False, True])
def test_basic_block(assert_twins, stride, se):
    block = BasicBlock(8, stride=stride, se=se)
    assert_twins(block, (8, 6), 8, lambda twin, x: twin.basic_block(x, "", stride))


@pytest.mark.parametrize(("stride", "channels"), [(1, 16), (1, 8), (2, 16)])
@pytest.mark.parametrize("se", [False, True])
def test_bottleneck(assert_twins, stride, channels, se):
    block = Bottleneck(4, stride=stride, se=se)
    assert_twins(block, (8, 6), channels, lambda twin, x: twin.bottleneck(x, "", stride))


def test_shuffling_bottleneck(assert_twins):
    block = Bottleneck(4, stride=2, se=True, shuffle=True)
    assert_twins(block, (8, 6), 8, lambda twin, x: twin.bottleneck(x, "", 2))


def names(depth, **options):
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    net = ResNet(depth, **options)
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x), x)["params"]


@pytest.mark.parametrize("depth", [18, 50])
def test_squeeze_excite_only_in_first_blocks(depth):
    first = {name for name, block in names(depth, se=True).items() if "se" in block}
    assert first == {"layer1_0", "layer2_0", "layer3_0", "layer4_0"}
    assert not any("se" in block for block in names(depth).values())


def test_only_striding_blocks_shuffle():
    blocks = {name for name, block in names(50, shuffle=True).items() if "conv2_1" in block}
    assert blocks == {"layer2_0", "layer3_0", "layer4_0"}


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (18, 8),
        (34, 16),
        (50, 16),
        pytest.param(101, 33, marks=pytest.mark.slow),
        pytest.param(152, 50, marks=pytest.mark.slow),
    ],
)
def test_depth(depth, blocks):
    assert sum(name.startswith("layer") for name in names(depth)) == blocks
