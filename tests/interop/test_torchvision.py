"""torchvision's ResNets, of our own random torch twins: the same features come out."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from rmpe_jax.errors import UserError
from rmpe_jax.interop.resnet import localization_variables, resnet_variables
from rmpe_jax.models import resnet
from rmpe_jax.models.localization import ResNet18Localization

torch = pytest.importorskip("torch")
import torch_networks as twins  # noqa: E402 (beside this file; it needs torch)


def arrays(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def shapes(module, size=(64, 64)):
    x = np.zeros((1, *size, 3), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), x)


@functools.cache
def resnet18():
    """torchvision's, with a classifier, at an eighth of the ImageNet classes."""
    return twins.randomised(twins.ResNet((2, 2, 2, 2), basic=True, classes=125))


def test_backbone_computes_the_same(monkeypatch):
    monkeypatch.setitem(resnet.NUM_BLOCKS, 50, (2, 1, 1, 1))
    network = twins.randomised(twins.ResNet((2, 1, 1, 1), classes=10))
    module = resnet.ResNet(50)
    variables = resnet_variables(shapes(module), arrays(network))
    x = np.random.default_rng(0).standard_normal((2, 64, 32, 3)).astype(np.float32)
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
        (101, False, False),
        (152, True, False),
    ],
)
def test_every_depth_has_its_place(depth, se, shuffle):
    with torch.device("meta"):
        blocks, basic = resnet.NUM_BLOCKS[depth], depth < 50
        state = twins.ResNet(blocks, basic=basic, classes=1000).state_dict()
    state = {name: np.broadcast_to(np.float32(1), t.shape) for name, t in state.items()}
    expected = shapes(resnet.ResNet(depth, se=se, shuffle=shuffle))
    loaded = resnet_variables(expected, state)
    ours = traverse_util.flatten_dict(dict(expected))
    missing = {path for path in ours if path not in traverse_util.flatten_dict(loaded)}
    kinds = {path[2] for path in missing}
    unshuffling = {"conv1_1" if basic else "conv2_1"} if shuffle else set()
    assert kinds == ({"se"} if se else set()) | unshuffling


def test_another_depth_or_network_is_refused():
    state = arrays(resnet18())
    with pytest.raises(UserError, match=r"lacks layer1.0.bn3.* and \d+ more$"):
        resnet_variables(shapes(resnet.ResNet(50)), state)
    with pytest.raises(UserError, match=r"has layer3.2.conv1.weight.*no place"):
        resnet_variables(shapes(resnet.ResNet(18)), state | {"layer3.2.conv1.weight": np.zeros(3)})
    lacking = {name: value for name, value in state.items() if "layer3.0.downsample" not in name}
    with pytest.raises(UserError, match=r"lacks layer3.0_shortcut"):
        localization_variables(shapes(ResNet18Localization()), lacking)


def test_localization_computes_the_same():
    module = ResNet18Localization()
    loaded = localization_variables(shapes(module), arrays(resnet18()))
    assert "theta" not in loaded["params"]
    weight = np.random.default_rng(1).standard_normal((512, 6)).astype(np.float32)
    theta = {"kernel": weight, "bias": np.zeros(6, np.float32)}
    variables = loaded | {"params": loaded["params"] | {"theta": theta}}
    x = np.random.default_rng(0).standard_normal((2, 64, 32, 3)).astype(np.float32)
    with torch.no_grad():
        features = resnet18()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    expected = features.mean((2, 3)).numpy() @ weight
    actual = jax.jit(module.apply)(variables, x).reshape(2, 6)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
