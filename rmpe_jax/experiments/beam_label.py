"""The people of a dataset found on many machines by Apache Beam: `rmpe label --beam-options`.

Workers get the numbers of images in groups. Each opens the dataset and loads the model once, and
writes what it finds in a group to a file. The files get their names when they are complete, so that
a pipeline that runs again only does what is missing.
"""

import dataclasses
import functools
import itertools
import pathlib
import pickle
import shutil
import threading
from typing import Any

from rmpe_jax.beam import import_beam, run_pipeline
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.entry import use_compilation_cache
from rmpe_jax.experiments.found_people import Found, PeopleFinder, SourceSettings, boxes_of_file
from rmpe_jax.files import atomic_write

_GROUP_SIZE = 64  # images that a worker takes together
_FOLDER = ".found"
_LOADING = threading.Lock()


def find_with_beam(
    data: str, settings: SourceSettings, out: pathlib.Path, options: Any, num_images: int
) -> list[Found | str]:
    """What a model finds in each image of a dataset, or why the image cannot be read.

    Args:
      data: the dataset, as of `open_dataset`; all workers must see it under this name.
      settings: of the model and the detector, whose files must be on every worker.
      out: a folder that all workers see, which nobody else writes to.
      options: of `parse_options`.
      num_images: of the dataset.

    Raises:
      UserError: the pipeline fails, see `run_to_end`.
    """
    folder = out.absolute() / _FOLDER
    starts = range(0, num_images, _GROUP_SIZE)
    beam = import_beam()

    def build(pipeline: Any) -> None:
        find = _Find(data, settings, folder)
        groups = pipeline | "list" >> beam.Create(starts) | "share out" >> beam.Reshuffle()
        _ = groups | "find" >> beam.Map(find)

    shutil.rmtree(folder, ignore_errors=True)
    try:
        run_pipeline(build, options, lambda: None)
        groups = [pickle.loads(_file(folder, start).read_bytes()) for start in starts]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return list(itertools.chain.from_iterable(groups))


class _Find:
    """What a worker does with the group of images that begins at a number."""

    def __init__(self, data: str, settings: SourceSettings, folder: pathlib.Path) -> None:
        self._data, self._settings, self._folder = data, settings, folder

    def __call__(self, start: int) -> None:
        path = _file(self._folder, start)
        if path.exists():
            return
        with _LOADING:
            dataset, boxes, finder = _opened(self._data, self._settings)
        group = slice(start, start + _GROUP_SIZE)
        images = dataclasses.replace(dataset, images=dataset.images[group])
        found = finder(images, None if boxes is None else boxes[group])
        with atomic_write(path, "wb") as file:
            pickle.dump(found, file)


@functools.lru_cache(maxsize=1)
def _opened(
    data: str, settings: SourceSettings
) -> tuple[PoseDataset, list[Boxes] | None, PeopleFinder]:
    """The dataset, boxes of a file, and the model of this process, which its threads share."""
    use_compilation_cache()
    dataset = open_dataset(data)
    boxes = boxes_of_file(settings.detections, dataset) if settings.detections else None
    return dataset, boxes, PeopleFinder(settings.open(), show_progress=False)


def _file(folder: pathlib.Path, start: int) -> pathlib.Path:
    return folder / f"{start:09}.pickle"
