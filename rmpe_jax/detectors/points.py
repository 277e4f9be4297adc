"""The detector of this project: people as points, from image to boxes in one compiled function.

The function, `top_down.detection.detect`, is pure and of fixed shapes, so it can be part of a
larger compiled function: `top_down.end_to_end` crops the people in its boxes on the device and runs
a pose network on them.
"""

import jax
import numpy as np
from flax.typing import VariableDict
from jaxtyping import UInt8

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.detectors.letterbox import fit_image, transform_boxes
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.model_io.detector_model import DetectorModel
from rmpe_jax.ops import geometry
from rmpe_jax.ops.padding import GRAY
from rmpe_jax.top_down.detection import SCORE_THRESHOLD, detect
from rmpe_jax.top_down.prediction import Network

# Score threshold for evaluation: average precision needs uncertain boxes too.
EVALUATION_THRESHOLD = 0.05


class PointDetector:
    """A trained network as a `Detector`."""

    def __init__(
        self,
        model: Network,
        codec: BoxCodec,
        variables: VariableDict,
        input_size: tuple[int, int],
        score_threshold: float = SCORE_THRESHOLD,
    ):
        """Make a detector that works on images letterboxed to `input_size`, (height, width)."""
        self._model, self._codec, self._variables = model, codec, variables
        self._input_size, self._score_threshold = tuple(input_size), score_threshold

    @classmethod
    def from_model(
        cls, trained: DetectorModel, score_threshold: float | None = None
    ) -> "PointDetector":
        """The detector of a trained network.

        Args:
          trained: of `model_io.load_detector_model`.
          score_threshold: boxes with lower scores are left out; by default `SCORE_THRESHOLD`.

        Raises:
          UserError: the spec and variables of the model do not belong together.
        """
        network, variables, codec = trained.fold()
        threshold = SCORE_THRESHOLD if score_threshold is None else score_threshold
        return cls(network, codec, jax.device_put(variables), trained.spec.test_size, threshold)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], name: str = "") -> Boxes:
        """Boxes of the people in one image, in image pixels; `name` is ignored."""
        canvas, image_from_canvas = fit_image(
            image, self._input_size, "letterbox", GRAY, average=True
        )
        detected = detect(
            self._model,
            self._codec,
            self._variables,
            canvas[None],
            score_threshold=self._score_threshold,
        )
        bboxes, scores, valid = (np.asarray(values)[0] for values in detected)
        bboxes = transform_boxes(image_from_canvas, bboxes[valid])
        bboxes = geometry.clip_boxes(bboxes, image.shape[:2])
        # A box may lie in the gray border, outside the image.
        inside = geometry.box_area(bboxes) > 0
        return Boxes(bboxes[inside], scores[valid][inside])
