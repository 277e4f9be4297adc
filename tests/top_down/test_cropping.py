"""Crops on the device, compared with those of OpenCV on the host."""

import cv2
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from rmpe_jax.data import augment
from rmpe_jax.ops import geometry
from rmpe_jax.top_down.cropping import crop_people

SIZE = (32, 24)
crop = jax.jit(crop_people, static_argnums=4)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


# A batch of two images; the values after their pixels must not matter.
IMAGES = [random_image(90, 130), random_image(70, 50, seed=1)]
PIXELS = np.full((2, 20_000, 3), 255, np.uint8)
for row, image in zip(PIXELS, IMAGES, strict=True):
    row[: image.shape[0] * image.shape[1]] = image.reshape(-1, 3)
SIZES = np.array([image.shape[:2] for image in IMAGES], np.int32)

corner = st.tuples(st.floats(-60, 130), st.floats(-60, 90))
sides = st.tuples(st.floats(1, 300), st.floats(1, 300))


@hypothesis.settings(max_examples=60, derandomize=True)
@hypothesis.given(st.integers(0, 1), corner, sides)
def test_crops_are_those_of_the_host(index, corner, sides):
    """Up to rounding: OpenCV rounds means of blocks, positions to 1/32 pixel, and values."""
    bbox = np.array([*corner, corner[0] + sides[0], corner[1] + sides[1]], np.float32)
    image_from_crop = geometry.image_from_crop(bbox, SIZE)
    found = crop(PIXELS, SIZES, np.array([index]), image_from_crop[None], SIZE)[0]
    expected = augment.crop(IMAGES[index], image_from_crop, SIZE)
    assert np.abs(np.asarray(found) - expected).max() < 3


def test_a_shift_by_integer_pixels():
    image_from_crop = np.array([[[1, 0, 20], [0, 1, 10]]], np.float32)
    found = crop(PIXELS, SIZES, np.array([0]), image_from_crop, SIZE)[0]
    np.testing.assert_allclose(found, IMAGES[0][10:42, 20:44], atol=1e-3)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_reduction_by_an_integer_gives_the_means_of_blocks(factor):
    """Every pixel counts; the reference is NumPy's mean."""
    offset = (factor - 1) / 2
    image_from_crop = np.array([[[factor, 0, offset], [0, factor, offset]]], np.float32)
    found = crop(PIXELS, SIZES, np.array([1]), image_from_crop, SIZE)[0]
    height, width = (min(s, p // factor) for s, p in zip(SIZE, (70, 50), strict=True))
    blocks = IMAGES[1][: height * factor, : width * factor].astype(float)
    means = blocks.reshape(height, factor, width, factor, 3).mean((1, 3))
    np.testing.assert_allclose(found[:height, :width], means, atol=1e-3)
    np.testing.assert_allclose(found[height:], 0, atol=1e-3)
    np.testing.assert_allclose(found[:, width:], 0, atol=1e-3)


def test_crop_pixels_larger_than_the_image_are_black():
    image_from_crop = np.array([[[200, 0, -2000], [0, 200, -2000]]], np.float32)
    assert not np.asarray(crop(PIXELS, SIZES, np.array([0]), image_from_crop, SIZE)).any()
