"""From pictures and boxes to poses: a pure function of arrays, compiled as one program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.ops import geometry
from rmpe_jax.pose_nms import NmsResult, PoseCandidates, PoseNmsParams, pose_nms
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.top_down.cropping import crop_people
from rmpe_jax.top_down.prediction import Network, make_predict


class People(NamedTuple):
    """Boxes to look for people in, of several pictures, as arrays of NumPy or JAX.

    Attributes:
      picture: which picture a box is of.
      bboxes: xyxy image pixels.
      bbox_scores: the detector's.
      count: how many there are; the rows after them are padding.
    """

    picture: Int[Any, " n"]
    bboxes: Float[Any, "n 4"]
    bbox_scores: Float[Any, " n"]
    count: Int[Any, ""]


Program = Callable[..., NmsResult]


def make_program(
    model: Network,
    codec: HeatmapCodec,
    skeleton: Skeleton,
    *,
    padding: float,
    chunk: int,
    flip_test: bool = False,
) -> Program:
    """The function (variables, pictures, sizes, people, nms) -> what pose NMS leaves, compiled.

    Pictures are as `crop_people` takes them. Rows of the result are those of `people`; each picture
    has an NMS of its own.

    Args:
      model: with `apply(variables, inputs)`.
      codec: of the network.
      skeleton: its joints.
      padding: factor on both sides of a box.
      chunk: how many people the network looks at together, a divisor of the number of rows. Chunks
        of padding alone are left out, and memory is that of one chunk.
      flip_test: average the heatmaps with those of the mirrored crop.
    """
    predict = make_predict(model, codec, skeleton, flip_test=flip_test)

    def poses_of_chunk(i: Int[Array, ""], found, variables, pictures, sizes, people: People):
        picture, bboxes = (
            jax.lax.dynamic_slice_in_dim(rows, i * chunk, chunk) for rows in people[:2]
        )
        image_from_crop = geometry.image_from_crop(bboxes, codec.input_size, padding)
        crops = crop_people(pictures, sizes, picture, image_from_crop, codec.input_size)
        poses = predict(variables, crops, image_from_crop)
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(rows, new, i * chunk, 0)
            for rows, new in zip(found, poses, strict=True)
        )

    @jax.jit
    def program(variables, pictures, sizes, people, nms):
        n, k = len(people.bboxes), skeleton.num_keypoints
        keypoints, scores = jax.lax.fori_loop(
            0,
            (people.count + chunk - 1) // chunk,
            lambda i, found: poses_of_chunk(i, found, variables, pictures, sizes, people),
            (jnp.zeros((n, k, 2)), jnp.zeros((n, k))),
        )
        valid = jnp.arange(n) < people.count
        proposals = PoseCandidates(keypoints, scores, people.bboxes, people.bbox_scores, valid)
        return _nms_of_pictures(proposals, people.picture, len(pictures), nms, skeleton)

    return program


def _nms_of_pictures(
    proposals: PoseCandidates,
    picture: Int[Array, " n"],
    num_pictures: int,
    nms: PoseNmsParams,
    skeleton: Skeleton,
) -> NmsResult:
    def nms_of(index: Int[Array, ""]) -> NmsResult:
        valid = proposals.valid & (picture == index)
        return pose_nms(*proposals._replace(valid=valid), nms, skeleton)

    each = jax.vmap(nms_of)(jnp.arange(num_pictures))
    rows = jnp.arange(len(picture))
    return jax.tree.map(lambda values: values[picture, rows], each)
