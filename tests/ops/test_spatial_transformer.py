"""The sampler against NumPy from the formula and torch; the inverse against its formulas."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.test_util import check_grads

from rmpe_jax.ops import geometry, heatmaps
from rmpe_jax.ops.spatial_transformer import (
    MIN_DETERMINANT,
    affine_sample,
    invert_theta,
    placement_error,
    theta_from_pixels,
    theta_metrics,
    theta_on_raster,
)

sample = jax.jit(affine_sample, static_argnums=2)
invert = jax.jit(invert_theta)
on_raster = jax.jit(theta_on_raster, static_argnums=(1, 2))
from_pixels = jax.jit(theta_from_pixels, static_argnums=(1, 2))
encode = jax.jit(heatmaps.encode, static_argnums=(2, 3))
decode = jax.jit(heatmaps.decode, static_argnums=(1, 2))
IDENTITY = np.eye(2, 3, dtype=np.float32)
# Zoom, shear and shift; a mirror that looks past two edges; a quarter turn; a far zoom out. The
# odd digits keep samples off pixel centers, where the derivative is a matter of convention.
THETAS = np.array(
    [
        [[0.7117, 0.1071, 0.2073], [-0.1539, 0.8087, -0.1013]],
        [[-1.1191, 0.2137, 0.3119], [0.1173, 1.2117, 0.4051]],
        [[0.0331, -0.9157, 0.0113], [1.0519, 0.0271, 0.0017]],
        [[2.3171, 0.4153, -0.6091], [-0.3137, 2.9131, 0.5119]],
    ],
    np.float32,
)


def reference(image, theta, output_size, cotangent):
    """Output, and gradients of sum(cotangent * output), by Jaderberg et al., NeurIPS 2015, §3.3.

    V = sum_nm U_nm max(0, 1 - |x - m|) max(0, 1 - |y - n|), over all pixels of the image.
    """
    image, theta, cotangent = (np.asarray(a, np.float64) for a in (image, theta, cotangent))
    half = (np.array(image.shape[1::-1]) - 1) / 2
    height, width = output_size
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    target = np.stack([x, y, np.ones_like(x)], -1)
    position = (target @ theta.T + 1) * half
    off_x = np.arange(image.shape[1]) - position[..., :1]
    off_y = np.arange(image.shape[0]) - position[..., 1:]
    hat_x, hat_y = (np.maximum(0, 1 - np.abs(off)) for off in (off_x, off_y))
    slope_x, slope_y = (np.where(np.abs(off) < 1, np.sign(off), 0) for off in (off_x, off_y))
    output = np.einsum("HWh,HWw,hwc->HWc", hat_y, hat_x, image)
    grad_image = np.einsum("HWh,HWw,HWc->hwc", hat_y, hat_x, cotangent)
    grad_x = np.einsum("HWh,HWw,hwc,HWc->HW", hat_y, slope_x, image, cotangent)
    grad_y = np.einsum("HWh,HWw,hwc,HWc->HW", slope_y, hat_x, image, cotangent)
    grad_theta = np.einsum("HWi,HWj->ij", np.stack([grad_x, grad_y], -1) * half, target)
    return output, grad_image, grad_theta


@jax.jit
def value_and_gradients(image, theta, cotangent):
    output, vjp = jax.vjp(lambda i, t: affine_sample(i, t, cotangent.shape[:2]), image, theta)
    return output, *vjp(cotangent)


def draw(source_size, output_size, channels=3):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((*source_size, channels)).astype(np.float32)
    return image, rng.standard_normal((*output_size, channels)).astype(np.float32)


def assert_close(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        scale = max(1, np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 9), (64, 48), (256, 192)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_identity_is_exact(size, dtype):
    image = np.random.default_rng(0).standard_normal((*size, 3)).astype(dtype)
    for function in (affine_sample, sample) if size == (13, 9) else (sample,):
        same = function(jnp.asarray(image), jnp.asarray(IDENTITY), size)
        assert same.dtype == dtype
        np.testing.assert_array_equal(same, image)


def test_identity_keeps_the_gradient_exact():
    image, cotangent = draw((13, 9), (13, 9))
    np.testing.assert_array_equal(value_and_gradients(image, IDENTITY, cotangent)[1], cotangent)


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("sizes", [((13, 9), (13, 9)), ((12, 17), (7, 10)), ((6, 5), (1, 11))])
def test_equals_the_formula(theta, sizes):
    image, cotangent = draw(*sizes)
    output = jax.device_get(value_and_gradients(image, theta, cotangent))
    if sizes[1][0] == 1:  # linspace(-1, 1, 1) is -1: a row's only pixel is at 0 for us
        theta = np.stack([theta[:, 0], 0 * theta[:, 1], theta[:, 2]], 1)
        expected = reference(image, theta, sizes[1], cotangent)
        assert (output[2][:, 1] == 0).all()
        assert_close((*output[:2], output[2][:, ::2]), (*expected[:2], expected[2][:, ::2]))
    else:
        assert_close(output, reference(image, theta, sizes[1], cotangent))


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid")
@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("sizes", [((13, 9), (13, 9)), ((12, 17), (7, 10)), ((6, 5), (1, 11))])
def test_equals_torch(theta, sizes):
    torch = pytest.importorskip("torch")
    image, cotangent = draw(*sizes)
    theirs = [torch.from_numpy(a).double().requires_grad_() for a in (image, theta)]
    grid = torch.nn.functional.affine_grid(theirs[1][None], (1, 3, *sizes[1]), align_corners=True)
    output = torch.nn.functional.grid_sample(
        theirs[0].permute(2, 0, 1)[None], grid, padding_mode="zeros", align_corners=True
    )[0].permute(1, 2, 0)
    output.backward(torch.from_numpy(cotangent).double())
    expected = [t.numpy() for t in (output.detach(), theirs[0].grad, theirs[1].grad)]
    assert_close(value_and_gradients(image, theta, cotangent), expected)


def test_axes_and_signs():
    """The output's right edge shows what theta's first column adds, to the right of the center."""
    x = np.broadcast_to(np.arange(9, dtype=np.float32)[:, None], (13, 9, 1))
    right = sample(x, np.array([[0.5, 0, 0.25], [0, 1, 0]], np.float32), (13, 9))
    np.testing.assert_allclose(right[:, :, 0], np.tile(5 + np.arange(-4, 5) / 2, (13, 1)))


def test_taps_outside_are_zero_one_by_one():
    image = np.ones((3, 3, 1), np.float32)
    shifted = sample(image, np.array([[1, 0, 0.25], [0, 1, 0]], np.float32), (3, 3))
    np.testing.assert_array_equal(shifted[0, :, 0], [1, 1, 0.75])
    away = sample(image, np.array([[1, 0, 1e9], [0, 1, 0]], np.float32), (3, 3))
    assert (away == 0).all()


def test_batches_by_vmap():
    images = np.random.default_rng(0).standard_normal((4, 12, 7, 2)).astype(np.float32)
    batch = jax.jit(jax.vmap(lambda i, t: affine_sample(i, t, (5, 6))))(images, THETAS)
    for image, theta, output in zip(images, THETAS, batch, strict=True):
        np.testing.assert_allclose(output, sample(image, theta, (5, 6)), atol=1e-6)


def test_positions_stay_float32_when_images_are_bfloat16():
    x = np.arange(192, dtype=np.float32)[None, :, None]
    theta = np.array([[1, 0, 0.5 / 95.5], [0, 1, 0]], np.float32)
    rough = np.asarray(sample(x.astype(jnp.bfloat16), theta, (1, 192)), np.float32)
    exact = np.asarray(sample(x, theta, (1, 192)))
    np.testing.assert_allclose(rough[0, :-1], exact[0, :-1], atol=0.51)  # 8 bits of 191


@jax.jit
def there_and_back(image, theta):
    view = affine_sample(image, theta, (7, 6))
    return affine_sample(view, invert_theta(theta), (7, 6))


@pytest.mark.parametrize("theta", THETAS)
def test_gradients_equal_finite_differences(theta):
    with jax.enable_x64():
        image = jnp.asarray(draw((7, 6), (1, 1), 1)[0], jnp.float64)
        theta = jnp.asarray(theta, jnp.float64)
        # A larger step would cross the kinks of bilinear interpolation.
        options = {"order": 1, "modes": ["rev"], "eps": 1e-6, "atol": 1e-6, "rtol": 1e-6}
        check_grads(there_and_back, (image, theta), **options)
        check_grads(invert, (theta,), **options)


# ---- the inverse ---------------------------------------------------------------------------------


def test_gamma_is_the_inverse_matrix():
    gamma = invert(THETAS)
    expected = [np.linalg.inv(np.vstack([theta, [0, 0, 1]]))[:2] for theta in THETAS]
    np.testing.assert_allclose(gamma, expected, atol=1e-6)
    assert (np.asarray(invert_theta(jnp.asarray(IDENTITY))) == IDENTITY).all()


@pytest.mark.parametrize("theta", THETAS)
def test_gradient_of_gamma_by_the_papers_formula(theta):
    """With X = D - d tᵀ: dL/dA = -Gᵀ X Gᵀ and dL/dt = -Gᵀ d (eqs. 4 to 6)."""
    cotangent = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    gradient = jax.jit(lambda theta: jax.vjp(invert_theta, theta)[1](cotangent)[0])(theta)
    inverse = np.linalg.inv(theta[:, :2].astype(np.float64))
    d, t = cotangent[:, 2:], theta[:, 2:]
    grad_linear = -inverse.T @ (cotangent[:, :2] - d @ t.T) @ inverse.T
    expected = np.concatenate([grad_linear, -inverse.T @ d], 1)
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())


SINGULAR = {
    "zero": [[0, 0, 0.3], [0, 0, 0.2]],
    "a line": [[1, 2, 0.3], [2, 4, 0.2]],
    "near": [[1e-4, 0, 0.3], [0, 1e-3, 0.2]],
    "near, mirrored": [[-1e-4, 0, 0.3], [0, 1e-3, 0.2]],
    "just inside": [[1e-3, 0, 0.3], [0, 1.0001e-3, 0.2]],
}


@jax.jit
def everything_about(image, cotangent, theta):
    """The inverse, the image there and back, the gradients of it, and the inverse's Jacobian."""
    output, vjp = jax.vjp(there_and_back, image, theta)
    return invert_theta(theta), output, *vjp(cotangent), jax.jacobian(invert_theta)(theta)


@pytest.mark.parametrize("theta", SINGULAR.values(), ids=SINGULAR)
def test_near_singular_stays_finite(theta):
    values = everything_about(*draw((7, 6), (7, 6)), np.array(theta, np.float32))
    assert all(np.isfinite(value).all() for value in values)


def test_the_clamp_keeps_the_sign():
    tiny = np.array([[1e-4, 0, 0], [0, 1e-3, 0]], np.float32)
    for sign in (1, -1):
        gamma = np.asarray(invert(np.float32(tiny * [[sign], [1]])))
        np.testing.assert_allclose(gamma[0, 0], 1e-3 / (sign * MIN_DETERMINANT), rtol=1e-5)


entries = st.floats(-1.5, 1.5, width=32)
affines = st.tuples(*[entries] * 6).map(lambda v: np.array(v, np.float32).reshape(2, 3))


@hypothesis.settings(deadline=None)
@hypothesis.given(affines)
def test_inverse_of_the_inverse(theta):
    hypothesis.assume(abs(np.linalg.det(theta[:, :2].astype(np.float64))) > 0.05)
    gamma = np.asarray(invert(theta))
    np.testing.assert_allclose(invert(gamma), theta, atol=2e-4)
    np.testing.assert_allclose(geometry.compose(gamma, theta), IDENTITY, atol=2e-4)


PLANE = np.stack(np.meshgrid(np.arange(12.0), np.arange(15.0)), -1).astype(np.float32)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(affines, affines)
def test_sampling_twice_is_sampling_by_the_product(outer, inner):
    """Exact on planes, which bilinear interpolation reproduces, where no tap left the image."""
    image = np.concatenate([PLANE, np.ones((15, 12, 1), np.float32)], -1)
    twice = np.asarray(sample(sample(image, outer, (15, 12)), inner, (15, 12)))
    once = np.asarray(sample(image, np.asarray(geometry.compose(outer, inner)), (15, 12)))
    whole = (twice[..., 2] > 1 - 1e-6) & (once[..., 2] > 1 - 1e-6)
    np.testing.assert_allclose(twice[whole], once[whole], atol=1e-4)


# ---- SDTN after STN ------------------------------------------------------------------------------

SMALL_WARPS = np.array(
    [
        [[1, 0, 0.15], [0, 1, -0.1]],
        [[0.8, 0, 0.1], [0, 0.8, 0.05]],
        [[1.25, 0, 0.05], [0, 1.25, -0.1]],
        [[0.9, -0.3, 0.05], [0.3, 0.9, 0.05]],
    ],
    np.float32,
)


@pytest.mark.parametrize("theta", SMALL_WARPS)
def test_sdtn_returns_heatmaps_to_their_place(theta):
    points = np.array([[20.3, 24.6], [31.8, 40.2], [24.0, 32.0]], np.float32)
    maps, _ = encode(points, np.ones(3), (64, 48), 3.0)
    moved = sample(maps, theta, (64, 48))
    back = sample(moved, invert(theta), (64, 48))
    assert np.abs(np.asarray(moved) - np.asarray(maps)).max() > 0.5  # the warp moves the maps
    np.testing.assert_allclose(back, maps, atol=0.06)
    found, _ = decode(back, "dark", 3.0)
    np.testing.assert_allclose(found, points, atol=0.05)


@pytest.mark.parametrize("theta", SMALL_WARPS)
def test_a_warp_of_the_crop_is_undone_on_heatmaps(theta):
    """The view of a keypoint, found on the coarser raster, comes back to the crop's heatmap."""
    size, heatmap_size = (256, 192), (64, 48)
    heatmap_from_crop = geometry.heatmap_from_crop(size, heatmap_size)
    crop_points = np.array([[80.0, 100.0], [120.0, 150.0]], np.float32)
    # Where the STN shows them: gamma in pixels of the crop.
    half = (np.array(size[::-1]) - 1) / 2
    gamma = np.linalg.inv(np.vstack([theta, [0, 0, 1]]))[:2]
    view_points = ((crop_points / half - 1) @ gamma[:, :2].T + gamma[:, 2] + 1) * half
    seen = geometry.transform_points(heatmap_from_crop, view_points.astype(np.float32))
    maps, _ = encode(seen, np.ones(2), heatmap_size, 3.0)
    on_heatmap = on_raster(invert(theta), size, heatmap_size)
    found, _ = decode(sample(maps, on_heatmap, heatmap_size), "dark", 3.0)
    expected = geometry.transform_points(heatmap_from_crop, crop_points)
    np.testing.assert_allclose(found, expected, atol=0.03)


def pixels(theta, size):
    """Theta as a 3x3 matrix between pixels of rasters of `size`."""
    half = (np.array(size[::-1]) - 1) / 2
    to_pixels = np.array([[half[0], 0, half[0]], [0, half[1], half[1]], [0, 0, 1]])
    return to_pixels @ np.vstack([theta, [0, 0, 1]]) @ np.linalg.inv(to_pixels)


@pytest.mark.parametrize("theta", THETAS)
def test_theta_on_raster_is_a_change_of_frame(theta):
    size, new_size = (40, 24), (10, 8)
    frame = np.vstack([geometry.heatmap_from_crop(size, new_size), [0, 0, 1]])
    ours = on_raster(theta, size, new_size)
    expected = frame @ pixels(theta, size) @ np.linalg.inv(frame)
    np.testing.assert_allclose(pixels(ours, new_size), expected, atol=1e-5)
    np.testing.assert_allclose(on_raster(ours, new_size, size), theta, atol=1e-6)
    np.testing.assert_array_equal(on_raster(IDENTITY, size, size), IDENTITY)


def test_theta_from_pixels():
    affines = np.stack([pixels(theta, (40, 24))[:2] for theta in THETAS]).astype(np.float32)
    found = from_pixels(affines, (40, 24))
    np.testing.assert_allclose(found, THETAS, atol=1e-5)


def test_placement_error():
    size = (41, 21)
    centered_from_crop = np.stack(
        [np.linalg.inv(pixels(theta, size))[:2] for theta in THETAS]
    ).astype(np.float32)
    measure = jax.jit(placement_error, static_argnums=2)
    assert measure(THETAS, centered_from_crop, size) < 1e-5
    # A crop that is 2 pixels too far right: all corners are off by 2 of 10 pixels.
    shifted = np.tile(np.array([[1, 0, 2], [0, 1, 0]], np.float32), (4, 1, 1))
    identity = np.tile(IDENTITY, (4, 1, 1))
    assert float(measure(identity, shifted, size)) == pytest.approx(0.2, rel=1e-5)
    # One that is twice too large: all corners are off by half the way to the center.
    zoomed = np.tile(np.array([[2, 0, -10], [0, 2, -20]], np.float32), (4, 1, 1))
    assert float(measure(identity, zoomed, size)) == pytest.approx(2**-0.5, rel=1e-5)


def test_theta_between_rasters_of_different_sizes():
    """Sampling by it is scipy's, at the pixels that the affine points to."""
    image = np.random.default_rng(0).uniform(size=(9, 13)).astype(np.float32)
    affine = np.array([[1.3, 0.2, 0.7], [-0.1, 0.8, 1.1]], np.float32)
    theta = from_pixels(affine, (6, 8), (9, 13))
    found = np.asarray(sample(image[..., None], theta, (6, 8)))[..., 0]
    rows, columns = np.mgrid[:6, :8]
    x, y = np.einsum("ij,jhw->ihw", affine, np.stack([columns, rows, np.ones((6, 8))]))
    expected = scipy.ndimage.map_coordinates(image, [y, x], order=1, mode="grid-constant")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_theta_metrics():
    """The identity, and a view of half the width and a third of the height, off the center."""
    measure = jax.jit(theta_metrics)
    assert jax.tree.map(float, measure(IDENTITY[None])) == {
        "theta_change": 0,
        "theta_translation": 0,
        "theta_scale": 1,
    }
    other = np.array([[0.5, 0, 0.3], [0, 1 / 3, -0.4]], np.float32)
    metrics = measure(np.stack([IDENTITY, other]))
    assert float(metrics["theta_change"]) == pytest.approx((0.5 + 2 / 3 + 0.3 + 0.4) / 12)
    assert float(metrics["theta_translation"]) == pytest.approx(0.25)
    assert float(metrics["theta_scale"]) == pytest.approx((1 + 6**-0.5) / 2)
