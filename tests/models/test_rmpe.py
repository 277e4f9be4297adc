"""The composed network: frames, stacks, and gradients and updates of the frozen branch."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_program import compiled

from rmpe_jax.codecs.view import ViewHeatmaps
from rmpe_jax.models import rmpe
from rmpe_jax.models.layers import BatchNorm
from rmpe_jax.models.localization import SmallLocalization
from rmpe_jax.models.rmpe import RMPE, TrainingOutputs
from rmpe_jax.ops import geometry, heatmaps
from rmpe_jax.ops.differences import probe_thetas

SIZE = (32, 24)
THETA = np.array([[0.8, 0.05, 0.12], [-0.04, 0.9, -0.1]], np.float32)
stn = compiled(rmpe.stn, 2)
sdtn = compiled(rmpe.sdtn, 2, 3, 4)
encode = compiled(heatmaps.encode, 2, 3)
decode = compiled(heatmaps.decode, 1, 2)


class TinySppe(nn.Module):
    """A convolution, a batch norm, pooling to a quarter of the size; one output per stack."""

    stacks: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.relu(BatchNorm(train, name="bn")(x))
        x = nn.avg_pool(x, (4, 4), strides=(4, 4))
        maps = [nn.Conv(2, (1, 1), name=f"out{i}")(x) for i in range(self.stacks)]
        return maps if self.stacks > 1 else maps[0]


class Pooling(nn.Module):
    """A perfect estimator: the inputs are heatmaps, which it scales to a quarter of the size."""

    def __call__(self, x, train=False):
        return nn.avg_pool(x, (4, 4), strides=(4, 4))


class FixedTheta(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return jnp.tile(self.param("theta", lambda _: jnp.asarray(THETA)), (len(x), 1, 1))


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def trained(net, variables, x):
    return net.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])


apply = compiled(lambda net, variables, x: net.apply(variables, x), 0)
apply_in_training = compiled(trained, 0)


@functools.cache
def initial(net):
    return compiled(net.init)(jax.random.key(0), noise(4, *SIZE, 3))


def network(**options):
    parts = {"sppe": TinySppe(), "localization": SmallLocalization(widths=(4, 8))}
    net = RMPE(**(parts | options))
    variables = initial(net.clone(difference_step=None))
    return net, jax.tree.map(np.copy, variables), noise(4, *SIZE, 3)


def part(variables, name):
    """The variables of one submodule."""
    return {kind: trees[name] for kind, trees in variables.items()}


def with_head(variables, scale=0.1):
    """Variables whose localization network no longer gives the identity."""
    kernel = variables["params"]["localization"]["theta"]["kernel"]
    variables["params"]["localization"]["theta"]["kernel"] = scale * noise(*kernel.shape)
    return variables


@pytest.mark.parametrize("stacks", [1, 3])
def test_begins_as_the_estimator_alone(stacks):
    net, variables, x = network(sppe=TinySppe(stacks))
    found, alone = apply(net, variables, x), apply(net.sppe, part(variables, "sppe"), x)
    assert isinstance(found, list) == (stacks > 1)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
        assert ours.shape == (4, SIZE[0] // 4, SIZE[1] // 4, 2)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_stn_sppe_sdtn_one_after_the_other():
    net, variables, x = network()
    variables = with_head(variables)
    theta = compiled(lambda variables, x: net.apply(variables, x, method="theta"))(variables, x)
    assert np.abs(theta - np.eye(2, 3)).max() > 0.01
    expected = sdtn(apply(net.sppe, part(variables, "sppe"), stn(x, theta)), theta, SIZE)
    np.testing.assert_allclose(apply(net, variables, x), expected, atol=1e-5)


@pytest.mark.parametrize("logits", [False, True])
def test_heatmaps_are_in_the_crops_frame(logits):
    """For any theta, a pose that is correct in the view is correct in the crop."""
    points = np.float32([[[40, 60], [70, 50], [50, 90]]])
    x, _ = encode(points, np.ones((1, 3)), (128, 96), 8.0)
    net = RMPE(Pooling(), FixedTheta(), logits=logits)
    found, _ = jax.jit(net.init_with_output)(jax.random.key(0), x)
    decoded, _ = decode(found, "dark", 2.0)
    expected = geometry.transform_points(geometry.heatmap_from_crop((128, 96), (32, 24)), points)
    np.testing.assert_allclose(decoded, expected, atol=0.04)


def test_pixels_outside_the_view_get_the_background_value():
    """After zooming in, the border of the crop is filled with 0, or with the lowest logit."""
    theta = np.float32([[[0.5, 0, 0], [0, 0.5, 0]]])
    maps = np.full((1, 16, 12, 1), -3, np.float32)
    maps[0, 8, 6] = 5
    plain, logits = (sdtn(maps, theta, (64, 48), kind) for kind in (False, True))
    np.testing.assert_array_equal(plain[0, 0], 0)
    np.testing.assert_allclose(logits[0, 0], -3)
    assert logits.max() == logits[0, 8, 6]
    scale = sdtn(10 + maps, theta, (64, 48), True)
    np.testing.assert_allclose(scale, 10 + logits, atol=1e-5)


def test_without_sstn_it_is_the_plain_system():
    net, variables, x = network(parallel_sppe=TinySppe())
    plain, variables = net.clone(sstn=False), with_head(variables)
    alone = apply(net.sppe, part(variables, "sppe"), x)
    np.testing.assert_array_equal(apply(plain, variables, x), alone)
    found, moved = apply_in_training(plain, variables, x)
    assert found.shape == (4, SIZE[0] // 4, SIZE[1] // 4, 2)
    assert set(jax.eval_shape(plain.init, jax.random.key(0), x)["params"]) == {"sppe"}
    assert (moved["batch_stats"]["localization"]["bn0"]["mean"] == 0).all()


# ---- the parallel branch -------------------------------------------------------------------------


def parallel_network(stacks=1):
    net, variables, x = network(parallel_sppe=TinySppe(stacks))
    return net, with_head(variables), x


def test_parallel_branch_sees_the_view_and_has_no_sdtn():
    net, variables, x = parallel_network(stacks=2)
    found, _ = apply_in_training(net, variables, x)
    assert isinstance(found, TrainingOutputs)
    theta, _ = apply_in_training(net.localization, part(variables, "localization"), x)
    np.testing.assert_allclose(found.theta, theta, atol=1e-6)
    branch = part(variables, "parallel_sppe")
    expected = apply(net.parallel_sppe, branch, stn(x, theta))
    for ours, theirs in zip(found.parallel_heatmaps, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_parallel_branch_is_left_out_of_inference():
    net, variables, x = parallel_network()
    without = {
        kind: {name: tree for name, tree in trees.items() if name != "parallel_sppe"}
        for kind, trees in variables.items()
    }
    np.testing.assert_array_equal(apply(net, without, x), apply(net, variables, x))


def test_parallel_gradient_reaches_the_stn_alone():
    net, variables, x = parallel_network()

    def loss(params):
        outputs, _ = trained(net, variables | {"params": params}, x)
        return (outputs.parallel_heatmaps**2).sum()

    gradient = compiled(jax.grad(loss))(variables["params"])
    for name in ("sppe", "parallel_sppe"):
        assert all((g == 0).all() for g in jax.tree.leaves(gradient[name]))
    assert np.abs(gradient["localization"]["theta"]["kernel"]).max() > 0
    assert np.abs(gradient["localization"]["conv0"]["kernel"]).max() > 0


def test_parallel_branch_never_moves():
    """Parameters and statistics stay the same over steps of an optimizer on both losses."""
    net, variables, x = parallel_network()
    optimizer = optax.adam(0.1)

    @compiled
    def step(variables, opt_state):
        def loss(params):
            outputs, moved = trained(net, variables | {"params": params}, x)
            return sum(((y - 1) ** 2).mean() for y in jax.tree.leaves(outputs)), moved

        grads, moved = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state)
        return moved | {"params": optax.apply_updates(variables["params"], updates)}, opt_state

    start, opt_state = variables, compiled(optimizer.init)(variables["params"])
    for _ in range(3):
        variables, opt_state = step(variables, opt_state)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), start, variables)
    for kind in ("params", "batch_stats"):
        assert all(jax.tree.leaves(same[kind]["parallel_sppe"]))
        assert not any(jax.tree.leaves(same[kind]["sppe"]["bn"]))
        assert not any(jax.tree.leaves(same[kind]["localization"]))


# ---- guidance by differences, and decoding in the view -------------------------------------------


@pytest.mark.parametrize("stacks", [1, 2])
@pytest.mark.parametrize("has_branch", [True, False])
def test_probes_are_heatmaps_at_thetas_nearby(has_branch, stacks):
    """Of the parallel branch in the view, or of the SPPE in the crop; with fixed statistics."""
    branch = TinySppe(stacks) if has_branch else None
    net, variables, x = network(sppe=TinySppe(stacks), parallel_sppe=branch, difference_step=0.2)
    variables = with_head(variables)
    found, _ = apply_in_training(net, variables, x)
    thetas = compiled(probe_thetas, 1)(found.theta, 0.2)
    guide = part(variables, "parallel_sppe" if has_branch else "sppe")
    for number in (0, 6):
        expected = apply(TinySppe(stacks), guide, stn(x, thetas[:, number]))
        if not has_branch:
            expected = jax.tree.map(lambda m, n=number: sdtn(m, thetas[:, n], SIZE), expected)
        ours = jax.tree.map(lambda maps, n=number: maps[:, n], found.probe_heatmaps)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    same, _ = apply_in_training(net.clone(difference_step=None), variables, x)
    for a, b in zip(jax.tree.leaves(same.heatmaps), jax.tree.leaves(found.heatmaps), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert same.probe_heatmaps is None
    assert not isinstance(apply(net, variables, x), TrainingOutputs)


@pytest.mark.parametrize("has_branch", [True, False])
def test_with_differences_no_heatmap_has_a_gradient_in_theta(has_branch):
    branch = TinySppe() if has_branch else None
    net, variables, x = network(parallel_sppe=branch, difference_step=0.2)
    variables = with_head(variables)

    def loss(params, of):
        outputs, _ = trained(net, variables | {"params": params}, x)
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(of(outputs)))

    def moves(of):
        gradient = compiled(jax.grad(lambda p: loss(p, of)))(variables["params"])
        return {
            name for name, g in gradient.items() if any((x != 0).any() for x in jax.tree.leaves(g))
        }

    assert moves(lambda o: o.heatmaps) == {"sppe"}
    assert moves(lambda o: (o.parallel_heatmaps, o.probe_heatmaps)) == set()
    assert moves(lambda o: o.theta) == {"localization"}


def test_outside_of_training_the_view_can_be_given():
    net, variables, x = network()
    variables = with_head(variables)
    found = apply(net.clone(in_view=True), variables, x)
    assert isinstance(found, ViewHeatmaps)
    expected = apply(net.sppe, part(variables, "sppe"), stn(x, found.theta))
    np.testing.assert_allclose(found.heatmaps, expected, atol=1e-5)
    np.testing.assert_allclose(
        sdtn(found.heatmaps, found.theta, SIZE), apply(net, variables, x), atol=1e-5
    )
    trained, _ = apply_in_training(net.clone(in_view=True), variables, x)
    assert isinstance(trained, TrainingOutputs)
