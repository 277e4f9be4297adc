"""Grain pipeline from labeled images to batches for detector training; same rules as `pipeline`."""

import dataclasses
from typing import Any

import grain
import numpy as np

from rmpe_jax.data import mosaic
from rmpe_jax.data.boxed_images import LabeledImages
from rmpe_jax.data.mosaic import MosaicOptions
from rmpe_jax.data.pipeline import endless_batches, read_or_next
from rmpe_jax.ops.padding import GRAY


def train_dataset(
    source: LabeledImages,
    *,
    input_size: tuple[int, int],
    options: MosaicOptions,
    max_boxes: int,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    strict: bool = False,
) -> grain.MapDataset:
    """The endless stream of training batches; element i is this process's part of batch i.

    Elements are dicts of arrays, with b = batch_size / process_count and n = max_boxes:

      "image"    (b, height, width, 3) uint8 RGB
      "bboxes"   (b, n, 4) float32 xyxy pixels of the image
      "weights"  (b, n) float32, of the boxes; 0 in padding rows
      "ignored"  (b, n, 4) float32, regions that may or may not contain people; padded with 0
      "corrupt"  (b,) bool, a drawn image was unreadable and has been replaced

    Each epoch visits every image once. The other three images of a mosaic are drawn at random.

    Args:
      source: the images with their labels.
      input_size: (height, width).
      options: ranges of the random augmentation.
      max_boxes: maximum number of boxes per image; if there are more, those with the lowest weights
        are ignored.
      batch_size: over all processes.
      seed: 0 to 2**32 - 1.
      process_index: index of this process.
      process_count: number of processes that share each batch.
      strict: fail on the first unreadable image.

    Raises:
      UserError: as `pipeline.train_dataset`.
    """
    load = _LoadCanvas(source, tuple(input_size), options, max_boxes, strict)
    return endless_batches(len(source), load, batch_size, seed, process_index, process_count)


@dataclasses.dataclass(frozen=True)
class _LoadCanvas:
    """Makes one element of a batch from the index of an image in the source."""

    source: LabeledImages
    input_size: tuple[int, int]
    options: MosaicOptions
    max_boxes: int
    strict: bool

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        canvas = np.full((*self.input_size, 3), GRAY, np.uint8)
        tiles = mosaic.tiles(rng, self.options, self.input_size)
        others = rng.integers(len(self.source), size=len(tiles) - 1)
        labels, corrupt = [], False
        for image_index, (rows, columns) in zip([index, *others], tiles, strict=True):
            element, image, replaced = read_or_next(self.source, int(image_index), self.strict)
            tile = canvas[rows, columns]
            labels.append(mosaic.paste(rng, self.options, image, element["labels"], tile))
            corrupt |= replaced
        corners = [(columns.start, rows.start) for rows, columns in tiles]
        bboxes, weights, ignored = mosaic.join(labels, corners, self.max_boxes)
        return {
            "image": canvas,
            "bboxes": bboxes,
            "weights": weights,
            "ignored": ignored,
            "corrupt": np.bool_(corrupt),
        }
