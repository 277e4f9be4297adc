"""Writes datasets to a prepared folder, checked and atomically: implements `rmpe prepare`."""

import concurrent.futures
import contextlib
import dataclasses
import errno
import io
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds

from rmpe_jax.data import prepared
from rmpe_jax.data.images import ImageError, decode_image, read_encoded
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset, trainable
from rmpe_jax.errors import UserError
from rmpe_jax.progress import progress

_CHUNK = 256  # images in memory at a time


@dataclasses.dataclass
class Counts:
    """Counts of what was written from one dataset.

    Attributes:
      name: of the dataset.
      images: written; each has at least one person to train on.
      no_people: images skipped because they contain no people to train on.
      people: to train on, in the written images.
      joints: labeled joints of these people.
      unreadable: error messages of the images skipped because they are unreadable, one line each.
    """

    name: str
    images: int = 0
    no_people: int = 0
    people: int = 0
    joints: int = 0
    unreadable: list[str] = dataclasses.field(default_factory=list)


def prepare(
    folder: str | os.PathLike,
    specs: Sequence[str],
    num_shards: int | None = None,
    max_corrupt: float = 0.01,
) -> list[Counts]:
    """Write datasets to one prepared folder.

    Every image is decoded once as a check. The data are written to `FOLDER.incomplete`, which is
    renamed to `FOLDER` when complete. It is removed on failure, or by the next call if the process
    was killed.

    Args:
      folder: output folder; must not exist.
      specs: datasets, as for `open_dataset`.
      num_shards: number of files; by default TFDS chooses it by size.
      max_corrupt: maximum fraction of unreadable images; these are skipped.

    Returns:
      Counts of each dataset.

    Raises:
      UserError: the folder exists or cannot be written, a dataset is unusable, or too many images
        are unreadable.
    """
    folder = pathlib.Path(folder)
    if folder.exists():
        raise UserError(f"{folder} exists: remove it or choose another folder")
    datasets = [open_dataset(spec) for spec in specs]
    counts = [Counts(dataset.name) for dataset in datasets]
    incomplete = folder.with_name(f"{folder.name}.incomplete")
    try:
        shutil.rmtree(incomplete, ignore_errors=True)
        incomplete.mkdir(parents=True)
        records = _keyed_records(datasets, counts, max_corrupt)
        written = _build(incomplete, records, num_shards)
        prepared.write_people(written)
        written.rename(folder)
    except (OSError, RuntimeError) as error:
        if reason := _write_failure(error):
            line = f"cannot write {folder} ({reason}); partial output was removed"
            raise UserError(line) from error
        raise
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)
    return counts


def _build(incomplete: pathlib.Path, records: Iterator, num_shards: int | None) -> pathlib.Path:
    tfds.disable_progress_bar()
    builder = prepared.RmpeImages(records, data_dir=incomplete)
    config = tfds.download.DownloadConfig(num_shards=num_shards)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints messages about downloads
        builder.download_and_prepare(download_config=config)
    return pathlib.Path(builder.data_dir)


def _keyed_records(
    datasets: list[PoseDataset], counts: list[Counts], max_corrupt: float
) -> Iterator[tuple[str, dict]]:
    """Yield (key, prepared record) of every readable image; fill in `counts` on the way."""
    records = [[r for r in dataset.images if trainable(r).any()] for dataset in datasets]
    total = sum(len(of_dataset) for of_dataset in records)
    items = [(i, record) for i, of_dataset in enumerate(records) for record in of_dataset]
    for count, dataset, of_dataset in zip(counts, datasets, records, strict=True):
        count.no_people = len(dataset.images) - len(of_dataset)
    loaded = _load_ahead([record for _, record in items])
    for (i, record), encoded in progress(zip(items, loaded, strict=True), total, "images"):
        if isinstance(encoded, ImageError):
            counts[i].unreadable.append(str(encoded))
            _check_corrupt_fraction(counts, total, max_corrupt)
            continue
        counts[i].images += 1
        counts[i].people += int(trainable(record).sum())
        counts[i].joints += int((record.visibility[trainable(record)] > 0).sum())
        yield f"{i}/{record.image_id}", prepared.make_record(datasets[i], record, encoded)


def _load_ahead(records: list[ImageRecord]) -> Iterator[bytes | ImageError]:
    """Yield the bytes of each image file, or the error if it cannot be decoded."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(records), _CHUNK):
            yield from pool.map(_load, records[start : start + _CHUNK])


def _load(record: ImageRecord) -> bytes | ImageError:
    try:
        encoded = read_encoded(record.path)
        decode_image(encoded, os.fspath(record.path))
    except ImageError as error:
        return error
    return encoded


def _check_corrupt_fraction(counts: list[Counts], total: int, max_corrupt: float) -> None:
    unreadable = [line for count in counts for line in count.unreadable]
    if len(unreadable) > max_corrupt * total:
        raise UserError(
            f"more than {max_corrupt:.2%} of {total} images are unreadable: fix them or allow a "
            f"larger fraction; the first: {unreadable[0]}"
        )


def _write_failure(error: Exception) -> str:
    """What failed and what to do, if `error` is a disk error; otherwise an empty string."""
    if isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(error.errno)
    elif "write() failed: " in str(error):  # raised by the array_record writer
        reason = str(error).partition("write() failed: ")[2].partition(";")[0]
    else:
        return ""
    full = reason == os.strerror(errno.ENOSPC)
    return f"{reason}: {'free some space' if full else 'check the path and its permissions'}"
