"""Our own detector: people as points, from picture to boxes in one compiled function.

`detect` is pure and of fixed shapes, so that it can stand in a larger program: with the boxes it
gives, `spatial_transformer` or any crop of fixed size cuts people out of the same picture on the
device, and a pose network goes on from there, with `valid` for the rows that are people.
"""

from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.detectors.letterbox import fit_picture, transform_boxes
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.model_io.detector_model import DetectorModel
from rmpe_jax.ops import geometry
from rmpe_jax.ops.padding import GRAY
from rmpe_jax.top_down.detection import SCORE_THRESHOLD, detect

LEAST_SCORE = 0.05  # of boxes that an evaluation takes: average precision asks for doubtful ones


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
    def from_model(
        cls, trained: DetectorModel, score_threshold: float | None = None
    ) -> "PointDetector":
        """The detector of a trained network.

        Args:
          trained: of `model_io.load_detector_model`.
          score_threshold: boxes that score less are left out; a default if not given.

        Raises:
          UserError: its spec and variables do not belong together.
        """
        model, codec = trained.build()
        threshold = SCORE_THRESHOLD if score_threshold is None else score_threshold
        return cls(model, codec, trained.variables, trained.spec.test_size, threshold)

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
