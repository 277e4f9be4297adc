"""People's boxes on the device: from images to boxes of fixed shapes, as one pure function."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.ops import geometry
from rmpe_jax.ops.greedy import greedy_assignment

MAX_BOXES = 64
NMS_IOU = 0.45  # boxes are imprecise; from .35 to .6 it hardly changes average precision
SCORE_THRESHOLD = 0.3  # the shipped detector's best F1 is from .3 to .35


class FixedBoxes(NamedTuple):
    """The boxes of a batch, n in each picture whether there are so many people or not; best first.

    Attributes:
      bboxes: xyxy pixels of the network's input.
      scores: 0 to 1; 0 where not valid.
      valid: where there is a box.
    """

    bboxes: Float[Array, "b n 4"]
    scores: Float[Array, "b n"]
    valid: Bool[Array, "b n"]


@functools.partial(jax.jit, static_argnames=("model", "codec", "max_boxes", "nms_iou"))
def detect(
    model: nn.Module,
    codec: BoxCodec,
    variables: Any,
    image: UInt8[Array, "b h w 3"],
    *,
    max_boxes: int = MAX_BOXES,
    nms_iou: float = NMS_IOU,
    score_threshold: float | Float[Array, ""] = 0.0,
) -> FixedBoxes:
    """People in pictures of the network's size, as `letterbox.fit_picture` makes them.

    Args:
      model: the network.
      codec: that it was trained with.
      variables: of the network.
      image: RGB, both sides multiples of what the network asks for.
      max_boxes: n.
      nms_iou: of two boxes that overlap by more, the better stays.
      score_threshold: boxes that score less are not valid.
    """
    outputs: Any = model.apply(variables, codec.inputs(image))
    bboxes, scores = codec.bboxes(outputs, max_boxes)
    bboxes = geometry.clip_boxes(bboxes, (image.shape[1], image.shape[2]))
    sound = (geometry.box_area(bboxes) > 0) & (scores > 0) & (scores >= score_threshold)
    valid = sound & jax.vmap(functools.partial(_survivors, nms_iou))(bboxes, sound)
    # Those that stay come first, still best first.
    order = jnp.argsort(~valid, axis=-1, stable=True)
    bboxes = jnp.take_along_axis(bboxes, order[..., None], 1)
    scores, valid = (jnp.take_along_axis(values, order, 1) for values in (scores, valid))
    return FixedBoxes(jnp.where(valid[..., None], bboxes, 0), jnp.where(valid, scores, 0), valid)


def _survivors(
    nms_iou: float, bboxes: Float[Array, "n 4"], valid: Bool[Array, " n"]
) -> Bool[Array, " n"]:
    """Greedy NMS of boxes that are sorted, the best first."""
    redundant = geometry.box_iou(bboxes, bboxes) > nms_iou
    return greedy_assignment(redundant, valid) == jnp.arange(len(valid))
