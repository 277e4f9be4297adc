"""Crops made on the device against those that OpenCV makes on the host."""

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


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


# The second is what a batch has beside the first; after their pixels comes what should not matter.
PICTURES = [picture(90, 130), picture(70, 50, seed=1)]
STACK = np.full((2, 20_000, 3), 255, np.uint8)
for row, image in zip(STACK, PICTURES, strict=True):
    row[: image.shape[0] * image.shape[1]] = image.reshape(-1, 3)
SIZES = np.array([image.shape[:2] for image in PICTURES], np.int32)

corner = st.tuples(st.floats(-60, 130), st.floats(-60, 90))
sides = st.tuples(st.floats(1, 300), st.floats(1, 300))


@hypothesis.settings(max_examples=60, derandomize=True)
@hypothesis.given(st.integers(0, 1), corner, sides)
def test_as_on_the_host(index, corner, sides):
    """To a level or so: OpenCV rounds means of blocks, positions to 1/32 pixel and values."""
    bbox = np.array([*corner, corner[0] + sides[0], corner[1] + sides[1]], np.float32)
    image_from_crop = geometry.image_from_crop(bbox, SIZE)
    found = crop(STACK, SIZES, np.array([index]), image_from_crop[None], SIZE)[0]
    expected = augment.crop(PICTURES[index], image_from_crop, SIZE)
    assert np.abs(np.asarray(found) - expected).max() < 3


def test_a_shift_by_whole_pixels():
    image_from_crop = np.array([[[1, 0, 20], [0, 1, 10]]], np.float32)
    found = crop(STACK, SIZES, np.array([0]), image_from_crop, SIZE)[0]
    np.testing.assert_allclose(found, PICTURES[0][10:42, 20:44], atol=1e-3)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_reduced_by_a_whole_number_it_is_the_means_of_blocks(factor):
    """All pixels count, by NumPy's mean."""
    offset = (factor - 1) / 2
    image_from_crop = np.array([[[factor, 0, offset], [0, factor, offset]]], np.float32)
    found = crop(STACK, SIZES, np.array([1]), image_from_crop, SIZE)[0]
    height, width = (min(s, p // factor) for s, p in zip(SIZE, (70, 50), strict=True))
    blocks = PICTURES[1][: height * factor, : width * factor].astype(float)
    means = blocks.reshape(height, factor, width, factor, 3).mean((1, 3))
    np.testing.assert_allclose(found[:height, :width], means, atol=1e-3)
    np.testing.assert_allclose(found[height:], 0, atol=1e-3)
    np.testing.assert_allclose(found[:, width:], 0, atol=1e-3)


def test_what_is_larger_than_the_picture_sees_nothing():
    image_from_crop = np.array([[[200, 0, -2000], [0, 200, -2000]]], np.float32)
    assert not np.asarray(crop(STACK, SIZES, np.array([0]), image_from_crop, SIZE)).any()
