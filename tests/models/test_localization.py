"""The localization networks: the paper's network layer by layer, and properties of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.models.localization import (
    LOCALIZATION_NAMES,
    ResNet18Localization,
    SmallLocalization,
    build_localization,
)

IDENTITY = np.eye(2, 3, dtype=np.float32)
TINY = SmallLocalization(widths=(4, 8))


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_the_papers_layers(ops, random_variables, checkpoint_state):
    """RMPE, §4.2: biased convolutions, shortcuts without norm, average pool, 512 -> 6."""
    x = noise(2, 64, 48, 3)
    net = ResNet18Localization()
    variables = random_variables(net, x)
    state = {k: np.asarray(v, np.float64) for k, v in checkpoint_state(variables).items()}

    def conv(x, name, stride=1):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return ops.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)

    def norm(x, name):
        leaves = ("running_mean", "running_var", "weight", "bias")
        return ops.batch_norm(x, *(state[f"{name}.{leaf}"] for leaf in leaves))

    def block(x, name, stride):
        y = np.maximum(norm(conv(x, f"{name}_conv1", stride), f"{name}_bn1"), 0)
        y = norm(conv(y, f"{name}_conv2"), f"{name}_bn2")
        projected = f"{name}_shortcut.weight" in state
        return np.maximum(y + (conv(x, f"{name}_shortcut", stride) if projected else x), 0)

    y = np.maximum(norm(conv(x.transpose(0, 3, 1, 2).astype(np.float64), "conv1", 2), "bn1"), 0)
    y = ops.max_pool2d(y, 3, 2, 1)
    for stage in (1, 2, 3, 4):
        y = block(y, f"layer{stage}.0", 1 if stage == 1 else 2)
        y = block(y, f"layer{stage}.1", 1)
    expected = ops.linear(y.mean((2, 3)), state["theta.weight"], state["theta.bias"])

    theta = jax.jit(net.apply)(variables, x)
    np.testing.assert_allclose(theta.reshape(2, 6), expected, atol=2e-5 * np.abs(expected).max())
    projections = {name for name in state if "shortcut.weight" in name}
    assert projections == {f"layer{stage}.0_shortcut.weight" for stage in (2, 3, 4)}


def test_the_papers_parameters():
    shapes = jax.eval_shape(
        ResNet18Localization().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )["params"]
    # torchvision's ResNet-18 has 11,689,512 parameters: 513,000 of the classifier and 1,792 of the
    # norms of three shortcuts are removed. Theta adds 6 x 513, and 4,800 channels get a bias.
    expected = 11_689_512 - 513_000 - 1_792 + 6 * 513 + 4_800
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(TINY, id="small"),
        pytest.param(ResNet18Localization(), id="resnet18", marks=pytest.mark.slow),
    ],
)
def test_starts_as_the_identity(net):
    x = jnp.asarray(noise(2, 32, 24, 3))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    for train in (False, True):
        theta, _ = net.apply(variables, x, train=train, mutable=["batch_stats"])
        assert theta.dtype == jnp.float32
        assert (theta == IDENTITY).all()


@pytest.mark.slow
def test_the_first_gradient_reaches_only_the_last_layer():
    x = jnp.asarray(noise(2, 32, 24, 3))
    variables = TINY.init(jax.random.key(0), x)

    def loss(params):
        theta, _ = TINY.apply(
            variables | {"params": params}, x, train=True, mutable=["batch_stats"]
        )
        return ((theta - 0.5) ** 2).sum()

    gradient = jax.grad(loss)(variables["params"])
    assert all(jnp.abs(g).max() > 0 for g in jax.tree.leaves(gradient["theta"]))
    rest = {name: g for name, g in gradient.items() if name != "theta"}
    assert all((g == 0).all() for g in jax.tree.leaves(rest))


@pytest.mark.slow
def test_small_network_can_tell_where_something_is():
    """Shifting a spot changes a weighted sum of the features, unlike after average pooling."""
    net = SmallLocalization(widths=(4, 8, 8))
    x = np.zeros((2, 32, 32, 3), np.float32)
    x[0, 8, 8], x[1, 8, 24] = 1, 1  # by 16 pixels, the stride of the last feature map
    x = jnp.asarray(x)
    variables = net.init(jax.random.key(0), x)
    variables["params"]["theta"]["kernel"] = jnp.asarray(noise(2 * 2 * 8, 6))
    theta = net.apply(variables, x)
    assert jnp.abs(theta[0] - theta[1]).max() > 1e-3


def test_small_network_is_small():
    """Under 1 % of the 5.89 GMAC of FastPose-R50 at 256x192."""
    sizes = [(128, 96), (64, 48), (32, 24), (16, 12), (8, 6), (4, 3)]
    widths = (3, *SmallLocalization().widths)
    macs = sum(
        height * width * 9 * before * after
        for (height, width), before, after in zip(sizes[1:], widths[:-1], widths[1:], strict=True)
    )
    assert macs < 0.01 * 5.89e9
    shapes = jax.eval_shape(
        SmallLocalization().init, jax.random.key(0), jnp.zeros((1, 256, 192, 3))
    )["params"]
    assert shapes["theta"]["kernel"].shape == (4 * 3 * widths[-1], 6)


@pytest.mark.parametrize("name", LOCALIZATION_NAMES)
def test_theta_is_float32_in_bfloat16_networks(name):
    net = build_localization(name, jnp.bfloat16)
    theta, variables = jax.eval_shape(
        lambda x: net.init_with_output(jax.random.key(0), x), jnp.zeros((2, 64, 64, 3))
    )
    assert (theta.shape, theta.dtype) == ((2, 2, 3), jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_unknown_name():
    with pytest.raises(UserError, match=r"no 'resnet-18'; did you mean 'resnet18'\?"):
        build_localization("resnet-18")
