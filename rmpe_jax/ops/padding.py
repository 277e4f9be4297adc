"""Pad the people of many images to arrays of few fixed sizes, so that few shapes are compiled.

NumPy only.
"""

import numpy as np
from jaxtyping import Bool, Int

GRAY = 114  # pixel value around an image that is fitted into a larger canvas
_SMALLEST_BUCKET = 8


def bucket_size(count: int) -> int:
    """The size that `count` people are padded to: 8, 16, 32, 64, ..."""
    return max(_SMALLEST_BUCKET, 1 << max(count - 1, 0).bit_length())


def pad_people(
    image_index: Int[np.ndarray, " r"],
    num_images: int,
    size: int,
    *columns: np.ndarray,
) -> tuple[Bool[np.ndarray, "i n"], tuple[np.ndarray, ...]]:
    """Group rows by image into arrays (images, people, ...).

    Args:
      image_index: image of each row, 0 to `num_images` - 1, in any order. The rows of an image keep
        their order.
      num_images: i.
      size: n, at least the highest number of rows of one image.
      columns: arrays (r, ...), such as boxes (r, 4).

    Returns:
      Where there is a person, and the columns (i, n, ...), 0 where there is none.
    """
    counts = np.bincount(image_index, minlength=num_images)
    rows = np.argsort(image_index, kind="stable")
    starts = np.cumsum(counts) - counts
    position = np.arange(len(rows)) - np.repeat(starts, counts)
    target = image_index[rows], position
    valid = np.zeros((num_images, size), bool)
    valid[target] = True
    padded = []
    for column in columns:
        values = np.zeros((num_images, size, *column.shape[1:]), column.dtype)
        values[target] = column[rows]
        padded.append(values)
    return valid, tuple(padded)
