"""People of many pictures as arrays of a fixed size, so that few shapes are compiled.

NumPy alone.
"""

import numpy as np
from jaxtyping import Bool, Int

GRAY = 114  # value of pixels around an image that is fitted into a larger canvas
_SMALLEST_BUCKET = 8


def bucket(count: int) -> int:
    """The number of people that `count` is padded to: 8, 16, 32, 64, ..."""
    return max(_SMALLEST_BUCKET, 1 << max(count - 1, 0).bit_length())


def pad_people(
    picture_index: Int[np.ndarray, " r"],
    num_pictures: int,
    size: int,
    *columns: np.ndarray,
) -> tuple[Bool[np.ndarray, "i n"], tuple[np.ndarray, ...]]:
    """Rows that each belong to a picture, as arrays (pictures, people, ...).

    Args:
      picture_index: of each row, 0 to `num_pictures` - 1, in any order; a picture's rows keep
        theirs.
      num_pictures: i.
      size: n, at least the greatest number of rows of one picture.
      columns: arrays (r, ...), such as boxes (r, 4).

    Returns:
      Where there is a person, and the columns (i, n, ...), 0 where there is none.
    """
    counts = np.bincount(picture_index, minlength=num_pictures)
    rows = np.argsort(picture_index, kind="stable")
    starts = np.cumsum(counts) - counts
    place = np.arange(len(rows)) - np.repeat(starts, counts)
    at = picture_index[rows], place
    valid = np.zeros((num_pictures, size), bool)
    valid[at] = True
    padded = []
    for column in columns:
        target = np.zeros((num_pictures, size, *column.shape[1:]), column.dtype)
        target[at] = column[rows]
        padded.append(target)
    return valid, tuple(padded)
