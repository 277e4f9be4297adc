"""From people's boxes to fixed-size batches of crops, each once and in order: for evaluation."""

import collections
import concurrent.futures
import functools
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rmpe_jax.data import augment
from rmpe_jax.data.pictures import PictureError, read_picture
from rmpe_jax.ops import geometry


class PersonBox(NamedTuple):
    """A box to look for a person in.

    Attributes:
      path: the picture's file.
      bbox: xyxy image pixels.
      index: the caller's number for it, handed back with the crop.
    """

    path: pathlib.Path
    bbox: Float[np.ndarray, " 4"]
    index: int


class _Crop(NamedTuple):
    image: np.ndarray
    image_from_crop: np.ndarray
    index: int


def eval_batches(
    items: Sequence[PersonBox],
    *,
    input_size: tuple[int, int],
    padding: float,
    batch_size: int,
    num_threads: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Crops of all boxes, in the order of `items`, pictures decoded ahead in threads.

    Boxes of one picture that follow each other share one decoding. A picture that cannot be read is
    left out with all its boxes, and a log line at the end counts and names such pictures: an index
    that never comes back was one of theirs.

    Args:
      items: the boxes, those of one picture side by side.
      input_size: (height, width) of the crops.
      padding: factor on both sides of the box.
      batch_size: rows of every batch.
      num_threads: threads that decode.

    Yields:
      Dicts of "image" (b, height, width, 3) uint8 RGB, "image_from_crop" (b, 2, 3) float32, "index"
      (b,) int64 and "valid" (b,) bool; the last batch is filled up with black crops of index -1
      that are not valid.
    """
    by_picture = [list(boxes) for _, boxes in itertools.groupby(items, lambda item: item.path)]
    unread: list[PictureError] = []

    def crops() -> Iterator[_Crop]:
        read = functools.partial(_crops, input_size=input_size, padding=padding)
        for found in map_ahead(read, by_picture, num_threads):
            if isinstance(found, PictureError):
                unread.append(found)
            else:
                yield from found

    yield from _batches(crops(), batch_size, input_size)
    if unread:
        logging.getLogger(__name__).warning(
            "%d of %d pictures cannot be read, their boxes are left out: %s",
            len(unread),
            len(by_picture),
            "; ".join(str(error) for error in unread[:10]),
        )


def _crops(
    boxes: list[PersonBox], input_size: tuple[int, int], padding: float
) -> list[_Crop] | PictureError:
    """The crops of all boxes of one picture, or why there are none."""
    try:
        image = read_picture(boxes[0].path)
    except PictureError as error:
        return error
    affines = [geometry.image_from_crop(box.bbox, input_size, padding) for box in boxes]
    return [
        _Crop(augment.crop(image, affine, input_size), affine, box.index)
        for box, affine in zip(boxes, affines, strict=True)
    ]


def map_ahead(function: Callable, items: Iterable, num_threads: int) -> Iterator[Any]:
    """`map` in threads, a few items ahead of the consumer and no more."""
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        running: collections.deque = collections.deque()
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > 4 * num_threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _batches(
    crops: Iterator[_Crop], batch_size: int, input_size: tuple[int, int]
) -> Iterator[dict[str, np.ndarray]]:
    while rows := list(itertools.islice(crops, batch_size)):
        batch = {
            "image": np.zeros((batch_size, *input_size, 3), np.uint8),
            "image_from_crop": np.tile(np.eye(2, 3, dtype=np.float32), (batch_size, 1, 1)),
            "index": np.full(batch_size, -1),
            "valid": np.arange(batch_size) < len(rows),
        }
        for name in ("image", "image_from_crop", "index"):
            batch[name][: len(rows)] = [getattr(row, name) for row in rows]
        yield batch
