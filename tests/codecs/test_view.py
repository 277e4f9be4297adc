"""Decoding in the STN's view gives the points of the crop, with and without flip test."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.codecs.view import ViewCodec, ViewHeatmaps
from rmpe_jax.errors import UserError
from rmpe_jax.models.rmpe import sdtn
from rmpe_jax.ops import geometry, heatmaps
from rmpe_jax.ops.spatial_transformer import pixels_from_theta

SIZE, HEATMAP_SIZE = (128, 96), (32, 24)
FLIP_INDICES = np.array([0, 2, 1])
CODEC = ViewCodec("mse", SIZE, HEATMAP_SIZE, 2.0, False, "dark", (0.0,) * 3, (1.0,) * 3)
PLAIN = CODEC.window(SIZE)
LARGER = dataclasses.replace(CODEC, sigma=1.0, view_size=(64, 48))  # the SPPE sees a window
POINTS = jnp.array([[[40.0, 60.0], [60.0, 50.0], [50.0, 80.0]]])
IDENTITY = jnp.eye(2, 3)[None]
THETA = jnp.array([[[0.8, 0.05, 0.12], [-0.04, 0.9, -0.1]]])


def view_of(points, theta, codec=CODEC):
    """Perfect heatmaps of the view that shows these points of the crop."""
    crop_from_raster = pixels_from_theta(theta, SIZE)
    points = geometry.transform_points(geometry.invert(crop_from_raster), points)
    view_size = codec.view_size or SIZE
    window = codec.window(view_size)
    points = window.to_heatmap(points - geometry.window_offset(SIZE, view_size))
    return heatmaps.encode(points, jnp.ones(points.shape[:2]), window.heatmap_size, window.sigma)[0]


def decoded(outputs, codec=CODEC):
    return jax.jit(lambda outputs: codec.keypoints(codec.maps(outputs)))(outputs)


def test_the_identity_changes_nothing():
    maps = view_of(POINTS, IDENTITY)
    found, scores = decoded(ViewHeatmaps(maps, IDENTITY))
    points, plain_scores = decoded(maps, PLAIN)
    np.testing.assert_allclose(found, points, atol=1e-4)
    np.testing.assert_allclose(scores, plain_scores, atol=1e-6)


def test_points_of_the_view_are_mapped_to_the_crop():
    """Better than by the SDTN, whose second sampling lowers the peaks; both are right.

    A theta applied in the raster of the heatmaps would be off by 3 / 124 of the translation.
    """
    maps = view_of(POINTS, THETA)
    found, scores = decoded(ViewHeatmaps(maps, THETA))
    np.testing.assert_allclose(found, POINTS, atol=0.02)
    warped = sdtn(maps, THETA, SIZE)
    points, warped_scores = decoded(warped, PLAIN)
    np.testing.assert_allclose(points, POINTS, atol=0.2)
    assert (warped_scores < scores).all()
    wrong = geometry.transform_points(pixels_from_theta(THETA, HEATMAP_SIZE), POINTS / 4 - 3 / 8)
    right = geometry.transform_points(pixels_from_theta(THETA, SIZE), POINTS) / 4 - 3 / 8
    assert jnp.abs(wrong - right).max() > 0.02


def test_the_flip_test_averages_points():
    """The network sees the crop and the mirrored crop in two views, and errs differently."""
    width = SIZE[1]
    error = jnp.array([2.0, -1.0])
    mirrored = (POINTS + error)[:, FLIP_INDICES] * jnp.array([-1, 1]) + jnp.array([width - 1, 0])
    theta = jnp.array([[[0.9, -0.06, 0.2], [0.02, 1.1, 0.05]]])
    outputs = ViewHeatmaps(view_of(POINTS, THETA), THETA)
    flipped = ViewHeatmaps(view_of(mirrored, theta), theta)
    merged = CODEC.merge_flipped(CODEC.maps(outputs), CODEC.maps(flipped), FLIP_INDICES)
    found, _ = CODEC.keypoints(merged)
    np.testing.assert_allclose(found, POINTS + error / 2, atol=0.03)
    with pytest.raises(UserError, match="flip_shift"):
        CODEC.merge_flipped(CODEC.maps(outputs), CODEC.maps(flipped), FLIP_INDICES, True)


def test_a_smaller_view_is_decoded_in_the_crop():
    """With a flip test, whose view is another window."""
    points, error = jnp.array([[[45.0, 60.0], [60.0, 50.0], [55.0, 68.0]]]), jnp.array([2.0, -1.0])
    mirrored = (points + error)[:, FLIP_INDICES] * jnp.array([-1, 1]) + jnp.array([SIZE[1] - 1, 0])
    theta = jnp.array([[[0.9, -0.06, -0.1], [0.02, 1.1, 0.05]]])
    outputs = ViewHeatmaps(view_of(points, THETA, LARGER), THETA)
    assert outputs.heatmaps.shape == (1, 16, 12, 3)
    flipped = ViewHeatmaps(view_of(mirrored, theta, LARGER), theta)
    np.testing.assert_allclose(decoded(outputs, LARGER)[0], points, atol=0.2)
    merged = LARGER.merge_flipped(LARGER.maps(outputs), LARGER.maps(flipped), FLIP_INDICES)
    np.testing.assert_allclose(LARGER.keypoints(merged)[0], points + error / 2, atol=0.2)
    warped = sdtn(outputs.heatmaps, THETA, SIZE, view_size=LARGER.view_size)
    np.testing.assert_allclose(decoded(warped, LARGER)[0], points, atol=0.5)


def test_outputs_in_the_crop_are_those_of_the_other_codec():
    maps = view_of(POINTS, IDENTITY)
    for found, expected in zip(decoded(maps), decoded(maps, PLAIN), strict=True):
        np.testing.assert_array_equal(found, expected)
    merged, expected = (c.merge_flipped(maps, maps, FLIP_INDICES) for c in (CODEC, PLAIN))
    np.testing.assert_array_equal(merged, expected)


def test_stacks_give_the_last():
    maps = view_of(POINTS, THETA)
    found, _ = decoded(ViewHeatmaps([0 * maps, maps], THETA))
    np.testing.assert_allclose(found, POINTS, atol=0.02)
