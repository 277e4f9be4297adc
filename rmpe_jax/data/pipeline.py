"""Grain pipeline from a source of people to training batches: decode, augment, crop, on the host.

Batch i is a function of the source, the seed and i only. It is the same for any number of threads,
worker processes and hosts, so a run is resumed at step i by `dataset[i:]`. The random numbers
depend on the chain of Grain operations in `endless_batches`: adding or moving an operation changes
every crop of a run. Nothing here imports JAX.
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
from jaxtyping import Float, Int, UInt8

from rmpe_jax.data import augment
from rmpe_jax.data.augment import Augmentation
from rmpe_jax.data.images import ImageError, decode_image
from rmpe_jax.data.sources import Source
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.pgpg.sample import NO_PROPOSALS, Proposals
from rmpe_jax.skeletons import Skeleton

MAX_CORRUPT_IN_A_ROW = 100
MIN_JOINTS_OF_CUT = 3  # an image is not cut if fewer labeled joints remain in it


def train_dataset(
    source: Source,
    *,
    skeleton: Skeleton,
    crop: CropSpec,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    proposals: Proposals = NO_PROPOSALS,
    resident: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    strict: bool = False,
) -> grain.MapDataset:
    """The endless stream of training batches; element i is this process's part of batch i.

    Each epoch visits every person once, in a new random order. Elements are dicts of arrays, with
    b = batch_size / process_count:

      "image"               (b, height, width, 3) uint8 RGB
      "keypoints"           (b, k, 2) float32 crop pixels, 0 where not labeled
      "visibility"          (b, k) uint8 0/1/2, for joints inside and outside the crop
      "weights"             (b, k) float32, 1 for a labeled keypoint inside the crop, else 0
      "image_from_crop"     (b, 2, 3) float32
      "centered_from_crop"  (b, 2, 3) float32, to pixels of the well-placed crop, see `CropPlan`
      "person_id"           (b,) int64
      "corrupt"             (b,) bool, the drawn image was unreadable and has been replaced

    If `resident`, the device samples the crops, and instead of "image" there are:

      "canvas"              (b,) int32, the row of the person's canvas
      "canvas_from_crop"    (b, 2, 3) float32
      "color_gain"          (b, 3) float32
      "region"              (b, 4) float32, outer edges of the image, xyxy canvas pixels
      "coarseness"          (b,) float32, see `CropPlan`

    An unreadable image is logged (once per process) and replaced by the next person of the source
    whose image is readable; sum "corrupt" to count such replacements.

    Args:
      source: the people, with joints of `skeleton`.
      skeleton: defines left-right partners and upper-body joints.
      crop: size of the crops and padding of the boxes.
      augmentation: ranges of the random augmentation.
      batch_size: over all processes.
      seed: 0 to 2**32 - 1.
      proposals: draws the boxes to crop, for keypoints of `skeleton`; by default the people's own.
      resident: the source is of `ResidentPeople`, as `data.resident` makes it.
      process_index: index of this process.
      process_count: number of processes that share each batch.
      strict: fail on the first unreadable image.

    Raises:
      UserError: the source is empty, or `process_count` does not divide the batch size. While
        reading: `MAX_CORRUPT_IN_A_ROW` people in a row have unreadable images, or one if `strict`.
    """
    if len(source) == 0:
        raise UserError("no people to train on: the dataset is empty")
    loader = _LoadResidentPerson if resident else _LoadPerson
    load = loader(source, skeleton, crop, augmentation, proposals, strict)
    return endless_batches(len(source), load, batch_size, seed, process_index, process_count)


def endless_batches(
    count: int,
    load: Callable[[int, np.random.Generator], dict[str, Any]],
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """Endless batches of `load(index, rng)`; element i is this process's part of batch i.

    Args:
      count: indices run from 0 to count - 1, each once per epoch, in a new random order.
      load: makes one element from an index and a random generator.
      batch_size: over all processes.
      seed: 0 to 2**32 - 1.
      process_index: index of this process.
      process_count: number of processes that share each batch.

    Raises:
      UserError: `process_count` does not divide the batch size.
    """
    if batch_size % process_count:
        raise UserError(
            f"batch size {batch_size} is not divisible by {process_count} processes: "
            "use a multiple of their number"
        )
    elements = grain.MapDataset.range(count).seed(seed).shuffle().repeat().random_map(load)
    # Split between processes after the random map: each element's random numbers depend on its
    # position in the full stream, so they are the same for any number of processes.
    return elements[process_index::process_count].batch(batch_size // process_count)


def iterate(
    dataset: grain.MapDataset,
    start_step: int = 0,
    *,
    num_threads: int = 2,
    num_workers: int = 0,
    prefetch: int = 8,
) -> Generator[dict[str, np.ndarray]]:
    """Iterate over the batches of a dataset from `start_step` on, with prefetching.

    Close the iterator (`contextlib.closing`) to stop its threads and processes. Batches from worker
    processes are in shared memory: copy arrays that you need after the next batch.

    Args:
      dataset: as `train_dataset` returns it.
      start_step: number of batches to skip.
      num_threads: threads that make batches, in each process.
      num_workers: worker processes; 0 makes batches in this process. On up to four cores threads
        are faster. Scripts that use workers need the `if __name__ == "__main__"` guard.
      prefetch: batches kept ready by all worker processes together, at least one each.

    Raises:
      UserError: a worker process was killed.
    """
    if num_workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain passes absl flags to its workers, also without app.run
    cv2.setNumThreads(0)  # threads already work on different batches
    ready = max(1, prefetch // max(1, num_workers))
    read = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=ready)
    workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=ready)
    batches = dataset[start_step:].to_iter_dataset(read)
    iterator = iter(batches.mp_prefetch(workers, worker_init_fn=_init_worker))
    try:
        yield from iterator
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):  # Grain has no type for it
            raise
        raise UserError(
            "a worker process of the data loader was ended from outside, as when memory is short: "
            "lower config.data.num_workers or config.data.prefetch, and run the same command again"
        ) from error
    finally:
        iterator.close()


def _init_worker(*_: int) -> None:
    """Runs once in each worker process before it makes batches."""
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent process ends. Otherwise a killed run leaves its workers waiting."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


@dataclasses.dataclass(frozen=True)
class _LoadPerson:
    """Makes one element of a batch from the index of a person in the source."""

    source: Source
    skeleton: Skeleton
    crop: CropSpec
    augmentation: Augmentation
    proposals: Proposals
    strict: bool

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        person, image, corrupt = read_or_next(self.source, index, self.strict)
        region, plan, labels = self._draw(rng, person, image.shape[:2])
        x1, y1, x2, y2 = region
        region_from_crop = plan.image_from_crop - np.array([[0, 0, x1], [0, 0, y1]], np.float32)
        crop = augment.crop(
            image[y1:y2, x1:x2], region_from_crop, self.crop.input_size, plan.coarseness
        )
        crop = augment.apply_color_gain(crop, plan.color_gain)
        return labels | {"image": crop, "corrupt": np.bool_(corrupt)}

    def _draw(
        self, rng: np.random.Generator, person: dict[str, Any], size: tuple[int, int]
    ) -> tuple[Int[np.ndarray, " 4"], augment.CropPlan, dict[str, Any]]:
        """The part of the image that is used, a random crop of the person in it, and its labels."""
        bbox, keypoints, visibility = person["bbox"], person["keypoints"], person["visibility"]
        region = augment.cut_image(rng, self.augmentation, bbox, size)
        if _size(region) != tuple(size):
            remains = visibility * augment.inside(keypoints - region[:2], _size(region))
            if (remains > 0).sum() < min(MIN_JOINTS_OF_CUT, (visibility > 0).sum()):
                region = np.array([0, 0, size[1], size[0]])
            else:
                visibility = remains
                bbox = np.concatenate(
                    [np.maximum(bbox[:2], region[:2]), np.minimum(bbox[2:], region[2:])]
                )
        pose = keypoints, visibility
        well_placed, proposal = self._draw_boxes(rng, bbox, *pose, region)
        plan = augment.augment(
            rng,
            self.augmentation,
            well_placed,
            *pose,
            skeleton=self.skeleton,
            input_size=self.crop.input_size,
            padding=self.crop.padding,
            proposal=proposal,
        )
        keypoints, visibility = augment.move_keypoints(plan, *pose, self.skeleton.flip_indices)
        weights = (visibility > 0) & augment.inside(keypoints, self.crop.input_size)
        return (
            region,
            plan,
            {
                "keypoints": keypoints,
                "visibility": visibility,
                "weights": weights.astype(np.float32),
                "image_from_crop": plan.image_from_crop,
                "centered_from_crop": plan.centered_from_crop,
                "person_id": np.int64(person["person_id"]),
            },
        )

    def _draw_boxes(
        self,
        rng: np.random.Generator,
        bbox: Float[np.ndarray, " 4"],
        keypoints: Float[np.ndarray, "k 2"],
        visibility: UInt8[np.ndarray, " k"],
        region: Int[np.ndarray, " 4"],
    ) -> tuple[Float[np.ndarray, " 4"], Float[np.ndarray, " 4"]]:
        """The person's box and a proposal, as if the region were the whole image."""
        corner = region[:2].astype(np.float32)
        if not corner.any():
            return self.proposals.draw(rng, bbox, keypoints, visibility, _size(region))
        corners = np.concatenate([corner, corner])
        boxes = self.proposals.draw(
            rng, bbox - corners, keypoints - corner, visibility, _size(region)
        )
        return boxes[0] + corners, boxes[1] + corners


def _size(region: Int[np.ndarray, " 4"]) -> tuple[int, int]:
    return int(region[3] - region[1]), int(region[2] - region[0])


class _LoadResidentPerson(_LoadPerson):
    """Makes one element of a batch without its image, of a source of `ResidentPeople`."""

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        person = self.source[index]
        region, plan, labels = self._draw(rng, person, person["image_size"])
        # The outer edges of the region, in pixel centers' coordinates.
        corners = region.reshape(2, 2).astype(np.float32) - 0.5
        return labels | {
            "region": geometry.transform_points(person["canvas_from_image"], corners).ravel(),
            "coarseness": np.float32(plan.coarseness),
            "canvas": np.int32(person["canvas"]),
            "canvas_from_crop": geometry.compose(person["canvas_from_image"], plan.image_from_crop),
            "color_gain": plan.color_gain,
            "corrupt": np.bool_(False),
        }


def read_or_next(
    source: Source, index: int, strict: bool
) -> tuple[dict[str, Any], UInt8[np.ndarray, "h w 3"], bool]:
    """Read the element at `index` and its image; if unreadable, those of the next readable index.

    Returns:
      The element, its decoded image, and whether it replaces an unreadable one.

    Raises:
      ImageError: the image is unreadable and `strict` is set.
      UserError: `MAX_CORRUPT_IN_A_ROW` elements in a row, or all, have unreadable images.
    """
    limit = min(len(source), MAX_CORRUPT_IN_A_ROW)
    for tries in range(limit):
        try:
            element = source[(index + tries) % len(source)]
            return element, decode_image(element["encoded"], element["name"]), tries > 0
        except ImageError as error:
            if strict:
                raise
            _warn_once(str(error))
    raise UserError(
        f"{limit} elements in a row have unreadable images (the log names them): "
        "check the folder of the dataset"
    )


@functools.cache
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning("%s; the next readable image is used instead", message)
