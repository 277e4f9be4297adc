"""From a source of people to batches for training: decode, crop, augment, on the host, with Grain.

The place in the stream is the step number: batch i is a function of the source, the seed and i, the
same for any number of threads, worker processes and hosts. What a step sees is therefore resumed by
`dataset[step:]`. The random numbers depend on the chain of operations in `train_dataset`: adding or
moving one changes every crop of a run. Nothing here imports JAX.
"""

import dataclasses
import functools
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags
from jaxtyping import UInt8

from rmpe_jax.data import augment
from rmpe_jax.data.augment import Augmentation
from rmpe_jax.data.pictures import PictureError, decode_picture
from rmpe_jax.data.sources import Source
from rmpe_jax.errors import UserError
from rmpe_jax.pgpg.sample import NO_PROPOSALS, Proposals
from rmpe_jax.skeletons import Skeleton

MAX_CORRUPT_IN_A_ROW = 100


def train_dataset(
    source: Source,
    *,
    skeleton: Skeleton,
    input_size: tuple[int, int],
    augmentation: Augmentation,
    padding: float,
    batch_size: int,
    seed: int,
    proposals: Proposals = NO_PROPOSALS,
    process_index: int = 0,
    process_count: int = 1,
    strict: bool = False,
) -> grain.MapDataset:
    """The endless stream of training batches; element i is this process's share of batch i.

    An epoch visits every person once, in an order of its own. Elements are dicts of arrays, with
    b = batch_size / process_count:

      "image"              (b, height, width, 3) uint8 RGB
      "keypoints"          (b, k, 2) float32 crop pixels, 0 where not labelled
      "visibility"         (b, k) uint8 0/1/2, of the person, in the crop or not
      "weights"            (b, k) float32, 1 for a labelled keypoint inside the crop, else 0
      "image_from_crop"    (b, 2, 3) float32
      "centred_from_crop"  (b, 2, 3) float32, to pixels of the well-placed crop, see `CropPlan`
      "person_id"          (b,) int64
      "corrupt"            (b,) bool, the picture drawn could not be read

    A picture that cannot be read is named in the log, once in each process, and the next person of
    the source whose picture can be read takes its place; sum "corrupt" to count them.

    Args:
      source: the people, in `skeleton`.
      skeleton: for left-right partners and upper body.
      input_size: (height, width) of the crops.
      augmentation: how crops vary.
      padding: factor on both sides of the box.
      batch_size: of all processes together.
      seed: 0 to 2**32 - 1.
      proposals: the boxes to crop people by, for keypoints of `skeleton`; by default their own.
      process_index: which process this is.
      process_count: how many processes share each batch.
      strict: fail on the first picture that cannot be read.

    Raises:
      UserError: an empty source, a batch size that `process_count` does not divide; while reading,
        `MAX_CORRUPT_IN_A_ROW` people whose pictures cannot be read, or one if `strict`.
    """
    if len(source) == 0:
        raise UserError("no people to train on: the data set is empty")
    load = _LoadPerson(
        source, skeleton, tuple(input_size), augmentation, padding, proposals, strict
    )
    return endless_batches(len(source), load, batch_size, seed, process_index, process_count)


def endless_batches(
    count: int,
    load: Callable[[int, np.random.Generator], dict[str, Any]],
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """Batches of what `load` makes of an index below `count` and a generator, shuffled anew in
    each epoch; element i is this process's share of batch i.

    Raises:
      UserError: `process_count` does not divide the batch size.
    """
    if batch_size % process_count:
        raise UserError(
            f"batch size {batch_size} cannot be shared by {process_count} processes: "
            "make it a multiple of their number"
        )
    elements = grain.MapDataset.range(count).seed(seed).shuffle().repeat().random_map(load)
    # Shared out after the random map: each element's random numbers follow from its place in the
    # whole stream, so that any number of processes makes the same ones.
    return elements[process_index::process_count].batch(batch_size // process_count)


def iterate(
    dataset: grain.MapDataset,
    start_step: int = 0,
    *,
    num_threads: int = 2,
    num_workers: int = 0,
    prefetch: int = 8,
) -> Generator[dict[str, np.ndarray]]:
    """The dataset's batches from `start_step` on, made ahead of time.

    Close the iterator (`contextlib.closing`) to stop its threads and processes. Batches from worker
    processes lie in shared memory: copy what is to outlive the next batch.

    Args:
      dataset: of `train_dataset`.
      start_step: how many batches have been used before.
      num_threads: threads that make batches, in each process.
      num_workers: processes beside this one; 0 makes batches in this process. On up to four cores
        threads are faster. Scripts that use them need the `if __name__ == "__main__"` guard.
      prefetch: batches kept ready by all worker processes together, at least one in each.
    """
    if num_workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # outside of absl's app.run; Grain hands them to its workers
    cv2.setNumThreads(0)  # each thread has a batch of its own to make
    ready = max(1, prefetch // max(1, num_workers))
    read = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=ready)
    workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=ready)
    batches = dataset[start_step:].to_iter_dataset(read)
    iterator = iter(batches.mp_prefetch(workers, worker_init_fn=_init_worker))
    try:
        yield from iterator
    finally:
        iterator.close()


def _init_worker(*_: int) -> None:
    """In each worker process, before it makes batches."""
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this a killed run would leave its workers waiting for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


@dataclasses.dataclass(frozen=True)
class _LoadPerson:
    """Index of a person in the source -> one element of a batch."""

    source: Source
    skeleton: Skeleton
    input_size: tuple[int, int]
    augmentation: Augmentation
    padding: float
    proposals: Proposals
    strict: bool

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        person, image, corrupt = read_or_next(self.source, index, self.strict)
        pose = person["keypoints"], person["visibility"]
        well_placed, proposal = self.proposals.draw(rng, person["bbox"], *pose, image.shape[:2])
        plan = augment.augment(
            rng,
            self.augmentation,
            well_placed,
            *pose,
            skeleton=self.skeleton,
            input_size=self.input_size,
            padding=self.padding,
            proposal=proposal,
        )
        keypoints, visibility = augment.move_keypoints(plan, *pose, self.skeleton.flip_indices)
        crop = augment.crop(image, plan.image_from_crop, self.input_size)
        weights = (visibility > 0) & augment.inside(keypoints, self.input_size)
        return {
            "image": augment.apply_color_gain(crop, plan.color_gain),
            "keypoints": keypoints,
            "visibility": visibility,
            "weights": weights.astype(np.float32),
            "image_from_crop": plan.image_from_crop,
            "centred_from_crop": plan.centred_from_crop,
            "person_id": np.int64(person["person_id"]),
            "corrupt": np.bool_(corrupt),
        }


def read_or_next(
    source: Source, index: int, strict: bool
) -> tuple[dict[str, Any], UInt8[np.ndarray, "h w 3"], bool]:
    """The element at `index` and its picture, or of the next index whose picture can be read.

    Returns:
      The element, the picture, and whether it is another's.

    Raises:
      PictureError: the picture cannot be read, if `strict`.
      UserError: nor can those of many that follow.
    """
    limit = min(len(source), MAX_CORRUPT_IN_A_ROW)
    for tries in range(limit):
        try:
            element = source[(index + tries) % len(source)]
            return element, decode_picture(element["encoded"], element["name"]), tries > 0
        except PictureError as error:
            if strict:
                raise
            _warn_once(str(error))
    raise UserError(
        f"{limit} people in a row have pictures that cannot be read, which the log names: "
        "check the data set's folder"
    )


@functools.cache
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning("%s; another person takes its place", message)
