"""Decoding in the STN's view gives the points of the crop, with and without flip test."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from one_program import compiled

from rmpe_jax.codecs.view import ViewCodec, ViewHeatmaps
from rmpe_jax.errors import UserError
from rmpe_jax.models import rmpe
from rmpe_jax.ops import geometry, heatmaps
from rmpe_jax.ops.spatial_transformer import pixels_from_theta

SIZE, HEATMAP_SIZE = (128, 96), (32, 24)
FLIP_INDICES = np.array([0, 2, 1])
CODEC = ViewCodec("mse", SIZE, HEATMAP_SIZE, 2.0, False, "dark", (0.0,) * 3, (1.0,) * 3)
PLAIN = CODEC.window(SIZE)
LARGER = dataclasses.replace(CODEC, sigma=1.0, view_size=(64, 48))  # the SPPE sees a window
POINTS = np.float32([[[40, 60], [60, 50], [50, 80]]])
IDENTITY = np.eye(2, 3, dtype=np.float32)[None]
THETA = np.float32([[[0.8, 0.05, 0.12], [-0.04, 0.9, -0.1]]])
sdtn = compiled(rmpe.sdtn, 2, 3, 4)


def view_of(points, theta, codec=CODEC):
    """Perfect heatmaps of the view that shows these points of the crop."""
    crop_from_raster = pixels_from_theta(theta, SIZE)
    points = geometry.transform_points(geometry.invert(crop_from_raster), points)
    view_size = codec.view_size or SIZE
    window = codec.window(view_size)
    points = window.to_heatmap(points - geometry.window_offset(SIZE, view_size))
    return heatmaps.encode(points, jnp.ones(points.shape[:2]), window.heatmap_size, window.sigma)[0]


def decoded(outputs, codec=CODEC):
    return codec.keypoints(codec.maps(outputs))


def merged_and_decoded(outputs, flipped, flip_indices, codec=CODEC, shift=False):
    maps = codec.merge_flipped(codec.maps(outputs), codec.maps(flipped), flip_indices, shift)
    return codec.keypoints(maps)


view_of, decoded = compiled(view_of, 2), compiled(decoded, 1)
merged_and_decoded = compiled(merged_and_decoded, 3, 4)


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
    pixels = compiled(pixels_from_theta, 1)
    wrong = geometry.transform_points(pixels(THETA, HEATMAP_SIZE), POINTS / 4 - 3 / 8)
    right = geometry.transform_points(pixels(THETA, SIZE), POINTS) / 4 - 3 / 8
    assert np.abs(wrong - right).max() > 0.02


def test_the_flip_test_averages_points():
    """The network sees the crop and the mirrored crop in two views, and errs differently."""
    width = SIZE[1]
    error = np.float32([2, -1])
    mirrored = (POINTS + error)[:, FLIP_INDICES] * np.float32([-1, 1]) + np.float32([width - 1, 0])
    theta = np.float32([[[0.9, -0.06, 0.2], [0.02, 1.1, 0.05]]])
    outputs = ViewHeatmaps(view_of(POINTS, THETA), THETA)
    flipped = ViewHeatmaps(view_of(mirrored, theta), theta)
    found, _ = merged_and_decoded(outputs, flipped, FLIP_INDICES)
    np.testing.assert_allclose(found, POINTS + error / 2, atol=0.03)
    with pytest.raises(UserError, match="flip_shift"):
        merged_and_decoded(outputs, flipped, FLIP_INDICES, CODEC, True)


def test_a_smaller_view_is_decoded_in_the_crop():
    """With a flip test, whose view is another window."""
    points, error = np.float32([[[45, 60], [60, 50], [55, 68]]]), np.float32([2, -1])
    last = np.float32([SIZE[1] - 1, 0])
    mirrored = (points + error)[:, FLIP_INDICES] * np.float32([-1, 1]) + last
    theta = np.float32([[[0.9, -0.06, -0.1], [0.02, 1.1, 0.05]]])
    outputs = ViewHeatmaps(view_of(points, THETA, LARGER), THETA)
    assert outputs.heatmaps.shape == (1, 16, 12, 3)
    flipped = ViewHeatmaps(view_of(mirrored, theta, LARGER), theta)
    np.testing.assert_allclose(decoded(outputs, LARGER)[0], points, atol=0.2)
    found, _ = merged_and_decoded(outputs, flipped, FLIP_INDICES, LARGER)
    np.testing.assert_allclose(found, points + error / 2, atol=0.2)
    warped = sdtn(outputs.heatmaps, THETA, SIZE, view_size=LARGER.view_size)
    np.testing.assert_allclose(decoded(warped, LARGER)[0], points, atol=0.5)


def test_outputs_in_the_crop_are_those_of_the_other_codec():
    maps = view_of(POINTS, IDENTITY)
    for found, expected in zip(decoded(maps), decoded(maps, PLAIN), strict=True):
        np.testing.assert_array_equal(found, expected)
    merged, expected = (compiled(c.merge_flipped)(maps, maps, FLIP_INDICES) for c in (CODEC, PLAIN))
    np.testing.assert_array_equal(merged, expected)


def test_stacks_give_the_last():
    maps = view_of(POINTS, THETA)
    found, _ = decoded(ViewHeatmaps([0 * maps, maps], THETA))
    np.testing.assert_allclose(found, POINTS, atol=0.02)
