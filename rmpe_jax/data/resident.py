"""People's surroundings as small images, which fit in an accelerator's memory.

Decoding images and cropping them limits the training of small networks on accelerators. So each
person's surroundings are decoded once, before the first step, into a canvas. The host then only
draws the crops and moves keypoints; the device samples the crops from the canvases
(`top_down.cropping.crop_canvases`). Nothing here imports JAX.
"""

import logging
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data import augment
from rmpe_jax.data.eval_pipeline import map_ahead
from rmpe_jax.data.images import ImageError, decode_image
from rmpe_jax.data.sources import MixedSource, Source
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.progress import progress

MARGIN = 1.5  # sides of a canvas in sides of the person's own crop; crops are black outside of it
RESOLUTION = 4 / 3  # canvas pixels per pixel of the person's own crop


class ResidentPeople:
    """A source of people whose elements have, instead of "encoded", these keys:

    "canvas"             int, the row of the person's canvas
    "canvas_from_image"  (2, 3) float32
    "image_size"         (height, width)
    """

    def __init__(self, people: list[dict[str, Any]], first: int):
        """Of elements with the keys above, except "canvas", which counts from `first`."""
        self._people, self._first = people, first

    def __len__(self) -> int:
        return len(self._people)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._people[index] | {"canvas": self._first + index}


def canvas_spec(crop: CropSpec) -> CropSpec:
    """The canvas of a person, as a crop that is larger and finer."""
    height, width = (round(side * MARGIN * RESOLUTION) for side in crop.input_size)
    return CropSpec((height, width), crop.padding * MARGIN)


def load_canvases(
    source: MixedSource, crop: CropSpec, *, num_threads: int = 2, strict: bool = False
) -> tuple[MixedSource, UInt8[np.ndarray, "n height width 3"]]:
    """Decodes everybody's surroundings. People with an unreadable image are logged and left out.

    Args:
      source: the people.
      crop: the crops to train on.
      num_threads: threads that decode.
      strict: fail on the first unreadable image.

    Returns:
      The same people in the same mixture as `ResidentPeople`, and their canvases.

    Raises:
      ImageError: an image is unreadable and `strict` is set.
      UserError: all images of a part of the source are unreadable.
    """
    spec = canvas_spec(crop)
    canvases = np.empty((sum(map(len, source.parts)), *spec.input_size, 3), np.uint8)
    parts, filled = [], 0
    for part in source.parts:
        people = []
        load = _LoadCanvas(part, spec, strict)
        found = progress(map_ahead(load, range(len(part)), num_threads), len(part), "people")
        for person, canvas in filter(None, found):
            canvases[filled + len(people)] = canvas
            people.append(person)
        if not people:
            raise UserError("none of the images of a dataset is readable: the log names them")
        parts.append(ResidentPeople(people, filled))
        filled += len(people)
    return MixedSource(tuple(parts), source.repeats), canvases[:filled]


class _LoadCanvas:
    def __init__(self, source: Source, spec: CropSpec, strict: bool):
        self._source, self._spec, self._strict = source, spec, strict

    def __call__(
        self, index: int
    ) -> tuple[dict[str, Any], UInt8[np.ndarray, "height width 3"]] | None:
        try:
            person = dict(self._source[index])
            image = decode_image(person.pop("encoded"), person["name"])
        except ImageError as error:
            if self._strict:
                raise
            logging.getLogger(__name__).warning("%s; the person is left out", error)
            return None
        image_from_canvas: Float[np.ndarray, "2 3"] = self._spec.image_from_crop(person["bbox"])
        person["image_size"] = image.shape[:2]
        person["canvas_from_image"] = geometry.invert(image_from_canvas)
        return person, augment.crop(image, image_from_canvas, self._spec.input_size)
