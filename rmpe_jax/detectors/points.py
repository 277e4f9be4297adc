"""The detector of this project: people as points, from image to boxes in one compiled function.

The function, `top_down.detection.detect`, is pure and of fixed shapes, so it can be part of a
larger compiled function: `top_down.end_to_end` crops the people in its boxes on the device and runs
a pose network on them.
"""

import itertools
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from flax.typing import VariableDict
from jaxtyping import Array, Float, UInt8

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.detectors.letterbox import fit_image, transform_boxes
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.devices import local_copies, local_mesh, put_rows
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
        canvas, image_from_canvas = self._fit(image)
        (found,) = self._detect(self._variables, canvas[None])
        return _in_image(found, image_from_canvas, image.shape[:2])

    def on_local_devices(self, images: Iterable[UInt8[np.ndarray, "h w 3"]]) -> Iterator[Boxes]:
        """The same boxes for each of some images; every device of this process takes one at a time.

        Args:
          images: any number of images, of any sizes.
        """
        mesh = local_mesh()
        variables = local_copies(self._variables, mesh)
        waiting = iter(images)
        while group := list(itertools.islice(waiting, mesh.size)):
            fitted = [self._fit(image) for image in group]
            canvases = np.zeros((mesh.size, *self._input_size, 3), np.uint8)
            canvases[: len(group)] = [canvas for canvas, _ in fitted]
            rows = self._detect(variables, put_rows(canvases, mesh))
            # The last rows may be of no image.
            for image, (_, image_from_canvas), found in zip(group, fitted, rows, strict=False):
                yield _in_image(found, image_from_canvas, image.shape[:2])

    def _fit(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Float[np.ndarray, "2 3"]]:
        """The letterboxed image, and the affine from there to the image."""
        return fit_image(image, self._input_size, "letterbox", GRAY, average=True)

    def _detect(
        self, variables: VariableDict, canvases: UInt8[Array | np.ndarray, "b h w 3"]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """What `detect` finds in each letterboxed image: bboxes, scores, valid."""
        found = detect(
            self._model,
            self._codec,
            variables,
            canvases,
            score_threshold=self._score_threshold,
        )
        return zip(*map(np.asarray, found), strict=True)


def _in_image(
    found: tuple[np.ndarray, ...],
    image_from_canvas: Float[np.ndarray, "2 3"],
    size: tuple[int, int],
) -> Boxes:
    """The valid boxes in the pixels of an image of `size`, (height, width)."""
    bboxes, scores, valid = found
    bboxes = transform_boxes(image_from_canvas, bboxes[valid])
    bboxes = geometry.clip_boxes(bboxes, size)
    # A box may lie in the gray border, outside the image.
    inside = geometry.box_area(bboxes) > 0
    return Boxes(bboxes[inside], scores[valid][inside])
