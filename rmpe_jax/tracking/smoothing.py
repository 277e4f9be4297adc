"""Smoothing of one person's joints over time: the One-Euro filter and local polynomials.

Keypoints are those of one track. A joint is smoothed in the frames where it is sure, from frames
where it is sure; elsewhere it is returned as it is. Nothing is smoothed over a gap, a longer time
without a sure sample: the filter starts anew after it.

`one_euro` uses the past only and can run during a recording. `smooth_offline` uses past and future
and so has no lag.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.ops.geometry import AnyArray

# Samples further away, in widths of the window, have no weight. The times of frames are rounded.
_REACH = {"gaussian": 3.001, "flat": 1.001}
_SHRINKAGE = 1e-4  # of the polynomials' slopes, against a weight of 1 of the frame itself
_MIN_ELAPSED = 1e-6  # seconds


class OneEuroParams(NamedTuple):
    """Parameters of the One-Euro filter.

    Attributes:
      min_cutoff: cutoff frequency of a joint at rest, Hz; lower values smooth more.
      beta: increase of the cutoff frequency with a joint's speed, in Hz per (size of the person per
        second); higher values lag less. With size 1 it is the paper's beta.
      derivative_cutoff: cutoff frequency of the speed, Hz.
      max_gap: seconds without a sure sample after which the filter starts anew.
    """

    min_cutoff: float = 1.0
    beta: float = 10.0
    derivative_cutoff: float = 3.0
    max_gap: float = 0.5


class OneEuroState(NamedTuple):
    """What the filter remembers of each joint's last sure sample.

    Attributes:
      keypoints: filtered, pixels.
      speeds: filtered, pixels per second.
      times: seconds; minus infinity before the first sure sample.
    """

    keypoints: Float[Any, "*b k 2"]
    speeds: Float[Any, "*b k 2"]
    times: Float[Any, "*b k"]


class OfflineParams(NamedTuple):
    """Parameters of `smooth_offline`.

    Attributes:
      window: weights of the samples around a frame: "gaussian", or "flat" as those of Savitzky and
        Golay.
      width: seconds; standard deviation of the Gaussian, or half of the flat window.
      degree: of the polynomials. 0 is a weighted mean; 2 keeps the height of a peak.
      max_gap: seconds without a sure sample over which nothing is smoothed.
    """

    window: Literal["gaussian", "flat"] = "gaussian"
    width: float = 0.08
    degree: int = 2
    max_gap: float = 0.5


def start_one_euro(num_keypoints: int) -> OneEuroState:
    """The state before the first frame, as NumPy arrays."""
    return OneEuroState(
        np.zeros((num_keypoints, 2), np.float32),
        np.zeros((num_keypoints, 2), np.float32),
        np.full(num_keypoints, -np.inf),
    )


def one_euro_step(
    state: OneEuroState,
    keypoints: Float[AnyArray, "*b k 2"],
    visible: Bool[AnyArray, "*b k"],
    time: float | Float[AnyArray, ""],
    size: float | Float[AnyArray, "*b"] = 1.0,
    params: OneEuroParams | None = None,
) -> tuple[OneEuroState, Float[AnyArray, "*b k 2"]]:
    """Filter one frame of one or more tracks: the One-Euro filter (Casiez et al., CHI 2012).

    A low-pass filter whose cutoff frequency grows with the speed, separately for x and y. The
    speed is low-pass filtered too. It is the paper's Algorithm 1 with the times of the frames in
    place of a rate. Works on NumPy and JAX arrays.

    Args:
      state: of `start_one_euro` or of the frame before.
      keypoints: pixels; arbitrary where not visible.
      visible: where a joint is sure.
      time: of the frame, seconds from any fixed moment, not before the last frame's.
      size: of each person, pixels, such as the square root of the box's area; makes `beta`
        independent of the distance to the camera.
      params: by default those of `OneEuroParams`.

    Returns:
      The next state, and the keypoints: filtered where visible, else as they are.
    """
    params = params or OneEuroParams()
    xp = keypoints.__array_namespace__()
    elapsed = time - state.times
    starts = (elapsed > params.max_gap)[..., None]
    elapsed = xp.where(starts, 1.0, xp.maximum(elapsed, _MIN_ELAPSED)[..., None])
    pull = _weight_of_sample(elapsed, params.derivative_cutoff)
    speeds = (keypoints - state.keypoints) / elapsed
    speeds = pull * speeds + (1 - pull) * state.speeds
    relative_speeds = xp.abs(speeds) / xp.asarray(size)[..., None, None]
    pull = _weight_of_sample(elapsed, params.min_cutoff + params.beta * relative_speeds)
    # A mean of two equal numbers in this form is exactly that number.
    filtered = state.keypoints + pull * (keypoints - state.keypoints)
    filtered = xp.where(starts, keypoints, filtered).astype(state.keypoints.dtype)
    speeds = xp.where(starts, 0, speeds).astype(state.speeds.dtype)
    seen = visible[..., None]
    times = xp.where(visible, time, state.times).astype(state.times.dtype)
    following = OneEuroState(
        xp.where(seen, filtered, state.keypoints), xp.where(seen, speeds, state.speeds), times
    )
    return following, xp.where(seen, filtered, keypoints)


def one_euro(
    keypoints: Float[AnyArray, "f k 2"],
    visible: Bool[AnyArray, "f k"],
    times: Float[AnyArray, " f"],
    sizes: Float[Any, " f"] | None = None,
    params: OneEuroParams | None = None,
) -> Float[Array, "f k 2"]:
    """`one_euro_step` over the frames of a track; works under `jit` and `vmap`.

    Args:
      keypoints: pixels; arbitrary where not visible.
      visible: where a joint is sure; nowhere in frames without the person.
      times: of the frames, seconds, ascending.
      sizes: of the person in each frame, pixels; by default 1.
      params: by default those of `OneEuroParams`.

    Returns:
      The keypoints: filtered where visible, else as they are.
    """
    sizes = jnp.ones(len(times)) if sizes is None else sizes
    # Relative to the first frame, because times of hours lose milliseconds in float32.
    frames = (keypoints, visible, times - times[0], sizes)
    frames = tuple(jnp.asarray(each) for each in frames)
    start = jax.tree.map(jnp.asarray, start_one_euro(keypoints.shape[1]))
    _, filtered = jax.lax.scan(
        lambda state, frame: one_euro_step(state, *frame, params=params), start, frames
    )
    return filtered


def smooth_offline(
    keypoints: Float[AnyArray, "f k 2"],
    visible: Bool[AnyArray, "f k"],
    times: Float[AnyArray, " f"],
    params: OfflineParams | None = None,
    radius: int | None = None,
) -> Float[AnyArray, "f k 2"]:
    """Smooth a whole track without lag: at each frame a polynomial is fitted to the frames around.

    A weighted least squares fit of x(t) and y(t), evaluated at the frame (local polynomial
    regression). On frames at equal distances without gaps, degree 0 with a Gaussian window is the
    Gaussian filter, and a flat window gives the filter of Savitzky and Golay (Analytical Chemistry
    36, 1964). Where fewer samples are sure than the degree needs, the polynomial is the flattest of
    those that fit. Works on NumPy and JAX arrays; reversed frames give the reversed result.

    Args:
      keypoints: pixels; arbitrary where not visible.
      visible: where a joint is sure; nowhere in frames without the person.
      times: of the frames, seconds, ascending.
      params: by default those of `OfflineParams`.
      radius: the highest number of frames before and after a frame that are used. By default as
        many as the window may hold; under `jit` it must be given, see `frames_in_window`.

    Returns:
      The keypoints: smoothed where visible, else as they are.
    """
    params = params or OfflineParams()
    xp = keypoints.__array_namespace__()
    radius = frames_in_window(np.asarray(times), params) if radius is None else radius
    segments = _segments(visible, times, params.max_gap)
    seen = visible[..., None]
    known = xp.where(seen, keypoints, 0)
    powers = xp.arange(params.degree + 1)
    # Unknown slopes are zero: where samples determine them, this changes next to nothing.
    matrix = xp.diag(xp.where(powers > 0, _SHRINKAGE, 0.0))[None, None]
    vector = xp.zeros((1, 1, len(powers), 2))
    index = xp.arange(len(times))
    for shift in range(-radius, radius + 1):
        other = xp.clip(index + shift, 0, len(times) - 1)
        near = (other == index + shift)[:, None] & visible[other] & (segments[other] == segments)
        distance = (times[other] - times) / params.width
        weight = xp.where(near, _window_weights(distance, params)[:, None], 0)[..., None, None]
        terms = distance[:, None] ** powers
        matrix = matrix + weight * (terms[:, None, :, None] * terms[:, None, None, :])
        # Distances from the frame's own sample: constant positions stay exactly constant.
        offset = known[other] - known
        vector = vector + weight * terms[:, None, :, None] * offset[:, :, None, :]
    matrix = xp.where(seen[..., None], matrix, xp.eye(len(powers)))
    change = xp.linalg.solve(matrix, vector)[..., 0, :]
    return xp.where(seen, (known + change).astype(keypoints.dtype), keypoints)


def frames_in_window(times: Float[np.ndarray, " f"], params: OfflineParams) -> int:
    """The highest number of frames on one side of a frame that `smooth_offline` uses.

    Args:
      times: of the frames, seconds, ascending.
      params: of `smooth_offline`.
    """
    after = np.searchsorted(times, times + _REACH[params.window] * params.width, side="right")
    return int(np.max(after - np.arange(len(times)) - 1, initial=0))


def _weight_of_sample(elapsed: AnyArray, cutoff: Any) -> AnyArray:
    """The paper's alpha: the weight of a sample against the past of a low-pass filter."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * elapsed))


def _segments(
    visible: Bool[AnyArray, "f k"], times: Float[AnyArray, " f"], max_gap: float
) -> Int[AnyArray, "f k"]:
    """Numbers that differ for the frames before and after a gap of a joint."""
    xp = times.__array_namespace__()
    last = xp.maximum.accumulate(xp.where(visible, times[:, None], -np.inf), 0)
    before = xp.concatenate([xp.full_like(last[:1], -np.inf), last[:-1]])
    return xp.cumsum(visible & (times[:, None] - before > max_gap), 0)


def _window_weights(
    distance: Float[AnyArray, " f"], params: OfflineParams
) -> Float[AnyArray, " f"]:
    """The weights of samples at distances in units of the window's width."""
    xp = distance.__array_namespace__()
    is_flat = params.window == "flat"
    weights = xp.ones_like(distance) if is_flat else xp.exp(-(distance**2) / 2)
    return xp.where(xp.abs(distance) <= _REACH[params.window], weights, 0)
