"""Our own detector: people as points, from picture to boxes in one compiled function.

`detect` is pure and of fixed shapes, so that it can stand in a larger program: with the boxes it
gives, `spatial_transformer` or any crop of fixed size cuts people out of the same picture on the
device, and a pose network goes on from there, with `valid` for the rows that are people.
"""

import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.detectors.letterbox import fit_picture, transform_boxes
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import check_variables, load_model
from rmpe_jax.models.detector import build_detector
from rmpe_jax.ops import geometry
from rmpe_jax.ops.padding import GRAY
from rmpe_jax.top_down.detection import SCORE_THRESHOLD, detect

LEAST_SCORE = 0.05  # of boxes that an evaluation takes: average precision asks for doubtful ones
CONFIG_KEYS = {
    "model": ("task", "name", "input_size", "mean", "std"),
    "detection": ("test_size",),
}


class PointDetector:
    """A trained network as a `Detector`."""

    def __init__(
        self,
        model: nn.Module,
        codec: BoxCodec,
        variables: Any,
        input_size: tuple[int, int],
        score_threshold: float = SCORE_THRESHOLD,
    ):
        """The network works on pictures letterboxed to `input_size`, (height, width)."""
        self._model, self._codec, self._variables = model, codec, variables
        self._size, self._threshold = tuple(input_size), score_threshold

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        variables: Any,
        score_threshold: float | None = None,
    ) -> "PointDetector":
        """With the network that a run's config describes, of which `CONFIG_KEYS` are read.

        Raises:
          UserError: it is no detector's, or the variables are another network's.
        """
        network = config.get("model", {})
        if network.get("task") != "detection":
            raise UserError("this network finds no boxes: give one of model.task='detection'")
        model, codec = build_detector(
            network["name"],
            input_size=tuple(network["input_size"]),
            mean=tuple(network["mean"]),
            std=tuple(network["std"]),
        )
        threshold = SCORE_THRESHOLD if score_threshold is None else score_threshold
        size = tuple(config["detection"]["test_size"])
        check_variables(model, variables, size, network["name"])
        return cls(model, codec, variables, size, threshold)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, score_threshold: float | None = None
    ) -> "PointDetector":
        """Of a model file, see `model_file`.

        Raises:
          UserError: the file cannot be read, or holds no detector.
        """
        variables, meta = load_model(path)
        try:
            return cls.from_config(meta.get("config", {}), variables, score_threshold)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{path}: it has no config of a detector; name another") from None

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], name: str = "") -> Boxes:
        """Boxes of the people in one picture, image pixels; `name` is not read."""
        canvas, image_from_canvas = fit_picture(image, self._size, "letterbox", GRAY, average=True)
        found = detect(
            self._model,
            self._codec,
            self._variables,
            canvas[None],
            score_threshold=self._threshold,
        )
        bboxes, scores, valid = (np.asarray(values)[0] for values in found)
        bboxes = transform_boxes(image_from_canvas, bboxes[valid])
        bboxes = geometry.clip_boxes(bboxes, image.shape[:2])
        # A box may have lain in the gray beside the picture.
        inside = geometry.box_area(bboxes) > 0
        return Boxes(bboxes[inside], scores[valid][inside])


def config_to_store(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's config a model file keeps, as `PointDetector.from_config` reads it."""
    return {part: {key: config[part][key] for key in keys} for part, keys in CONFIG_KEYS.items()}
