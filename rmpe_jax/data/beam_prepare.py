"""Images read on many machines by Apache Beam, for `rmpe prepare --beam-options`.

Workers get the numbers of images in groups. Each opens the datasets once, and gives the records of
its images to TFDS, which writes them. The sizes of images and the reasons why others cannot be read
go to a file for each group, since TFDS does not pass them on.
"""

import functools
import json
import pathlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from rmpe_jax.beam import import_beam
from rmpe_jax.data import prepared
from rmpe_jax.data.images import ImageError
from rmpe_jax.data.loaded_images import load_image, trainable_images
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.files import write_json

_GROUP_SIZE = 64  # images that a worker takes together
_LOADING = threading.Lock()


def keyed_records(specs: Sequence[str], num_images: int, sizes: pathlib.Path) -> Any:
    """The prepared records as a `PTransform`, for `prepared.RmpeImages`.

    Args:
      specs: datasets, as of `open_dataset`; all workers must see them under these names.
      num_images: number of `trainable_images` in them.
      sizes: a folder that all workers see, for `read_sizes`.
    """
    beam = import_beam()
    groups = beam.Create(range(0, num_images, _GROUP_SIZE)) | "share out" >> beam.Reshuffle()
    return groups | "read" >> beam.FlatMap(_Read(tuple(specs), sizes))


def read_sizes(
    sizes: pathlib.Path, num_images: int
) -> Iterator[tuple[bytes, tuple[int, int]] | ImageError]:
    """What `load_image` gives for each image, without the bytes, after the pipeline."""
    for start in range(0, num_images, _GROUP_SIZE):
        for found in json.loads(_file(sizes, start).read_text(encoding="utf-8")):
            yield ImageError(found) if isinstance(found, str) else (b"", tuple(found))


class _Read:
    """What a worker does with the group of images that begins at a number."""

    def __init__(self, specs: tuple[str, ...], sizes: pathlib.Path) -> None:
        self._specs, self._sizes = specs, sizes

    def __call__(self, start: int) -> Iterator[tuple[str, dict[str, Any]]]:
        with _LOADING:
            datasets, images = _opened(self._specs)
        sizes: list[str | tuple[int, int]] = []
        for number, record in images[start : start + _GROUP_SIZE]:
            loaded = load_image(record)
            if isinstance(loaded, ImageError):
                sizes.append(str(loaded))
                continue
            encoded, size = loaded
            sizes.append(size)
            yield prepared.keyed_record(number, datasets[number], record, encoded)
        write_json(_file(self._sizes, start), sizes)


@functools.lru_cache(maxsize=1)
def _opened(
    specs: tuple[str, ...],
) -> tuple[list[PoseDataset], list[tuple[int, ImageRecord]]]:
    """The datasets and their images, which the threads of this process share."""
    datasets = [open_dataset(spec) for spec in specs]
    return datasets, trainable_images(datasets)


def _file(sizes: pathlib.Path, start: int) -> pathlib.Path:
    return sizes / f"{start:09}.json"
