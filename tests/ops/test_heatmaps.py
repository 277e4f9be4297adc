"""Heatmaps against NumPy, SciPy and each other: formulas, round trips, edges, transformations."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from one_program import compiled

from rmpe_jax.errors import UserError
from rmpe_jax.ops import heatmaps as hm
from rmpe_jax.skeletons import COCO

SIZE = (20, 14)
METHODS = ("argmax", "quarter", "dark", "dark_udp", "integral")
encode = compiled(hm.encode, 2, 3, 4)
decode = compiled(hm.decode, 1, 2)
local_mass = compiled(hm.local_mass, 2)
spatial_softmax = compiled(hm.spatial_softmax)
flip_and_merge = compiled(hm.flip_and_merge, 3)
few = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def keypoint_arrays(low, high, k=4):
    """Keypoints (k, 2) with low <= (x, y) <= high."""
    columns = [
        hnp.arrays(np.float32, (k, 1), elements=st.floats(float(a), float(b), width=32))
        for a, b in zip(np.float32(low), np.float32(high), strict=True)
    ]
    return st.tuples(*columns).map(lambda xy: np.concatenate(xy, -1))


def reference_encode(keypoints, visible, size, sigma, integer_center):
    """One joint and one pixel at a time; the integer form pastes a patch, as AlphaPose does."""
    maps, weights = np.zeros((*size, len(keypoints))), np.zeros(len(keypoints))
    radius = int(3 * sigma)
    for j, (x, y) in enumerate(keypoints.astype(float)):
        if not visible[j]:
            continue
        if integer_center:
            x, y = np.floor(x + 0.5), np.floor(y + 0.5)
            pixels = [
                (u, v)
                for v in range(int(y) - radius, int(y) + radius + 1)
                for u in range(int(x) - radius, int(x) + radius + 1)
                if 0 <= u < size[1] and 0 <= v < size[0]
            ]
            weights[j] = len(pixels) > 0
        else:
            beyond = (-x, x - (size[1] - 1), -y, y - (size[0] - 1))
            weights[j] = max(beyond) <= radius
            pixels = [(u, v) for v in range(size[0]) for u in range(size[1])] if weights[j] else []
        for u, v in pixels:
            maps[v, u, j] = np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))
    return maps, weights


@pytest.mark.parametrize("integer_center", [False, True])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
@hypothesis.given(
    keypoint_arrays((-9, -9), (23, 29)), hnp.arrays(np.int32, 4, elements=st.integers(0, 2))
)
@few
def test_encode_is_the_formula(sigma, integer_center, keypoints, visible):
    maps, weights = encode(keypoints, visible, SIZE, sigma, integer_center)
    expected_maps, expected_weights = reference_encode(
        keypoints, visible, SIZE, sigma, integer_center
    )
    assert maps.dtype == weights.dtype == jnp.float32
    np.testing.assert_array_equal(weights, expected_weights)
    np.testing.assert_allclose(maps, expected_maps, atol=2e-6)


def test_integer_center_rounds_half_up_and_cuts_at_three_sigma():
    keypoints = np.array([[6.5, 9.49], [7.49, 8.5]], np.float32)
    maps, _ = encode(keypoints, np.ones(2), SIZE, 1.0, True)
    np.testing.assert_array_equal(maps[..., 0], maps[..., 1])
    assert maps[9, 7, 0] == 1
    drawn = np.argwhere(np.asarray(maps[..., 0]) > 0)
    np.testing.assert_array_equal(drawn.min(0), [6, 4])
    np.testing.assert_array_equal(drawn.max(0), [12, 10])
    assert len(drawn) == 7 * 7


@pytest.mark.parametrize("integer_center", [False, True])
def test_joints_outside_keep_weight_while_their_patch_touches_the_map(integer_center):
    height, width = SIZE
    touching = [(-6, 5), (width + 5, 5), (5, -6), (5, height + 5)]
    missing = [(-7, 5), (width + 6, 5), (5, -7), (5, height + 6)]
    keypoints = np.array(touching + missing, np.float32)
    maps, weights = encode(keypoints, np.ones(8), SIZE, 2.0, integer_center)
    np.testing.assert_array_equal(weights, [1] * 4 + [0] * 4)
    np.testing.assert_allclose(maps.max((0, 1))[:4], np.exp(-36 / 8), rtol=1e-5)
    assert not maps[..., 4:].any()


@compiled
@jax.grad
def gradient_of_the_sum(keypoints, visible):
    return hm.encode(keypoints, visible, SIZE, 2.0)[0].sum()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("visible", [0, 1])
def test_keypoints_that_are_no_numbers_have_no_weight_and_poison_nothing(bad, visible):
    keypoints = np.array([[bad, 3], [4, 5]], np.float32)
    visible = np.array([visible, 2])
    maps, weights = encode(keypoints, visible, SIZE, 2.0)
    np.testing.assert_array_equal(weights, [0, 1])
    assert not maps[..., 0].any()
    assert np.isfinite(maps).all()
    assert np.isfinite(gradient_of_the_sum(keypoints, visible)).all()


def test_encode_takes_booleans_for_visible():
    keypoints = np.full((3, 2), 5, np.float32)
    for visible in (np.array([True, False, True]), np.array([2, 0, 1])):
        np.testing.assert_array_equal(encode(keypoints, visible, SIZE, 2.0)[1], [1, 0, 1])


def test_encode_gradient_is_finite_differences(rng):
    keypoints = rng.uniform(2, 11, (3, 2)).astype(np.float32)
    mix = rng.normal(size=(*SIZE, 3)).astype(np.float32)

    def mixed(keypoints):
        return (hm.encode(keypoints, jnp.ones(3), SIZE, 2.0)[0] * mix).sum()

    check_grads(jax.jit(mixed), (keypoints,), order=1, modes=("rev",), eps=1e-2, rtol=2e-2)


# Largest error for a clean Gaussian of sigma 2: 3 sigma inside the map, and anywhere in it.
@pytest.mark.parametrize(
    ("method", "inside", "anywhere"),
    [
        ("argmax", 0.501, 0.501),
        ("quarter", 0.251, 0.501),
        ("dark", 0.001, 0.501),
        ("integral", 0.005, 1.5),
    ],
)
@hypothesis.given(keypoint_arrays((0, 0), (1, 1), k=8))
@few
def test_decode_inverts_encode(method, inside, anywhere, fractions):
    last, sigma = np.array([31, 39], np.float32), 2.0
    for margin, bound in ((3 * sigma, inside), (0, anywhere)):
        keypoints = margin + fractions * (last - 2 * margin)
        maps, _ = encode(keypoints, np.ones(8), (40, 32), sigma)
        decoded, scores = decode(maps, method, sigma)
        assert np.abs(decoded - keypoints).max() <= bound
        np.testing.assert_array_equal(scores, maps.max((0, 1)))


@pytest.mark.parametrize("sigma", [1.0, 1.75, 3.0])
def test_dark_is_exact_for_the_sigma_it_is_given(rng, sigma):
    keypoints = rng.uniform(12, 28, (50, 2)).astype(np.float32)
    maps, _ = encode(keypoints, np.ones(50), (40, 40), sigma)
    np.testing.assert_allclose(decode(maps, "dark", sigma)[0], keypoints, atol=2e-3)


def test_dark_beats_the_quarter_offset_on_noisy_maps(rng):
    keypoints = rng.uniform(6, 26, (200, 2)).astype(np.float32)
    maps, _ = encode(keypoints, np.ones(200), (32, 32), 2.0)
    noisy = np.asarray(maps) + rng.normal(scale=0.02, size=maps.shape).astype(np.float32)
    error = {m: np.abs(decode(noisy, m)[0] - keypoints).mean() for m in ("quarter", "dark")}
    assert error["dark"] < 0.5 * error["quarter"]


def reference_argmax(heatmap):
    y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
    return (int(x), int(y)) if heatmap.max() > 0 else (0, 0)


def reference_quarter(heatmap):
    height, width = heatmap.shape
    x, y = reference_argmax(heatmap)
    point = np.array([x, y], float)
    if 1 < x < width - 1 and 1 < y < height - 1:
        point[0] += 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
        point[1] += 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
    return point


def reference_dark(heatmap, sigma=2.0):
    """SciPy's blur with zeros outside, NumPy's central differences, a linear solve."""
    height, width = heatmap.shape
    x, y = reference_argmax(heatmap)
    point = np.array([x, y], float)
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return point
    blurred = scipy.ndimage.gaussian_filter(heatmap, sigma, mode="constant", truncate=2.5)
    dy, dx = np.gradient(np.log(np.maximum(blurred, 1e-10)))
    (dxy, dxx), (dyy, _) = np.gradient(dx), np.gradient(dy)
    hessian = np.array([[dxx[y, x], dxy[y, x]], [dxy[y, x], dyy[y, x]]])
    if np.linalg.eigvalsh(hessian).max() >= 0:
        return point
    step = -np.linalg.solve(hessian, [dx[y, x], dy[y, x]])
    return point + np.clip(step, -1, 1)


def reference_dark_udp(heatmap, sigma=2.0):
    """SciPy's blur, and differences of neighbors written out; the border is repeated."""
    x, y = reference_argmax(heatmap)
    smooth = scipy.ndimage.gaussian_filter(heatmap, sigma, radius=5)
    surface = np.pad(np.log(np.clip(smooth, 0.001, 50)), 1, "edge")
    (nw, n, _), (w, here, e), (_, s, se) = surface[y : y + 3, x : x + 3]
    dxy = (se + nw + 2 * here - e - w - s - n) / 2
    hessian = np.array([[e - 2 * here + w, dxy], [dxy, s - 2 * here + n]])
    if np.linalg.eigvalsh(hessian).max() >= 0:
        return np.array([x, y], float)
    step = -np.linalg.solve(hessian, [(e - w) / 2, (s - n) / 2])
    return np.array([x, y]) + np.clip(step, -1, 1)


def reference_integral(heatmap):
    return np.array(scipy.ndimage.center_of_mass(np.maximum(heatmap, 0)))[::-1]


@pytest.mark.parametrize("smooth", [0.0, 1.5])
@pytest.mark.parametrize("method", METHODS)
def test_decode_is_the_formula(rng, method, smooth):
    # Noise alone has its peaks everywhere, at the borders and on saddles of the blurred map too.
    maps = rng.normal(size=(*SIZE, 150))
    if method.startswith(
        "dark"
    ):  # there is no logarithm to compare where the blurred map is negative
        maps = np.exp(maps)
    maps = scipy.ndimage.gaussian_filter(maps, (smooth, smooth, 0)).astype(np.float32)
    reference = globals()[f"reference_{method}"]
    expected = np.array([reference(m) for m in np.moveaxis(maps, -1, 0).astype(float)])
    decoded, scores = decode(maps, method)
    # Neighbors of a smoothed map differ by little, so that float32 has fewer digits.
    np.testing.assert_allclose(decoded, expected, atol=2e-3 if method == "dark_udp" else 1e-4)
    np.testing.assert_array_equal(scores, maps.max((0, 1)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_maps_without_a_positive_value_give_the_origin(method, value):
    decoded, scores = decode(np.full((*SIZE, 2), value, np.float32), method)
    np.testing.assert_array_equal(decoded, np.zeros((2, 2)))
    np.testing.assert_array_equal(scores, [value, value])


@pytest.mark.parametrize("method", METHODS)
def test_a_single_bright_pixel_is_found_exactly(method):
    maps = np.zeros((*SIZE, 1), np.float32)
    maps[9, 6] = 0.3
    decoded, scores = decode(maps, method)
    np.testing.assert_allclose(decoded, [[6, 9]], atol=1e-5)
    np.testing.assert_allclose(scores, [0.3])


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_one_pixel(method):
    keypoints = np.array([[0.2, -0.3]], np.float32)
    maps, weights = encode(keypoints, np.ones(1), (1, 1), 2.0)
    decoded, scores = decode(maps, method)
    assert maps.shape == (1, 1, 1)
    np.testing.assert_array_equal(weights, [1])
    np.testing.assert_array_equal(decoded, [[0, 0]])
    np.testing.assert_allclose(scores, np.exp(-0.13 / 8), rtol=1e-6)


def test_of_equal_peaks_the_first_row_by_row_wins():
    maps = np.zeros((*SIZE, 1), np.float32)
    maps[[12, 5, 5], [2, 11, 4]] = 1
    np.testing.assert_array_equal(decode(maps, "argmax")[0], [[4, 5]])
    # Two equal neighbors: the quarter offset goes from the first towards the second.
    maps[5, 5] = 1
    np.testing.assert_array_equal(decode(maps, "quarter")[0], [[4.25, 5]])


@pytest.mark.parametrize(("x", "y", "moves"), [(1, 8, 0), (2, 8, 1), (12, 8, 1), (13, 8, 0)])
def test_the_quarter_offset_stops_at_the_border(x, y, moves):
    maps = np.zeros((*SIZE, 2), np.float32)
    maps[y, x] = 1
    maps[y, x - 1] = 0.5
    maps[y - 1, x, 0] = 0.5
    expected = np.array([[x, y], [x, y]]) - moves * np.array([[0.25, 0.25], [0.25, 0]])
    np.testing.assert_array_equal(decode(maps, "quarter")[0], expected)


def test_dark_udp_at_corners(rng):
    maps, _ = encode(np.array([[0, 0], [13, 16]], np.float32), np.ones(2), (17, 14), 2.0)
    found, _ = decode(maps, "dark_udp", 2.0)
    expected = [reference_dark_udp(m) for m in np.moveaxis(np.asarray(maps, float), -1, 0)]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(found - np.array([[0, 0], [13, 16]])).max() <= 0.5 + 1e-6  # float32


def test_dark_takes_no_step_where_the_smoothed_map_has_no_maximum():
    x, y = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    flat = np.full(SIZE, 0.5)
    bowl = 1 + (x - 6.5) ** 2 + (y - 8.5) ** 2
    saddle = (x - 6.5) ** 2 - (y - 8.5) ** 2
    maps = np.stack([flat, bowl, 150 + saddle, 150 - saddle], -1).astype(np.float32)
    maps[9, 6] = 1.2 * maps.max((0, 1))  # a peak that smoothing wears away
    np.testing.assert_array_equal(decode(maps, "dark")[0], [[6, 9]] * 4)


def test_dark_steps_by_a_pixel_at_most():
    maps, _ = encode(np.array([[6, 9]], np.float32), np.ones(1), SIZE, 2.0)
    maps = maps.copy()
    maps[7, 4] = 1.1
    np.testing.assert_array_equal(decode(maps, "dark")[0], [[5, 8]])


def test_integral_after_a_sigmoid_is_the_two_step_normalization(rng):
    logits = rng.normal(size=(*SIZE, 3)).astype(np.float32)
    c = scipy.special.expit(logits.astype(float))
    p = c / c.sum((0, 1))
    expected = np.stack([np.arange(SIZE[1]) @ p.sum(0), np.arange(SIZE[0]) @ p.sum(1)], -1)
    decoded, scores = decode(jax.nn.sigmoid(logits), "integral")
    np.testing.assert_allclose(decoded, expected, rtol=1e-5)
    np.testing.assert_allclose(scores, c.max((0, 1)), rtol=1e-6)


def test_integral_gradient_is_finite_differences(rng):
    maps = rng.uniform(0.5, 1, (5, 4, 2)).astype(np.float32)

    def mixed(maps):
        return (hm.decode(maps, "integral")[0] * jnp.array([[1.0, -2.0], [3.0, 0.5]])).sum()

    check_grads(jax.jit(mixed), (maps,), order=1, modes=("rev",), eps=1e-2, atol=1e-2, rtol=1e-2)
    assert np.isfinite(jax.jit(jax.grad(mixed))(np.zeros((5, 4, 2), np.float32))).all()


def test_an_unknown_method_is_a_user_error():
    with pytest.raises(UserError, match=r"'udp'.*argmax, quarter, dark, dark_udp, integral"):
        hm.decode(jnp.zeros((4, 4, 1)), "udp")


@pytest.mark.parametrize("method", METHODS)
def test_decode_is_float32_whatever_the_maps_are(method):
    maps, _ = encode(np.array([[7, 9]], np.float32), np.ones(1), SIZE, 2.0)
    decoded, scores = decode(maps.astype(jnp.bfloat16), method)
    assert decoded.dtype == scores.dtype == jnp.float32
    np.testing.assert_allclose(decoded, [[7, 9]], atol=0.1)


def test_spatial_softmax_is_scipys(rng):
    logits = rng.normal(scale=5, size=(2, *SIZE, 3)).astype(np.float32)
    maps = spatial_softmax(logits)
    np.testing.assert_allclose(maps, scipy.special.softmax(logits, (1, 2)), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(maps.sum((1, 2)), 1, rtol=1e-5)
    assert spatial_softmax(logits.astype(jnp.bfloat16)).dtype == jnp.float32
    only = np.float32(1e30) * (logits == logits.max())
    np.testing.assert_array_equal(spatial_softmax(only).max(), 1)


@hypothesis.given(keypoint_arrays((-3, -3), (16, 22), k=3), st.integers(0, 3))
@few
def test_local_mass_counts_the_pixels_of_the_window(keypoints, radius):
    maps = np.random.default_rng(1).uniform(size=(*SIZE, 3)).astype(np.float32)
    expected = np.zeros(3)
    for j, (x, y) in enumerate(np.floor(keypoints + 0.5).astype(int)):
        for v, u in np.ndindex(SIZE):
            if abs(u - x) <= radius and abs(v - y) <= radius:
                expected[j] += maps[v, u, j]
    np.testing.assert_allclose(local_mass(maps, keypoints, radius), expected, rtol=1e-5)


def test_local_mass_ranks_by_certainty_where_the_peak_does_not(rng):
    # Joint 0: one Gaussian, all of the probability; joint 1: a sharp peak with a tenth of it.
    one, _ = encode(np.array([[7, 9]], np.float32), np.ones(1), SIZE, 1.5)
    maps = np.concatenate([one / one.sum(), np.full_like(one, 0.9 / one.size)], -1)
    maps[9, 7, 1] += 0.1
    keypoints, peaks = decode(maps, "argmax")
    mass = local_mass(maps, keypoints, 2)
    assert peaks[0] < peaks[1]
    assert mass[0] > 0.75
    assert mass[1] < 0.2
    np.testing.assert_allclose(local_mass(maps, keypoints, 20), 1, rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 0.75, 1.0])
def test_flip_and_merge_is_the_formula(rng, shift):
    maps, flipped = rng.normal(size=(2, 3, *SIZE, COCO.num_keypoints)).astype(np.float32)
    width = SIZE[1]
    expected = np.zeros_like(maps)
    for j, partner in enumerate(COCO.flip_indices):
        for x in range(width):
            here = flipped[:, :, width - 1 - x, partner]
            left = flipped[:, :, width - 1 - max(x - 1, 0), partner]
            back = (1 - shift) * here + shift * left
            expected[:, :, x, j] = (maps[:, :, x, j] + back) / 2
    merged = flip_and_merge(maps, flipped, COCO.flip_indices, shift)
    np.testing.assert_allclose(merged, expected, rtol=1e-6, atol=1e-6)


def test_merging_with_a_perfect_mirror_image_changes_nothing(rng):
    keypoints = rng.uniform(0, 13, (COCO.num_keypoints, 2)).astype(np.float32)
    mirrored = (keypoints * [-1, 1] + [SIZE[1] - 1, 0])[COCO.flip_indices].astype(np.float32)
    visible = np.ones(COCO.num_keypoints)
    maps, flipped = (encode(p, visible, SIZE, 2.0)[0] for p in (keypoints, mirrored))
    merged = flip_and_merge(maps, flipped, COCO.flip_indices)
    np.testing.assert_allclose(merged, maps, atol=1e-6)


FUNCTIONS = {
    "encode": lambda keypoints, maps: hm.encode(keypoints, keypoints[..., 0], SIZE, 2.0),
    "encode-integer": lambda keypoints, maps: hm.encode(
        keypoints, keypoints[..., 0], SIZE, 2.0, True
    ),
    **{m: functools.partial(lambda m, keypoints, maps: hm.decode(maps, m), m) for m in METHODS},
    "spatial_softmax": lambda keypoints, maps: hm.spatial_softmax(maps),
    "local_mass": lambda keypoints, maps: hm.local_mass(maps, keypoints, 1),
    "flip_and_merge": lambda keypoints, maps: hm.flip_and_merge(
        maps, maps, np.array([1, 0, 2]), 0.75
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_leading_dimensions_jit_and_vmap_agree(rng, name):
    function = FUNCTIONS[name]
    keypoints = rng.uniform(-8, 20, (2, 3, 3, 2)).astype(np.float32)
    maps = rng.uniform(-0.5, 1, (2, 3, *SIZE, 3)).astype(np.float32)
    plain = jax.device_get(function(jnp.asarray(keypoints), jnp.asarray(maps)))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, compiled(function)(keypoints, maps), plain)
    jax.tree.map(close, compiled(jax.vmap(jax.vmap(function)))(keypoints, maps), plain)
    one = jax.tree.map(lambda x: x[1, 2], plain)
    jax.tree.map(close, compiled(function)(keypoints[1, 2], maps[1, 2]), one)
