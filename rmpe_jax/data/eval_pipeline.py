"""Evaluation pipeline: fixed-size batches of crops of people's boxes, each once and in order."""

import collections
import concurrent.futures
import functools
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data import augment
from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.ops.geometry import CropSpec


class CropRequest(NamedTuple):
    """A box to crop from an image.

    Attributes:
      path: the image file.
      bbox: xyxy image pixels.
      index: the caller's number for this box, returned with the crop.
    """

    path: pathlib.Path
    bbox: Float[np.ndarray, " 4"]
    index: int


class Unreadable(NamedTuple):
    """The unreadable ones of some images.

    Attributes:
      errors: one line for each of them.
      num_images: how many images there are, with the readable ones.
    """

    errors: list[str]
    num_images: int


class _Crop(NamedTuple):
    image: UInt8[np.ndarray, "h w 3"]
    image_from_crop: Float[np.ndarray, "2 3"]
    index: int


def log_unreadable(unreadable: Unreadable, effect: str = "their boxes are skipped") -> None:
    """Counts and names unreadable images in one log line that says the effect, if there are any."""
    if unreadable.errors:
        logging.getLogger(__name__).warning(
            "%d of %d images cannot be read, %s: %s",
            len(unreadable.errors),
            unreadable.num_images,
            effect,
            "; ".join(unreadable.errors[:10]),
        )


def eval_batches(
    requests: Sequence[CropRequest],
    *,
    crop: CropSpec,
    batch_size: int,
    num_threads: int = 2,
    report: Callable[[Unreadable], None] = log_unreadable,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield crops of all boxes in the order of `requests`; threads decode images ahead.

    Consecutive boxes of one image are decoded together. Unreadable images are skipped with all
    their boxes, so their indices are never returned.

    Args:
      requests: the boxes; keep those of one image next to each other.
      crop: size of the crops and padding of the boxes.
      batch_size: rows of every batch.
      num_threads: decoding threads.
      report: called at the end with the unreadable images; by default a log line counts and names
        them.

    Yields:
      Dicts of "image" (b, height, width, 3) uint8 RGB, "image_from_crop" (b, 2, 3) float32, "index"
      (b,) int64 and "valid" (b,) bool. The last batch is padded with invalid rows: black crops of
      index -1.
    """
    by_image = [list(group) for _, group in itertools.groupby(requests, lambda r: r.path)]
    errors: list[str] = []

    def crops() -> Iterator[_Crop]:
        crop_image = functools.partial(_crops, crop=crop)
        for result in map_ahead(crop_image, by_image, num_threads):
            if isinstance(result, ImageError):
                errors.append(str(result))
            else:
                yield from result

    yield from _batches(crops(), batch_size, crop.input_size)
    report(Unreadable(errors, len(by_image)))


def _crops(requests: list[CropRequest], crop: CropSpec) -> list[_Crop] | ImageError:
    """All requested crops of one image, or the error if the image is unreadable."""
    try:
        image = read_image(requests[0].path)
    except ImageError as error:
        return error
    affines = [crop.image_from_crop(r.bbox) for r in requests]
    return [
        _Crop(augment.crop(image, affine, crop.input_size), affine, request.index)
        for request, affine in zip(requests, affines, strict=True)
    ]


def map_ahead(
    function: Callable, items: Iterable, num_threads: int, ahead: int | None = None
) -> Iterator[Any]:
    """Like `map`, in threads and in order.

    Args:
      function: called in the threads.
      items: its arguments.
      num_threads: number of threads.
      ahead: number of items that are computed ahead of the consumer; by default 4 per thread.
    """
    ahead = 4 * num_threads if ahead is None else ahead
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        running: collections.deque = collections.deque()
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > ahead:
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
