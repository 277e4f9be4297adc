"""The images that `rmpe prepare` writes: which they are, and their files."""

import os
from collections.abc import Sequence

from rmpe_jax.data.images import ImageError, decode_image, read_encoded
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset, trainable


def trainable_images(datasets: Sequence[PoseDataset]) -> list[tuple[int, ImageRecord]]:
    """The images with people to train on, each with the number of its dataset."""
    return [
        (number, record)
        for number, dataset in enumerate(datasets)
        for record in dataset.images
        if trainable(record).any()
    ]


def load_image(record: ImageRecord) -> tuple[bytes, tuple[int, int]] | ImageError:
    """The bytes of an image file and its (height, width), or the error if it is unreadable."""
    try:
        encoded = read_encoded(record.path)
        height, width, _ = decode_image(encoded, os.fspath(record.path)).shape
    except ImageError as error:
        return error
    return encoded, (height, width)
