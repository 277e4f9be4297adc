"""From images to poses without leaving the device: detector and pose network compiled together."""

from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict
from jaxtyping import Array, Float, Int, UInt8

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.ops import geometry
from rmpe_jax.ops.padding import GRAY
from rmpe_jax.pose_nms import NmsResult, PoseNmsParams
from rmpe_jax.top_down.cropping import crop_people
from rmpe_jax.top_down.detection import SCORE_THRESHOLD, PaddedBoxes, detect
from rmpe_jax.top_down.estimation import BoxBatch, EstimatePosesFn


@runtime_checkable
class EndToEndFn(Protocol):
    """Finds people in images and their poses; made by `make_end_to_end`."""

    def __call__(
        self,
        detector_variables: VariableDict,
        pose_variables: VariableDict,
        pixels: UInt8[Array | np.ndarray, "i l 3"],
        sizes: Int[Array | np.ndarray, "i 2"],
        nms: PoseNmsParams,
        /,
    ) -> tuple[BoxBatch, NmsResult]:
        """Find people and their poses.

        Args:
          detector_variables: of the detector's network.
          pose_variables: of the pose network.
          pixels: of the images, as in `crop_people`.
          sizes: (height, width) of the images.
          nms: parameters of pose NMS.

        Returns:
          The boxes in image pixels, and a pose for each. There are `max_people` rows per image; the
          first `count` are boxes, in the order of the images.
        """
        ...


def make_end_to_end(
    detector: nn.Module,
    box_codec: BoxCodec,
    input_size: tuple[int, int],
    estimate_poses: EstimatePosesFn,
    *,
    max_people: int = 16,
    score_threshold: float = SCORE_THRESHOLD,
) -> EndToEndFn:
    """The compiled function from images to boxes and poses.

    Args:
      detector: network of a `models.spec.DetectorSpec`.
      box_codec: of the detector.
      input_size: (height, width) that images are fitted into for the detector.
      estimate_poses: of `make_estimate_poses`. Its chunk must divide the number of images times
        `max_people`.
      max_people: maximum number of people in an image.
      score_threshold: boxes with lower scores are left out.
    """

    @jax.jit
    def end_to_end(
        detector_variables: VariableDict,
        pose_variables: VariableDict,
        pixels: UInt8[Array, "i l 3"],
        sizes: Int[Array, "i 2"],
        nms: PoseNmsParams,
    ) -> tuple[BoxBatch, NmsResult]:
        canvases, image_from_canvas = _canvases(pixels, sizes, input_size)
        detected = detect(
            detector,
            box_codec,
            detector_variables,
            canvases,
            max_boxes=max_people,
            score_threshold=score_threshold,
        )
        boxes = _box_batch(detected, image_from_canvas, sizes)
        return boxes, estimate_poses(pose_variables, pixels, sizes, boxes, nms)

    return end_to_end


def _canvases(
    pixels: UInt8[Array, "i l 3"], sizes: Int[Array, "i 2"], input_size: tuple[int, int]
) -> tuple[Float[Array, "i h w 3"], Float[Array, "i 2 3"]]:
    """Images centered on gray canvases, and the affines of box edges from canvases to images."""
    height, width = input_size
    rows, columns = sizes[:, 0].astype(jnp.float32), sizes[:, 1].astype(jnp.float32)
    scale = jnp.maximum(rows / height, columns / width)  # image pixels per canvas pixel
    zero = jnp.zeros_like(scale)
    left, top = (columns - scale * width) / 2, (rows - scale * height) / 2
    edge_affines = jnp.stack(
        [jnp.stack([scale, zero, left], -1), jnp.stack([zero, scale, top], -1)], 1
    )
    # In both frames pixel centers are half a pixel inside the pixel edges.
    center_affines = edge_affines.at[:, :, 2].add((scale[:, None] - 1) / 2)
    resized = crop_people(pixels, sizes, jnp.arange(len(sizes)), center_affines, input_size)
    x, y = jnp.meshgrid(jnp.arange(width), jnp.arange(height))
    points = jnp.stack([x, y], -1).astype(jnp.float32)
    points = geometry.transform_points(center_affines[:, None], points)
    inside = (points > -0.5) & (points < (sizes[:, None, None, ::-1] - 0.5))
    return jnp.where(inside.all(-1)[..., None], resized, GRAY), edge_affines


def _box_batch(
    detected: PaddedBoxes, image_from_canvas: Float[Array, "i 2 3"], sizes: Int[Array, "i 2"]
) -> BoxBatch:
    """The boxes of all images in image pixels, valid ones first."""
    num_images, n = detected.valid.shape
    corners = detected.bboxes.reshape(num_images, 2 * n, 2)
    bboxes = geometry.transform_points(image_from_canvas, corners).reshape(num_images, n, 4)
    limits = jnp.tile(sizes[:, None, ::-1], 2).astype(bboxes.dtype)
    bboxes = jnp.clip(bboxes, 0, limits).reshape(-1, 4)
    # A box may lie in the gray border, outside its image.
    valid = detected.valid.reshape(-1) & (geometry.box_area(bboxes) > 0)
    order = jnp.argsort(~valid, stable=True)
    image_index = np.repeat(np.arange(num_images), n)
    return BoxBatch(
        jnp.asarray(image_index)[order],
        bboxes[order],
        detected.scores.reshape(-1)[order],
        valid.sum(),
    )
