"""Images fitted into inputs: the positions of their edges, and the affine back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmpe_jax.detectors.letterbox import fit_image, transform_boxes

RESIZES = ("letterbox", "corner", "stretch")
sides = st.integers(1, 90)


@given(st.tuples(sides, sides), st.tuples(sides, sides), st.sampled_from(RESIZES))
def test_borders_start_at_the_images_edges(size, input_size, resize):
    image = np.full((*size, 3), 255, np.uint8)
    fitted, image_from_input = fit_image(image, input_size, resize, fill=7)
    assert fitted.shape == (*input_size, 3)
    rows, columns = np.nonzero(fitted[..., 0] == 255)
    covered = np.float32([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
    found = transform_boxes(image_from_input, covered)
    np.testing.assert_allclose(found, [[0, 0, size[1], size[0]]], atol=1e-4)
    left, top = covered[0, :2]
    right, bottom = input_size[1] - covered[0, 2], input_size[0] - covered[0, 3]
    assert (fitted == 7).sum() == fitted.size - 3 * len(rows)  # no pixel is partly covered
    assert min(left + right, top + bottom) == 0  # it fills one axis
    if resize == "stretch":
        assert max(left, top, right, bottom) == 0
    elif resize == "corner":
        assert (left, top) == (0, 0)
    else:
        assert 0 <= right - left <= 1
        assert 0 <= bottom - top <= 1


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("input_size", [(64, 96), (96, 64), (50, 50)])
def test_a_bright_spot_comes_back(resize, input_size):
    """The center of gravity in the input maps back to that in the image; pixel-edge coordinates."""
    y, x = np.mgrid[:240, :410] + 0.5
    spot = 255 * np.exp(-((x - 160.3) ** 2 + (y - 110.8) ** 2) / (2 * 30**2))
    image = np.repeat(spot.round().astype(np.uint8)[..., None], 3, -1)
    fitted, image_from_input = fit_image(image, input_size, resize, fill=0)
    weight = fitted[..., 0].astype(np.float64)
    x = (weight.sum(0) * (np.arange(input_size[1]) + 0.5)).sum() / weight.sum()
    y = (weight.sum(1) * (np.arange(input_size[0]) + 0.5)).sum() / weight.sum()
    found = transform_boxes(image_from_input, np.float32([[x, y, x, y]]))[0, :2]
    # An error of half an input pixel would be two image pixels or more.
    np.testing.assert_allclose(found, [160.3, 110.8], atol=0.1)


def test_fine_lines_are_averaged_or_sampled():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, ::4] = 240
    fitted, _ = fit_image(image, (10, 10), "letterbox", average=True)
    assert (fitted == 60).all()
    fitted, _ = fit_image(image, (10, 10), "letterbox")
    assert (fitted != 60).all()


def test_channels_are_kept():
    fitted, _ = fit_image(np.tile(np.uint8([10, 20, 30]), (5, 9, 1)), (8, 8), "stretch")
    assert (fitted == [10, 20, 30]).all()
