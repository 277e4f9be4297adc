"""Writes datasets to a prepared folder, checked and atomically: implements `rmpe prepare`."""

import concurrent.futures
import contextlib
import dataclasses
import errno
import io
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from rmpe_jax.beam import run_to_end
from rmpe_jax.data import beam_prepare, prepared
from rmpe_jax.data.images import ImageError
from rmpe_jax.data.inspection import (
    MAX_SUSPICIOUS,
    Inspection,
    inspect_dataset,
    sample_sizes,
)
from rmpe_jax.data.loaded_images import load_image, trainable_images
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset, trainable
from rmpe_jax.errors import UserError
from rmpe_jax.lock import FolderLock
from rmpe_jax.progress import progress

_CHUNK = 256  # images in memory at a time
_SIZES = "sizes"  # a folder for `beam_prepare`
_OPTION = "--max-suspicious 1"  # allows any number of suspicious labels


@dataclasses.dataclass
class Counts(Inspection):
    """Counts of what was written from one dataset; see `Inspection`.

    Attributes:
      no_people: images skipped because they contain no people to train on.
      unreadable: error messages of the images skipped because they are unreadable, one line each.
    """

    no_people: int = 0
    unreadable: list[str] = dataclasses.field(default_factory=list)

    def rows(self) -> dict[str, int]:
        """The counts by their names in a `summary_table`."""
        return super().rows() | {
            "skipped: images without people to train on": self.no_people,
            "skipped: unreadable images": len(self.unreadable),
        }


def prepare(
    folder: str | os.PathLike,
    specs: Sequence[str],
    num_shards: int | None = None,
    max_corrupt: float = 0.01,
    max_suspicious: float = MAX_SUSPICIOUS,
    beam_options: Any = None,
) -> list[Counts]:
    """Write datasets to one prepared folder.

    Every image is decoded once as a check, and its labels are compared with its size. The data are
    written to `FOLDER.incomplete`, which is renamed to `FOLDER` when complete. It is removed on
    failure, or by the next call if the process was killed. `FOLDER.lock` keeps others away.

    Args:
      folder: output folder; must not exist.
      specs: datasets, as for `open_dataset`.
      num_shards: number of files; by default TFDS chooses it by size.
      max_corrupt: maximum fraction of unreadable images; these are skipped.
      max_suspicious: maximum fraction of people whose labels do not fit their image, and of images
        that do not have the declared size. These are written; a log line counts them.
      beam_options: of `beam.parse_options`: read and write on the workers of Apache Beam. Labels
        and unreadable images are then judged when all is written.

    Returns:
      Counts of each dataset.

    Raises:
      UserError: the folder exists, cannot be written or is being written, a dataset is unusable or
        has no people to train on, too many images are unreadable, too many labels are suspicious,
        or Beam's pipeline fails.
    """
    folder = pathlib.Path(folder)
    with FolderLock(folder, f"{folder}.lock") as lock:
        return _prepare(folder, lock, specs, num_shards, max_corrupt, max_suspicious, beam_options)


def _prepare(
    folder: pathlib.Path,
    lock: FolderLock,
    specs: Sequence[str],
    num_shards: int | None,
    max_corrupt: float,
    max_suspicious: float,
    beam_options: Any,
) -> list[Counts]:
    """Writes a folder that is locked, see `prepare`."""
    if folder.exists():
        raise UserError(f"{folder} exists: remove it or choose another folder")
    datasets = [open_dataset(spec) for spec in specs]
    for dataset in datasets:  # a first look at some images, before all are read
        inspection = inspect_dataset(dataset, dataset.skeleton, sample_sizes(dataset))
        inspection.require_people("train on")
        inspection.require_few(max_suspicious, _OPTION)
    counts = [_start_counts(dataset) for dataset in datasets]
    incomplete = folder.with_name(f"{folder.name}.incomplete")
    try:
        shutil.rmtree(incomplete, ignore_errors=True)
        incomplete.mkdir(parents=True)
        if beam_options is None:
            records = _keyed_records(datasets, counts, max_corrupt, max_suspicious)
            written = _build(incomplete, _while_held(records, lock), num_shards)
        else:
            num_images = len(trainable_images(datasets))
            written = _build_with_beam(incomplete, specs, num_images, num_shards, beam_options)
            sizes = beam_prepare.read_sizes(incomplete / _SIZES, num_images)
            for _ in _counted(datasets, sizes, counts, max_corrupt, max_suspicious):
                pass
        prepared.write_people(written)
        lock.require_held()
        written.rename(folder)
    except (OSError, RuntimeError) as error:
        lock.require_held()  # another process may have removed the files
        if reason := _write_failure(error):
            line = f"cannot write {folder} ({reason}); partial output was removed"
            raise UserError(line) from error
        raise
    finally:
        with contextlib.suppress(UserError):  # else the files are those of another process
            lock.require_held()
            shutil.rmtree(incomplete, ignore_errors=True)
    return counts


def _while_held(records: Iterator, lock: FolderLock) -> Iterator:
    """The records; at their end, when TFDS writes the files, the folder must still be ours."""
    yield from records
    lock.require_held()


def _build(
    incomplete: pathlib.Path, records: Any, num_shards: int | None, **config: Any
) -> pathlib.Path:
    tfds.disable_progress_bar()
    builder = prepared.RmpeImages(records, data_dir=incomplete)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints messages about downloads
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=num_shards, **config)
        )
    return pathlib.Path(builder.data_dir)


def _build_with_beam(
    incomplete: pathlib.Path,
    specs: Sequence[str],
    num_images: int,
    num_shards: int | None,
    options: Any,
) -> pathlib.Path:
    incomplete = incomplete.absolute()

    def build(runner: Any) -> pathlib.Path:
        records = beam_prepare.keyed_records(specs, num_images, incomplete / _SIZES)
        config = {"beam_runner": runner, "beam_options": options}
        return _build(incomplete, records, num_shards, **config)

    def clean_up() -> None:
        shutil.rmtree(incomplete, ignore_errors=True)
        incomplete.mkdir()

    return run_to_end(build, options, clean_up)


def _start_counts(dataset: PoseDataset) -> Counts:
    joints = dataset.skeleton.indices_in(dataset.skeleton)
    return Counts(dataset.name, joints, no_area=dataset.num_without_area)


def _keyed_records(
    datasets: list[PoseDataset], counts: list[Counts], max_corrupt: float, max_suspicious: float
) -> Iterator[tuple[str, dict]]:
    """Yield (key, prepared record) of every readable image; fill in `counts` on the way."""
    loaded = _load_ahead([record for _, record in trainable_images(datasets)])
    for i, record, encoded in _counted(datasets, loaded, counts, max_corrupt, max_suspicious):
        yield prepared.keyed_record(i, datasets[i], record, encoded)


def _counted(
    datasets: list[PoseDataset],
    loaded: Iterable[tuple[bytes, tuple[int, int]] | ImageError],
    counts: list[Counts],
    max_corrupt: float,
    max_suspicious: float,
) -> Iterator[tuple[int, ImageRecord, bytes]]:
    """The readable images with their dataset and bytes; `counts` are filled in on the way.

    Args:
      datasets: all of them.
      loaded: of `load_image` for each of the `trainable_images`.
      counts: of each dataset.
      max_corrupt: as of `prepare`.
      max_suspicious: as of `prepare`.
    """
    images = trainable_images(datasets)
    counted = [[] for _ in datasets]  # images with their sizes
    for count, dataset, in_dataset in zip(counts, datasets, counted, strict=True):
        nobody = [record for record in dataset.images if not trainable(record).any()]
        in_dataset += [(record, None) for record in nobody]
        count.no_people = len(nobody)
    total = len(images)
    for (i, record), image in progress(zip(images, loaded, strict=True), total, "images"):
        if isinstance(image, ImageError):
            counts[i].unreadable.append(str(image))
            _check_corrupt_fraction(counts, total, max_corrupt)
            continue
        encoded, size = image
        counted[i].append((record, size))
        yield i, record, encoded
    for count, in_dataset in zip(counts, counted, strict=True):
        count.add([record for record, _ in in_dataset], [size for _, size in in_dataset])
        count.require_few(max_suspicious, _OPTION)
        count.warn()


def _load_ahead(
    records: list[ImageRecord],
) -> Iterator[tuple[bytes, tuple[int, int]] | ImageError]:
    """Yield the bytes and (height, width) of each image, or the error if it is unreadable."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(records), _CHUNK):
            yield from pool.map(load_image, records[start : start + _CHUNK])


def _check_corrupt_fraction(counts: list[Counts], total: int, max_corrupt: float) -> None:
    unreadable = [line for count in counts for line in count.unreadable]
    if len(unreadable) > max_corrupt * total:
        raise UserError(
            f"more than {max_corrupt:.2%} of {total} images are unreadable: fix them or allow a "
            f"larger fraction; the first: {unreadable[0]}"
        )
    if len(unreadable) == total:
        raise UserError(f"none of {total} images can be read; the first: {unreadable[0]}")


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
