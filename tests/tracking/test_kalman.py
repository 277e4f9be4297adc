"""The Kalman filter against the formulas with matrices, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.tracking import kalman


def reference(found, is_found, start_variance, velocity_variance, noise, acceleration):
    """State (x, y, vx, vy) of one point after each frame, with 4x4 matrices."""
    state = np.array([*found[0], 0, 0])
    covariance = np.diag([start_variance] * 2 + [velocity_variance] * 2)
    transition = np.eye(4) + np.eye(4, k=2)
    impulse = np.array([[0.5, 0], [0, 0.5], [1, 0], [0, 1]])
    observe = np.eye(2, 4)
    states, covariances = [state], [covariance]
    for position, seen in zip(found[1:], is_found[1:], strict=True):
        state = transition @ state
        covariance = transition @ covariance @ transition.T + acceleration * impulse @ impulse.T
        if seen:
            innovation = observe @ covariance @ observe.T + noise * np.eye(2)
            gain = covariance @ observe.T @ np.linalg.inv(innovation)
            state = state + gain @ (position - observe @ state)
            covariance = (np.eye(4) - gain @ observe) @ covariance
        states.append(state)
        covariances.append(covariance)
    return np.array(states), np.array(covariances)


@pytest.mark.parametrize(("noise", "acceleration"), [(4.0, 0.25), (0.01, 9.0), (25.0, 0.0)])
def test_equals_the_formulas_with_matrices(noise, acceleration):
    rng = np.random.default_rng(0)
    found = np.cumsum(rng.normal(1, 3, (40, 5, 2)), 0)
    is_found = rng.uniform(size=(40, 5)) < 0.7
    found[~is_found] = np.nan
    found[0] = rng.normal(0, 3, (5, 2))
    motion = kalman.start(jnp.asarray(found[0], jnp.float32), jnp.array(2.0), jnp.array(9.0))
    steps = [motion]
    for frame in range(1, 40):
        motion = kalman.predict(motion, jnp.array(acceleration))
        position = jnp.asarray(found[frame], jnp.float32)
        motion = kalman.update(motion, position, jnp.array(noise), jnp.asarray(is_found[frame]))
        steps.append(motion)
    for point in range(5):
        states, covariances = reference(
            found[:, point], is_found[:, point], 2.0, 9.0, noise, acceleration
        )
        got = np.array([np.concatenate([m.position[point], m.velocity[point]]) for m in steps])
        np.testing.assert_allclose(got, states, rtol=1e-3, atol=2e-3)
        variances = np.array([m.covariance[point] for m in steps])
        expected = np.stack([covariances[:, 0, 0], covariances[:, 0, 2], covariances[:, 2, 2]], -1)
        np.testing.assert_allclose(variances, expected, rtol=1e-3, atol=2e-3)
        # What the filter leaves out is zero in the matrices: x and y are independent and alike.
        assert abs(covariances[:, 0, [1, 3]]).max() == 0
        np.testing.assert_array_equal(covariances[:, 0, 0], covariances[:, 1, 1])


def test_learns_a_constant_velocity():
    motion = kalman.start(jnp.zeros((1, 2)), jnp.ones(()), jnp.array(100.0))
    for frame in range(1, 30):
        motion = kalman.predict(motion, jnp.array(1e-4))
        found = jnp.array([[3.0 * frame, -2.0 * frame]])
        motion = kalman.update(motion, found, jnp.ones(()), jnp.array([True]))
    np.testing.assert_allclose(motion.velocity, [[3, -2]], atol=0.01)
    np.testing.assert_allclose(
        kalman.predict(motion, jnp.array(1e-4)).position, [[90, -60]], atol=0.02
    )


def test_velocity_that_is_set():
    rng = np.random.default_rng(0)
    motion = kalman.start(
        jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), jnp.ones(()), jnp.ones(())
    )
    motion = kalman.predict(motion, jnp.ones(()))
    is_set = jnp.array([True, False, True])
    got = kalman.set_velocity(motion, jnp.array([5.0, 6.0]), jnp.array(0.5), is_set)
    np.testing.assert_array_equal(got.position, motion.position)
    np.testing.assert_array_equal(got.velocity, [[5, 6], motion.velocity[1], [5, 6]])
    np.testing.assert_array_equal(got.covariance[1], motion.covariance[1])
    np.testing.assert_allclose(got.covariance[0], [motion.covariance[0, 0], 0, 0.5])


def test_mean_velocity():
    motion = kalman.start(jnp.zeros((2, 4, 2)), jnp.ones(()), jnp.array([1.0, 2.0, 3.0, 4.0]))
    velocity = jnp.arange(16.0).reshape(2, 4, 2)
    counted = jnp.array([[True, False, True, False], [False] * 4])
    mean, variance = kalman.mean_velocity(motion._replace(velocity=velocity), counted)
    np.testing.assert_allclose(mean, [[2, 3], [0, 0]])
    np.testing.assert_allclose(variance, [(1 + 3) / 4, 0])
