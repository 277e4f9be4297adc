"""Reference implementations of the networks' layers, in NumPy and in torch.

Reference arrays are NCHW and float64. Each test file reimplements its network as a function of a
`Twin`, which finds the weights by their checkpoint names. The fixture `assert_twins` compares it
with our network, with both NumPy and torch.
"""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def checkpoint_state(variables) -> dict[str, jax.Array]:
    """Converts our variables to the names and layouts of published torch checkpoints."""
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    state = {}
    for path, value in jax.tree.leaves_with_path(
        (variables["params"], variables.get("batch_stats", {}))
    ):
        *modules, leaf = (entry.key for entry in path[1:])
        name = re.sub(r"_(\d+)", r".\1", ".".join(modules))
        if value.ndim == 4 and "deconv" in name:
            value = value[::-1, ::-1].transpose(2, 3, 0, 1)
        elif value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        key = f"{name}.{leaves.get(leaf, leaf)}"
        assert key not in state
        state[key] = value.T if value.ndim == 2 else value
    return state


def conv2d(x, weight, bias=None, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    y = np.einsum("bchwij,ocij->bohw", windows, weight, optimize=True)
    return y if bias is None else y + bias[:, None, None]


def conv_transpose2d(x, weight, bias=None, stride=1, padding=0):
    (b, _, h, w), (_, c, size, _) = x.shape, weight.shape
    y = np.zeros((b, c, (h - 1) * stride + size, (w - 1) * stride + size))
    for i, j in np.ndindex(size, size):
        contribution = np.einsum("bchw,co->bohw", x, weight[:, :, i, j])
        y[:, :, i : i + h * stride : stride, j : j + w * stride : stride][:, :, :h, :w] += (
            contribution
        )
    return y[:, :, padding : y.shape[2] - padding, padding : y.shape[3] - padding]


def max_pool2d(x, size, stride, padding=0):
    pad = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    x = np.pad(x, pad, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
    return windows[:, :, ::stride, ::stride].max(axis=(-2, -1))


def batch_norm(x, mean, var, weight, bias):
    mean, var, weight, bias = (v[:, None, None] for v in (mean, var, weight, bias))
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def pixel_shuffle(x):
    b, c, h, w = x.shape
    y = np.zeros((b, c // 4, 2 * h, 2 * w))
    for i, j in np.ndindex(2, 2):
        y[:, :, i::2, j::2] = x[:, 2 * i + j :: 4]
    return y


def pixel_unshuffle(x):
    b, c, h, w = x.shape
    y = np.zeros((b, 4 * c, h // 2, w // 2))
    for i, j in np.ndindex(2, 2):
        y[:, 2 * i + j :: 4] = x[:, :, i::2, j::2]
    return y


def numpy_ops() -> types.SimpleNamespace:
    return types.SimpleNamespace(
        conv2d=conv2d,
        conv_transpose2d=conv_transpose2d,
        max_pool2d=max_pool2d,
        batch_norm=batch_norm,
        linear=lambda x, weight, bias: x @ weight.T + bias,
        pixel_shuffle=pixel_shuffle,
        pixel_unshuffle=pixel_unshuffle,
        upsample=lambda x, factor: np.kron(x, np.ones((factor, factor))),
    )


def torch_ops() -> types.SimpleNamespace:
    torch = pytest.importorskip("torch")
    F = torch.nn.functional

    def on_arrays(function):
        def call(*args):
            args = [torch.from_numpy(a.copy()) if isinstance(a, np.ndarray) else a for a in args]
            return function(*args).numpy()

        return call

    functions = {
        "conv2d": F.conv2d,
        "conv_transpose2d": F.conv_transpose2d,
        "max_pool2d": F.max_pool2d,
        "batch_norm": F.batch_norm,
        "linear": F.linear,
        "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
        "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
        "upsample": lambda x, factor: F.interpolate(x, scale_factor=factor, mode="nearest"),
    }
    return types.SimpleNamespace(**{name: on_arrays(f) for name, f in functions.items()})


class Twin:
    """The layers of a network by checkpoint name; `ops` implements the arithmetic."""

    def __init__(self, ops, variables):
        self.ops = ops
        self.state = {k: np.asarray(v, np.float64) for k, v in checkpoint_state(variables).items()}

    def conv(self, x, name, stride=1):
        weight = self.state[f"{name}.weight"]
        bias = self.state.get(f"{name}.bias")
        return self.ops.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)

    def deconv(self, x, name):
        return self.ops.conv_transpose2d(x, self.state[f"{name}.weight"], None, 2, 1)

    def linear(self, x, name):
        return self.ops.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, x, name):
        leaves = ("running_mean", "running_var", "weight", "bias")
        return self.ops.batch_norm(x, *(self.state[f"{name}.{leaf}"] for leaf in leaves))

    def basic_block(self, x, name, stride=1):
        y = np.maximum(self.norm(self.conv(x, f"{name}conv1", stride), f"{name}bn1"), 0)
        y = self.norm(self.conv(y, f"{name}conv2"), f"{name}bn2")
        return self.add(x, y, name, stride)

    def bottleneck(self, x, name, stride=1):
        y = np.maximum(self.norm(self.conv(x, f"{name}conv1"), f"{name}bn1"), 0)
        if f"{name}conv2.1.weight" in self.state:
            y = self.conv(self.ops.pixel_unshuffle(y), f"{name}conv2.1")
        else:
            y = self.conv(y, f"{name}conv2", stride)
        y = np.maximum(self.norm(y, f"{name}bn2"), 0)
        y = self.norm(self.conv(y, f"{name}conv3"), f"{name}bn3")
        return self.add(x, y, name, stride)

    def add(self, x, y, name, stride):
        if f"{name}se.fc.0.weight" in self.state:
            scale = np.maximum(self.linear(y.mean((2, 3)), f"{name}se.fc.0"), 0)
            scale = 1 / (1 + np.exp(-self.linear(scale, f"{name}se.fc.2")))
            y = y * scale[:, :, None, None]
        if f"{name}downsample.0.weight" in self.state:
            x = self.norm(self.conv(x, f"{name}downsample.0", stride), f"{name}downsample.1")
        return np.maximum(x + y, 0)

    def resnet18(self, x):
        x = np.maximum(self.norm(self.conv(x, "preact.conv1", 2), "preact.bn1"), 0)
        x = self.ops.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = self.basic_block(x, f"preact.layer{stage}.0.", stride=1 if stage == 1 else 2)
            x = self.basic_block(x, f"preact.layer{stage}.1.")
        return x


@pytest.fixture(params=["numpy", "torch"])
def ops(request):
    """Reference arithmetic on NCHW arrays."""
    return numpy_ops() if request.param == "numpy" else torch_ops()


def random_variables(module, x, seed=0):
    """Random variables: no entry is zero or one, so each has an effect."""
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        kind = path[-1].key
        noise = rng.standard_normal(leaf.shape)
        if kind == "kernel":
            return jnp.asarray(noise / np.sqrt(np.prod(leaf.shape[:-1])), leaf.dtype)
        return jnp.asarray(1 + 0.2 * np.abs(noise) if kind in ("scale", "var") else 0.2 * noise)

    return jax.tree.map_with_path(draw, shapes)


@functools.cache
def run(module, size, channels):
    """Input, variables and output of a module; cached, because both references use them."""
    x = np.random.default_rng(1).standard_normal((2, *size, channels)).astype(np.float32)
    variables = random_variables(module, x)
    return x, variables, jax.jit(module.apply)(variables, x)


@pytest.fixture
def assert_twins(ops):
    """assert_twins(module, size, channels, function): module equals function(twin, x NCHW)."""

    def check(module, size, channels, function):
        x, variables, actual = run(module, size, channels)
        expected = function(Twin(ops, variables), x.transpose(0, 3, 1, 2).astype(np.float64))
        for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            theirs = theirs.transpose(0, 2, 3, 1)
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())

    return check


@pytest.fixture(name="random_variables")
def random_variables_fixture():
    """random_variables(module, x): variables without zeros or ones."""
    return random_variables


@pytest.fixture(name="checkpoint_state")
def checkpoint_state_fixture():
    """checkpoint_state(variables): our variables as a published checkpoint has them."""
    return checkpoint_state
