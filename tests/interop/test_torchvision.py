"""Files with torchvision's names, as initial weights of backbones and localization networks."""

import jax
import numpy as np
import pytest
from flax import traverse_util
from torch_files import random_variables, shapes_of, torch_state, zeros

from rmpe_jax.errors import UserError
from rmpe_jax.interop.resnet import localization_variables, resnet_variables
from rmpe_jax.models import resnet
from rmpe_jax.models.localization import ResNet18Localization


def state_of(variables):
    """torchvision's state dict of a ResNet, including the classifier."""
    classifier = {"fc.weight": np.zeros((10, 7), np.float32), "fc.bias": np.zeros(10, np.float32)}
    return torch_state(variables) | classifier


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((2, 64, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(("depth", "blocks"), [(18, (2, 2, 2, 2)), (50, (2, 1, 1, 1))])
def test_backbone_computes_the_same_as_in_torch(monkeypatch, images, depth, blocks):
    torch = pytest.importorskip("torch")
    import torch_networks as twins  # beside this file; it needs torch

    monkeypatch.setitem(resnet.NUM_BLOCKS, depth, blocks)
    network = twins.randomized(twins.ResNet(blocks, basic=depth == 18, classes=10))
    module, x = resnet.ResNet(depth), images
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    variables = resnet_variables(shapes_of(module), state)
    with torch.no_grad():
        expected = network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    expected = expected.transpose(0, 2, 3, 1)
    actual = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("depth", "se", "shuffle"),
    [
        (18, False, False),
        (18, True, True),
        (50, False, False),
        (50, True, False),
        (50, True, True),
        pytest.param(101, False, False, marks=pytest.mark.slow),
        pytest.param(152, True, False, marks=pytest.mark.slow),
    ],
)
def test_every_depth_is_supported(depth, se, shuffle):
    expected = shapes_of(resnet.ResNet(depth, se=se, shuffle=shuffle))
    loaded = resnet_variables(expected, state_of(zeros(resnet.ResNet(depth))))
    ours = traverse_util.flatten_dict(dict(expected))
    missing = {path for path in ours if path not in traverse_util.flatten_dict(loaded)}
    kinds = {path[2] for path in missing}
    unshuffling = {"conv1_1" if depth < 50 else "conv2_1"} if shuffle else set()
    assert kinds == ({"se"} if se else set()) | unshuffling


def test_another_depth_or_network_is_refused():
    state = state_of(zeros(resnet.ResNet(18)))
    with pytest.raises(UserError, match=r"lacks layer1.0.bn3.* and \d+ more$"):
        resnet_variables(shapes_of(resnet.ResNet(50)), state)
    with pytest.raises(UserError, match=r"has layer3.2.conv1.weight.*unknown to this network"):
        resnet_variables(
            shapes_of(resnet.ResNet(18)), state | {"layer3.2.conv1.weight": np.zeros(3)}
        )
    lacking = {name: value for name, value in state.items() if "layer3.0.downsample" not in name}
    with pytest.raises(UserError, match=r"lacks layer3.0_shortcut"):
        localization_variables(shapes_of(ResNet18Localization()), lacking)


def test_localization_computes_the_same(images):
    """theta is the mean of a ResNet-18's features times a matrix."""
    backbone = resnet.ResNet(18)
    variables = random_variables(backbone)
    module = ResNet18Localization()
    loaded = localization_variables(shapes_of(module), state_of(variables))
    assert "theta" not in loaded["params"]
    weight = np.random.default_rng(1).standard_normal((512, 6)).astype(np.float32)
    theta = {"kernel": weight, "bias": np.zeros(6, np.float32)}
    expected = jax.jit(backbone.apply)(variables, images).mean((1, 2)) @ weight
    variables = loaded | {"params": loaded["params"] | {"theta": theta}}
    actual = jax.jit(module.apply)(variables, images).reshape(2, 6)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
