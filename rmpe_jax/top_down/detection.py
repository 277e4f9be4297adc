"""Detection of people on the device: from images to boxes of fixed shapes, a pure function."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.typing import VariableDict
from jaxtyping import Array, Bool, Float

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.codecs.heatmap import RgbImages
from rmpe_jax.ops import geometry
from rmpe_jax.ops.greedy import greedy_assignment
from rmpe_jax.top_down.prediction import Network

MAX_BOXES = 64
NMS_IOU = 0.45  # boxes are imprecise; average precision hardly changes from 0.35 to 0.6
SCORE_THRESHOLD = 0.3  # F1 of the shipped detector is highest from 0.25 to 0.35


class PaddedBoxes(NamedTuple):
    """A detector's boxes in a batch of images: n rows for every image, best first, then padding.

    Attributes:
      bboxes: xyxy pixels of the detector's input; 0 where not valid.
      scores: 0 to 1; 0 where not valid.
      valid: which rows are boxes.
    """

    bboxes: Float[Array, "b n 4"]
    scores: Float[Array, "b n"]
    valid: Bool[Array, "b n"]


@functools.partial(jax.jit, static_argnames=("model", "codec", "max_boxes", "nms_iou"))
def detect(
    model: Network,
    codec: BoxCodec,
    variables: VariableDict,
    image: RgbImages,
    *,
    max_boxes: int = MAX_BOXES,
    nms_iou: float = NMS_IOU,
    score_threshold: float | Float[Array, ""] = 0.0,
) -> PaddedBoxes:
    """Find people in images of the network's size, as made by `letterbox.fit_image`.

    Args:
      model: the network, hashable.
      codec: of the network.
      variables: of the network.
      image: RGB from 0 to 255; height and width are multiples of the network's stride.
      max_boxes: n, the number of rows for each image.
      nms_iou: of two boxes with a larger IoU only the better one stays.
      score_threshold: boxes with lower scores are not valid.
    """
    outputs: Any = model.apply(variables, codec.inputs(image))
    bboxes, scores = codec.bboxes(outputs, max_boxes)
    bboxes = geometry.clip_boxes(bboxes, (image.shape[1], image.shape[2]))
    usable = (geometry.box_area(bboxes) > 0) & (scores > 0) & (scores >= score_threshold)
    valid = usable & jax.vmap(functools.partial(_survivors, nms_iou))(bboxes, usable)
    # Valid boxes come first, still best first.
    order = jnp.argsort(~valid, axis=-1, stable=True)
    bboxes = jnp.take_along_axis(bboxes, order[..., None], 1)
    scores, valid = (jnp.take_along_axis(values, order, 1) for values in (scores, valid))
    return PaddedBoxes(jnp.where(valid[..., None], bboxes, 0), jnp.where(valid, scores, 0), valid)


def _survivors(
    nms_iou: float, bboxes: Float[Array, "n 4"], valid: Bool[Array, " n"]
) -> Bool[Array, " n"]:
    """Greedy NMS of boxes that are sorted, best first."""
    redundant = geometry.box_iou(bboxes, bboxes) > nms_iou
    return greedy_assignment(redundant, valid) == jnp.arange(len(valid))
