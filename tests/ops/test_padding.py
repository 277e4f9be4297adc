import numpy as np
import pytest

from rmpe_jax.ops.padding import bucket_size, pad_people


@pytest.mark.parametrize(
    ("count", "size"), [(0, 8), (1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (100, 128)]
)
def test_bucket(count, size):
    assert bucket_size(count) == size


def test_rows_go_to_their_images_in_order():
    image = np.array([2, 0, 2, 2])
    scores = np.float32([0.1, 0.2, 0.3, 0.4])
    boxes = np.arange(16).reshape(4, 4)
    valid, (padded_scores, padded_boxes) = pad_people(image, 4, 3, scores, boxes)
    assert valid.tolist() == [[True, False, False], [False] * 3, [True] * 3, [False] * 3]
    np.testing.assert_array_equal(padded_scores[2], scores[[0, 2, 3]])
    np.testing.assert_array_equal(padded_boxes[0], [boxes[1], [0] * 4, [0] * 4])
    assert (padded_scores.dtype, padded_boxes.dtype) == (np.float32, boxes.dtype)


def test_nobody_at_all():
    valid, (boxes,) = pad_people(np.zeros(0, np.int64), 2, 8, np.zeros((0, 4), np.float32))
    assert boxes.shape == (2, 8, 4)
    assert not valid.any()
