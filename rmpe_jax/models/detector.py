"""Detectors of people: pose networks that draw the maps of boxes in place of the keypoints'."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rmpe_jax.codecs.boxes import NUM_MAPS, BoxCodec
from rmpe_jax.errors import UserError
from rmpe_jax.models import build_sppe


def build_detector(
    name: str,
    *,
    input_size: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    dtype: DTypeLike = jnp.float32,
    bbox_weight: float = 1.0,
) -> tuple[nn.Module, BoxCodec]:
    """A detector and its codec.

    The module maps images (b, H, W, 3) to `NUM_MAPS` maps (b, h, w, 5), for any H and W that the
    network takes.

    Args:
      name: one of `SPPE_NAMES` without stacks.
      input_size: (height, width) that it is trained at.
      mean: of the inputs, RGB in 0..1.
      std: likewise.
      dtype: precision of the arithmetic; parameters stay float32.
      bbox_weight: of the boxes' loss, the centres' being 1.

    Raises:
      UserError: unknown name, a network with stacks, or one that cannot work at this size.
    """
    model = build_sppe(name, NUM_MAPS, dtype)
    crops = jnp.zeros((1, *input_size, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), crops)
    output = jax.eval_shape(model.apply, shapes, crops)
    if isinstance(output, list):
        raise UserError(f"model: {name} has stacks, which a detector cannot have; use another")
    stride = input_size[0] // output.shape[1]
    return model, BoxCodec(tuple(input_size), stride, bbox_weight, tuple(mean), tuple(std))
