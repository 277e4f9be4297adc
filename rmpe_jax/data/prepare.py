"""Write data sets to a prepared folder, checked and at once: the work of `rmpe prepare`."""

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

from rmpe_jax.data import pictures, prepared
from rmpe_jax.data.pictures import PictureError
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import Picture, PoseDataset, trainable
from rmpe_jax.errors import UserError
from rmpe_jax.progress import progress

_CHUNK = 256  # pictures in memory at a time


@dataclasses.dataclass
class Counts:
    """What was written of one data set.

    Attributes:
      name: of the data set.
      pictures: written, each with somebody to train on.
      nobody: pictures left out because there is nobody to train on.
      people: to train on.
      joints: labelled, of these people.
      unreadable: one line for each picture left out because it cannot be read.
    """

    name: str
    pictures: int = 0
    nobody: int = 0
    people: int = 0
    joints: int = 0
    unreadable: list[str] = dataclasses.field(default_factory=list)


def prepare(
    folder: str | os.PathLike,
    specs: Sequence[str],
    num_shards: int | None = None,
    max_corrupt: float = 0.01,
) -> list[Counts]:
    """Write the data sets `specs` as one prepared folder.

    Pictures are decoded once, to be sure of them. The folder appears under its name when it is
    complete; until then it is `FOLDER.incomplete`, which is removed on failure and, should the
    process be killed, by the next call.

    Args:
      folder: to be made; must not exist.
      specs: as for `open_dataset`.
      num_shards: number of files; by default TFDS chooses it by size.
      max_corrupt: share of the pictures that may be unreadable; they are left out.

    Returns:
      Counts of each data set.

    Raises:
      UserError: the folder exists or cannot be written, a data set cannot be used, or too many
        pictures are unreadable.
    """
    folder = pathlib.Path(folder)
    if folder.exists():
        raise UserError(f"{folder} exists: remove it or name another folder")
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
            raise UserError(f"cannot write {folder} ({reason}); nothing is left of it") from error
        raise
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)
    return counts


def _build(incomplete: pathlib.Path, records: Iterator, num_shards: int | None) -> pathlib.Path:
    tfds.disable_progress_bar()
    builder = prepared.RmpePictures(records, data_dir=incomplete)
    config = tfds.download.DownloadConfig(num_shards=num_shards)
    with contextlib.redirect_stdout(io.StringIO()):  # it talks of downloads
        builder.download_and_prepare(download_config=config)
    return pathlib.Path(builder.data_dir)


def _keyed_records(
    datasets: list[PoseDataset], counts: list[Counts], max_corrupt: float
) -> Iterator[tuple[str, dict]]:
    """Records of all pictures that can be read; fills in `counts` on the way."""
    wanted = [[p for p in dataset.pictures if trainable(p).any()] for dataset in datasets]
    total = sum(len(of_dataset) for of_dataset in wanted)
    items = [(i, picture) for i, of_dataset in enumerate(wanted) for picture in of_dataset]
    for count, dataset, of_dataset in zip(counts, datasets, wanted, strict=True):
        count.nobody = len(dataset.pictures) - len(of_dataset)
    loaded = _load_ahead([picture for _, picture in items])
    for (i, picture), encoded in progress(zip(items, loaded, strict=True), total, "pictures"):
        if isinstance(encoded, PictureError):
            counts[i].unreadable.append(str(encoded))
            _check_share(counts, total, max_corrupt)
            continue
        counts[i].pictures += 1
        counts[i].people += int(trainable(picture).sum())
        counts[i].joints += int((picture.visibility[trainable(picture)] > 0).sum())
        yield f"{i}/{picture.image_id}", prepared.make_record(datasets[i], picture, encoded)


def _load_ahead(wanted: list[Picture]) -> Iterator[bytes | PictureError]:
    """The files of pictures that can be decoded; why not, of the others."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(wanted), _CHUNK):
            yield from pool.map(_load, wanted[start : start + _CHUNK])


def _load(picture: Picture) -> bytes | PictureError:
    try:
        encoded = pictures.read_encoded(picture.path)
        pictures.decode_picture(encoded, os.fspath(picture.path))
    except PictureError as error:
        return error
    return encoded


def _check_share(counts: list[Counts], total: int, max_corrupt: float) -> None:
    unreadable = [line for count in counts for line in count.unreadable]
    if len(unreadable) > max_corrupt * total:
        raise UserError(
            f"more than {max_corrupt:.2%} of {total} pictures cannot be read: mend them or allow a "
            f"larger share; the first: {unreadable[0]}"
        )


def _write_failure(error: Exception) -> str:
    """What failed and what to do, if it is the disk that failed; else nothing."""
    if isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(error.errno)
    elif "write() failed: " in str(error):  # of the array_record writer
        reason = str(error).partition("write() failed: ")[2].partition(";")[0]
    else:
        return ""
    full = reason == os.strerror(errno.ENOSPC)
    return f"{reason}: {'free some space' if full else 'check the place and its permissions'}"
