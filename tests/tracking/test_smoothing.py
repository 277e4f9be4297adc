"""Smoothing: the papers' formulas, scipy's filters, lag, gaps, and joints that are not sure."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from rmpe_jax.tracking.smoothing import (
    OfflineParams,
    OneEuroParams,
    frames_in_window,
    one_euro,
    one_euro_step,
    smooth_offline,
    start_one_euro,
)

RATE = 25


def track(frames=60, joints=3, seed=0):
    """Swinging joints with noise, where they truly are, and the times of the frames."""
    rng = np.random.default_rng(seed)
    times = np.arange(frames) / RATE
    phases = rng.uniform(0, 6, (joints, 2))
    truth = 200 + 30 * np.sin(2 * np.pi * times[:, None, None] + phases)
    return truth + rng.normal(size=truth.shape), truth, times


def everywhere(keypoints):
    return np.ones(keypoints.shape[:2], bool)


class PaperFilter:
    """Algorithm 1 of Casiez et al. for one number per frame, with the time since the last one."""

    def __init__(self, params: OneEuroParams) -> None:
        self.params, self.value, self.slope = params, None, 0.0

    @staticmethod
    def alpha(elapsed: float, cutoff: float) -> float:
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / elapsed)

    def __call__(self, value: float, elapsed: float) -> float:
        if self.value is None:
            self.value = value
            return value
        a = self.alpha(elapsed, self.params.derivative_cutoff)
        self.slope = a * (value - self.value) / elapsed + (1 - a) * self.slope
        cutoff = self.params.min_cutoff + self.params.beta * abs(self.slope)
        a = self.alpha(elapsed, cutoff)
        self.value = a * value + (1 - a) * self.value
        return self.value


@pytest.mark.parametrize("params", [OneEuroParams(1, 0.007, 1), OneEuroParams(2, 0.1, 3)])
def test_one_euro_is_the_papers(params):
    noisy, _, _ = track()
    times = np.cumsum(np.random.default_rng(1).uniform(0.02, 0.06, len(noisy)))
    expected = np.empty_like(noisy)
    for j in range(noisy.shape[1]):
        for axis in range(2):
            paper = PaperFilter(params)
            for i in range(len(noisy)):
                expected[i, j, axis] = paper(noisy[i, j, axis], times[i] - times[max(i - 1, 0)])
    ours = one_euro(noisy, everywhere(noisy), times, params=params)
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    assert np.abs(expected - noisy).max() > 1


def test_one_euro_steps_of_numpy_are_those_of_jax():
    noisy, _, times = track()
    visible = np.random.default_rng(3).uniform(size=noisy.shape[:2]) > 0.3
    sizes = np.linspace(50, 90, len(noisy))
    state, steps = start_one_euro(3), []
    for frame in zip(noisy.astype(np.float32), visible, times, sizes, strict=True):
        state, filtered = one_euro_step(state, *frame)
        assert filtered.dtype == np.float32
        steps.append(filtered)
    whole = one_euro(noisy, visible, times, sizes)
    np.testing.assert_allclose(steps, whole, atol=1e-3)
    np.testing.assert_allclose(jax.jit(one_euro)(noisy, visible, times, sizes), whole, atol=1e-3)
    batched = jax.vmap(one_euro)(noisy[None], visible[None], times[None], sizes[None])
    np.testing.assert_allclose(batched[0], whole, atol=1e-3)


def test_sizes_make_one_euro_independent_of_the_distance_to_the_camera():
    noisy, _, times = track()
    sizes = np.full(len(times), 100.0)
    near, far = (one_euro(s * noisy, everywhere(noisy), times, s * sizes) for s in (4, 1))
    np.testing.assert_allclose(near, 4 * far, rtol=1e-4)


def test_one_euro_uses_the_past_only():
    noisy, _, times = track()
    other = noisy.copy()
    other[30:] += 50
    ours, theirs = (one_euro(each, everywhere(each), times) for each in (noisy, other))
    np.testing.assert_array_equal(ours[:30], theirs[:30])
    assert (ours[30:] != theirs[30:]).all()


def test_hours_of_video_do_not_change_one_euro():
    """In float32 the times of frames would be equal."""
    noisy, _, times = track()
    early, late = (one_euro(noisy, everywhere(noisy), times + start) for start in (0, 1e6))
    np.testing.assert_allclose(early, late, atol=1e-2)


@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("window", ["gaussian", "flat"])
def test_offline_filters_are_scipys(window, degree):
    """Where they are defined alike: far from the ends."""
    noisy, _, times = track(80)
    ours = smooth_offline(noisy, everywhere(noisy), times, OfflineParams(window, 0.2, degree))
    if window == "flat":
        theirs = scipy.signal.savgol_filter(noisy, 11, degree, axis=0)
    elif degree == 0:
        theirs = scipy.ndimage.gaussian_filter1d(noisy, 5, axis=0, truncate=3)
    else:
        weights = np.exp(-(np.arange(-15, 16) ** 2) / 50)
        theirs = noisy.copy()
        for i in range(15, 65):
            part = noisy[i - 15 : i + 16].reshape(31, -1)
            # np.polyfit minimizes the squares of weighted distances.
            coefficients = np.polyfit(np.arange(-15, 16), part, degree, w=np.sqrt(weights))
            theirs[i] = coefficients[-1].reshape(3, 2)
    np.testing.assert_allclose(ours[15:-15], theirs[15:-15], atol=5e-3)
    assert np.abs(ours - noisy).max() > 1


@pytest.mark.parametrize("window", ["gaussian", "flat"])
def test_polynomials_of_the_degree_are_kept_at_uneven_times(window):
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, 50))
    parabola = (3 + 20 * times - 15 * times**2)[:, None, None] * np.ones((1, 1, 2))
    smooth = smooth_offline(parabola, everywhere(parabola), times, OfflineParams(window, 0.2))
    np.testing.assert_allclose(smooth, parabola, atol=0.02)


def test_the_offline_filter_has_no_lag_and_one_euro_has():
    noisy, truth, times = track(200)

    def lag(smooth):
        """The shift in frames that fits best."""
        errors = [
            np.square(smooth[20:-20] - truth[20 - s : len(truth) - 20 - s]).mean()
            for s in range(-10, 11)
        ]
        return int(np.argmin(errors)) - 10

    assert lag(smooth_offline(noisy, everywhere(noisy), times)) == 0
    slow = OneEuroParams(1.0, 0.0)
    assert lag(np.asarray(one_euro(noisy, everywhere(noisy), times, params=slow))) > 1


def test_reversed_frames_give_the_reversed_result():
    noisy, _, times = track()
    visible = np.random.default_rng(3).uniform(size=noisy.shape[:2]) > 0.3
    forward = smooth_offline(noisy, visible, times)
    backward = smooth_offline(noisy[::-1], visible[::-1], -times[::-1])
    np.testing.assert_allclose(backward[::-1], forward, atol=1e-9)


def test_offline_under_jit():
    noisy, _, times = track()
    visible = np.random.default_rng(3).uniform(size=noisy.shape[:2]) > 0.3
    params = OfflineParams()
    radius = frames_in_window(times, params)
    assert radius == 6
    compiled = jax.jit(smooth_offline, static_argnums=(3, 4))
    arrays = (jnp.asarray(noisy), jnp.asarray(visible), jnp.asarray(times))
    ours = compiled(*arrays, params, radius)
    np.testing.assert_allclose(ours, smooth_offline(noisy, visible, times), atol=0.02)
    np.testing.assert_allclose(ours, smooth_offline(*arrays), atol=5e-3)


METHODS = {
    "one euro": lambda *track: np.asarray(one_euro(*track, np.full(len(track[0]), 100.0))),
    "gaussian": smooth_offline,
    "flat": lambda *track: smooth_offline(*track, OfflineParams("flat", 0.2)),
}


@pytest.fixture(params=METHODS.values(), ids=METHODS)
def smooth(request):
    return request.param


def test_noise_is_reduced(smooth):
    """In joints that hardly move: error and jerk."""
    noise = np.random.default_rng(0).normal(size=(100, 2, 2))
    smoothed = smooth(noise, everywhere(noise), np.arange(100) / RATE)
    assert np.square(smoothed).mean() < 0.6 * np.square(noise).mean()
    jerks = [np.square(np.diff(each, 3, axis=0)).mean() for each in (smoothed, noise)]
    assert jerks[0] < 0.3 * jerks[1]


def test_constant_positions_stay_exactly(smooth):
    constant = np.tile(np.float32([[123.4, 7e3]]), (40, 2, 1))
    visible = np.random.default_rng(0).uniform(size=(40, 2)) > 0.4
    assert (smooth(constant, visible, np.arange(40) / RATE) == constant).all()


def test_joints_that_are_not_sure_neither_pull_nor_change(smooth):
    noisy, _, times = track()
    visible = np.random.default_rng(3).uniform(size=noisy.shape[:2]) > 0.3
    wild = np.where(visible[..., None], noisy, np.random.default_rng(4).normal(0, 1e3, noisy.shape))
    wild[20, 0], visible[20, 0] = np.nan, False
    smoothed, expected = smooth(wild, visible, times), smooth(noisy, visible, times)
    np.testing.assert_allclose(smoothed[visible], expected[visible], atol=1e-3)
    np.testing.assert_allclose(smoothed[~visible], wild[~visible], rtol=1e-6)


def test_each_joint_is_alone(smooth):
    noisy, _, times = track()
    together = smooth(noisy, everywhere(noisy), times)
    alone = smooth(noisy[:, :1], np.ones((60, 1), bool), times)
    np.testing.assert_allclose(together[:, :1], alone, atol=1e-3)


WIDE = OfflineParams("gaussian", 0.3, 0)


@pytest.mark.parametrize(("distance", "is_gap"), [(12, False), (13, True)])
@pytest.mark.parametrize("smooth", [one_euro, lambda *track: smooth_offline(*track, WIDE)])
def test_a_gap_starts_anew(smooth, distance, is_gap):
    """The limit is half a second, 12.5 frames. A jump shows whether samples pull on each other."""
    positions = np.zeros((80, 1, 2))
    positions[40:] = 100
    visible = np.ones((80, 1), bool)
    visible[40 - distance + 1 : 40] = False
    smoothed = np.asarray(smooth(positions, visible, np.arange(80) / RATE))
    assert bool((smoothed == positions).all()) == is_gap


def test_a_gap_of_one_joint_is_none_of_the_others(smooth):
    noisy, _, times = track()
    visible = everywhere(noisy)
    visible[20:40, 0] = False
    smoothed, expected = (smooth(noisy, each, times) for each in (visible, everywhere(noisy)))
    np.testing.assert_allclose(smoothed[:, 1:], expected[:, 1:], atol=1e-3)
    parts = smooth(noisy[40:, :1], visible[40:, :1], times[40:])
    np.testing.assert_allclose(smoothed[40:, :1], parts, atol=1e-3)


def test_few_samples_are_kept(smooth):
    """One sample is returned as it is; of two, nothing leaves the line between them by much."""
    noisy, _, times = track(10, 1)
    visible = np.zeros((10, 1), bool)
    visible[4] = True
    np.testing.assert_allclose(smooth(noisy, visible, times), noisy, rtol=1e-6)
    visible[6] = True
    smoothed = smooth(noisy, visible, times)
    low, high = np.sort(noisy[[4, 6], 0], axis=0)
    assert (smoothed[[4, 6], 0] >= low - 0.01).all()
    assert (smoothed[[4, 6], 0] <= high + 0.01).all()
