"""From pictures to poses without leaving the device: boxes and poses in one compiled program."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.ops import geometry
from rmpe_jax.ops.padding import GRAY
from rmpe_jax.pose_nms import NmsResult, PoseNmsParams
from rmpe_jax.top_down.cropping import crop_people
from rmpe_jax.top_down.detection import SCORE_THRESHOLD, FixedBoxes, detect
from rmpe_jax.top_down.program import People, Program


def make_end_to_end(
    detector: nn.Module,
    box_codec: BoxCodec,
    input_size: tuple[int, int],
    program: Program,
    *,
    max_people: int = 16,
    score_threshold: float = SCORE_THRESHOLD,
) -> Callable[..., tuple[People, NmsResult]]:
    """The function (detector's variables, pose variables, pictures, sizes, nms) -> people, poses.

    Pictures and sizes are as `crop_people` takes them. There are max_people rows for each picture,
    those of people first, and `people.count` of them; `people.picture` says whose they are.

    Args:
      detector: of `models.spec.DetectorSpec`.
      box_codec: likewise.
      input_size: (height, width) of the pictures it looks at.
      program: of `make_program`, whose chunk divides the number of rows.
      max_people: in a picture.
      score_threshold: people who score less are left out.
    """

    @jax.jit
    def end_to_end(
        detector_variables: Any,
        pose_variables: Any,
        pictures: UInt8[Array, "p l 3"],
        sizes: Int[Array, "p 2"],
        nms: PoseNmsParams,
    ) -> tuple[People, NmsResult]:
        image_from_canvas, canvas = _canvases(pictures, sizes, input_size)
        found = detect(
            detector,
            box_codec,
            detector_variables,
            canvas,
            max_boxes=max_people,
            score_threshold=score_threshold,
        )
        people = _people(found, image_from_canvas, sizes)
        return people, program(pose_variables, pictures, sizes, people, nms)

    return end_to_end


def _canvases(
    pictures: UInt8[Array, "p l 3"], sizes: Int[Array, "p 2"], input_size: tuple[int, int]
) -> tuple[Float[Array, "p 2 3"], Float[Array, "p h w 3"]]:
    """Whole pictures in the middle of gray canvases, and the affines of box edges back to them."""
    height, width = input_size
    rows, columns = sizes[:, 0].astype(jnp.float32), sizes[:, 1].astype(jnp.float32)
    scale = jnp.maximum(rows / height, columns / width)  # image pixels per canvas pixel
    zero = jnp.zeros_like(scale)
    left, top = (columns - scale * width) / 2, (rows - scale * height) / 2
    of_edges = jnp.stack([jnp.stack([scale, zero, left], -1), jnp.stack([zero, scale, top], -1)], 1)
    # Pixel centres lie half a pixel inside of the edges, in both frames.
    of_centres = of_edges.at[:, :, 2].add((scale[:, None] - 1) / 2)
    drawn = crop_people(pictures, sizes, jnp.arange(len(sizes)), of_centres, input_size)
    x, y = jnp.meshgrid(jnp.arange(width), jnp.arange(height))
    points = geometry.transform_points(of_centres[:, None], jnp.stack([x, y], -1) + jnp.zeros(()))
    inside = (points > -0.5) & (points < (sizes[:, None, None, ::-1] - 0.5))
    return of_edges, jnp.where(inside.all(-1)[..., None], drawn, GRAY)


def _people(
    found: FixedBoxes, image_from_canvas: Float[Array, "p 2 3"], sizes: Int[Array, "p 2"]
) -> People:
    """The boxes of all pictures in image pixels, people first."""
    num_pictures, n = found.valid.shape
    corners = found.bboxes.reshape(num_pictures, 2 * n, 2)
    bboxes = geometry.transform_points(image_from_canvas, corners).reshape(num_pictures, n, 4)
    limits = jnp.tile(sizes[:, None, ::-1], 2).astype(bboxes.dtype)
    bboxes = jnp.clip(bboxes, 0, limits).reshape(-1, 4)
    # A box may lie in the gray beside its picture.
    valid = found.valid.reshape(-1) & (geometry.box_area(bboxes) > 0)
    order = jnp.argsort(~valid, stable=True)
    picture = np.repeat(np.arange(num_pictures), n)
    return People(
        jnp.asarray(picture)[order],
        bboxes[order],
        found.scores.reshape(-1)[order],
        valid.sum(),
    )
