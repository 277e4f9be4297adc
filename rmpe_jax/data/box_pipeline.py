"""From labelled pictures to batches for training a detector; see `pipeline`, whose rules hold."""

import dataclasses
from typing import Any

import grain
import numpy as np

from rmpe_jax.data import mosaic
from rmpe_jax.data.boxed_pictures import LabelledPictures
from rmpe_jax.data.mosaic import MosaicOptions
from rmpe_jax.data.pipeline import endless_batches, read_or_next
from rmpe_jax.ops.padding import GRAY


def train_dataset(
    source: LabelledPictures,
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
    """The endless stream of training batches; element i is this process's share of batch i.

    Elements are dicts of arrays, with b = batch_size / process_count and n = max_boxes:

      "image"    (b, height, width, 3) uint8 RGB
      "bboxes"   (b, n, 4) float32 xyxy pixels of the image
      "weights"  (b, n) float32, of people; 0 where there is none
      "ignored"  (b, n, 4) float32, regions where there may be people or not; the rest is 0
      "corrupt"  (b,) bool, a picture drawn could not be read

    An epoch visits every picture once; the other three of a mosaic come by chance.

    Args:
      source: the pictures.
      input_size: (height, width).
      options: how pictures vary.
      max_boxes: people a picture can have; those that weigh least are ignored if there are more.
      batch_size: of all processes together.
      seed: 0 to 2**32 - 1.
      process_index: which process this is.
      process_count: how many processes share each batch.
      strict: fail on the first picture that cannot be read.

    Raises:
      UserError: as `pipeline.train_dataset`.
    """
    load = _LoadCanvas(source, tuple(input_size), options, max_boxes, strict)
    return endless_batches(len(source), load, batch_size, seed, process_index, process_count)


@dataclasses.dataclass(frozen=True)
class _LoadCanvas:
    """Index of a picture in the source -> one element of a batch."""

    source: LabelledPictures
    input_size: tuple[int, int]
    options: MosaicOptions
    max_boxes: int
    strict: bool

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        canvas = np.full((*self.input_size, 3), GRAY, np.uint8)
        tiles = mosaic.tiles(rng, self.options, self.input_size)
        others = rng.integers(len(self.source), size=len(tiles) - 1)
        labels, corrupt = [], False
        for which, (rows, columns) in zip([index, *others], tiles, strict=True):
            element, image, replaced = read_or_next(self.source, int(which), self.strict)
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
