"""Central differences of losses with a known gradient, beside automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.ops.differences import (
    ENTRIES,
    NUM_PROBES,
    central_differences,
    probe_thetas,
    with_gradient,
)
from rmpe_jax.ops.spatial_transformer import affine_sample

SIZE = (33, 49)
STEP = 0.25
IDENTITY = np.eye(2, 3, dtype=np.float32)


def differences(loss, theta, step=STEP):
    """The central differences of a loss of one theta (2, 3), for several thetas."""
    return central_differences(jax.vmap(jax.vmap(loss))(probe_thetas(theta, step)), step)


def thetas(count):
    noise = np.random.default_rng(0).normal(0, 0.3, (count, 2, 3))
    return jnp.asarray(IDENTITY + noise, jnp.float32)


def position(view):
    """The mean position (x, y) of a view's brightness, in normalized coordinates."""
    y, x = (np.linspace(-1, 1, size)[:, None] for size in SIZE)
    return jnp.stack([(view * x.T).sum(), (view * y).sum()]) / view.sum()


def blob(x, y, sigma=0.08):
    rows, columns = (np.linspace(-1, 1, size) for size in SIZE)
    squares = (columns - x) ** 2 + (rows[:, None] - y) ** 2
    return jnp.asarray(np.exp(-squares / (2 * sigma**2)), jnp.float32)[..., None]


def test_probes_are_a_step_ahead_and_a_step_behind_in_one_entry_each():
    theta = thetas(3)
    moves = np.asarray(probe_thetas(theta, 0.1) - theta[:, None])
    assert moves.shape == (3, NUM_PROBES, 2, 3)
    for number, entry in enumerate(ENTRIES):
        expected = np.zeros((2, 3))
        expected[entry] = 0.1
        np.testing.assert_allclose(moves[:, number], np.tile(expected, (3, 1, 1)), atol=1e-6)
        np.testing.assert_allclose(moves[:, number + 4], -moves[:, number], atol=1e-6)


@pytest.mark.parametrize("step", [0.05, 0.25])
def test_they_are_the_gradient_of_a_quadratic_loss(step):
    rng = np.random.default_rng(1)
    curvature = jnp.asarray(rng.normal(size=(6, 6)), jnp.float32)
    target = jnp.asarray(rng.normal(size=6), jnp.float32)

    def loss(theta):
        difference = theta.reshape(6) - target
        return difference @ curvature @ difference

    theta = thetas(5)
    gradient = np.asarray(jax.vmap(jax.grad(loss))(theta))
    found = np.asarray(differences(loss, theta, step))
    for entry in ENTRIES:
        np.testing.assert_allclose(found[:, *entry], gradient[:, *entry], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found[:, (0, 1), (1, 0)], 0)
    again = jax.jit(lambda theta: differences(loss, theta, step))(theta)
    np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-4)


def test_the_slope_to_a_shifted_blob():
    """A blob at (.3, -.2) is at (.3 - t_x, -.2 - t_y) of the view, and should be in its middle."""
    image = blob(0.3, -0.2)

    def loss(theta):
        return (position(affine_sample(image, theta, SIZE)[..., 0]) ** 2).sum() / 2

    theta = jnp.asarray(IDENTITY[None])
    slopes = np.asarray(differences(loss, theta))[0]
    np.testing.assert_allclose(slopes[:, 2], [-0.3, 0.2], atol=0.01)
    for _ in range(30):
        slopes = differences(loss, theta)
        theta -= 0.3 * slopes.at[:, :, :2].set(0)
    np.testing.assert_allclose(theta[0, :, 2], [0.3, -0.2], atol=0.005)


def test_they_do_not_see_the_roughness_of_sampling():
    """A checkered image is sharpest at the identity: a peak with no slope, which autodiff misses.

    It gives the slope of one side of the peak.
    """
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = jnp.asarray((x + y) % 2, jnp.float32)[..., None] - 0.5

    def loss(theta):
        view = affine_sample(image, theta, SIZE)
        return (view[4:-4, 4:-4] ** 2).mean()

    step = 1 / 48  # half a pixel in x
    found = np.asarray(differences(loss, jnp.asarray(IDENTITY[None]), step))[0]
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(IDENTITY)))
    steepest = 0.25 / step  # from sharp to gray in half a pixel
    assert abs(found[0, 2]) < 0.02 * steepest
    assert abs(gradient[0, 2]) > 0.5 * steepest


def test_a_number_with_a_given_gradient():
    theta, gradient = thetas(2), jnp.arange(12.0).reshape(2, 2, 3)
    value, slopes = jax.value_and_grad(with_gradient, argnums=(0, 1))(theta, gradient)
    assert float(value) == 0
    np.testing.assert_array_equal(slopes[0], gradient)
    np.testing.assert_array_equal(slopes[1], 0)
