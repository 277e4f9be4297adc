"""From images and boxes to poses: a pure function of arrays, compiled as a whole."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict
from jaxtyping import Array, Float, Int, UInt8

from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.pose_nms import NmsResult, PoseCandidates, PoseNmsParams, pose_nms
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.top_down.cropping import crop_people
from rmpe_jax.top_down.prediction import Network, make_predict


class BoxBatch(NamedTuple):
    """The boxes of several images in one list, padded at its end; arrays of NumPy or of JAX.

    Attributes:
      image_index: the image of each box.
      bboxes: xyxy image pixels.
      scores: the detector's.
      count: number of boxes; the rows after them are padding.
    """

    image_index: Int[Any, " n"]
    bboxes: Float[Any, "n 4"]
    scores: Float[Any, " n"]
    count: Int[Any, ""]


@runtime_checkable
class EstimatePosesFn(Protocol):
    """Finds one pose in each box and applies pose NMS; made by `make_estimate_poses`."""

    def __call__(
        self,
        variables: VariableDict,
        pixels: UInt8[Array | np.ndarray, "i l 3"],
        sizes: Int[Array | np.ndarray, "i 2"],
        boxes: BoxBatch,
        nms: PoseNmsParams,
        /,
    ) -> NmsResult:
        """Find poses.

        Args:
          variables: of the network.
          pixels: of the images, as in `crop_people`.
          sizes: (height, width) of the images.
          boxes: where to look for people.
          nms: parameters of pose NMS, which works on each image separately.

        Returns:
          One row per row of `boxes`; see `NmsResult.keep`.
        """
        ...


def make_estimate_poses(
    model: Network,
    codec: PoseCodec,
    skeleton: Skeleton,
    crop: CropSpec,
    *,
    chunk: int,
    flip_test: bool = False,
) -> EstimatePosesFn:
    """The compiled function from images and boxes to poses after NMS.

    Args:
      model: the network.
      codec: of the network.
      skeleton: of the network.
      crop: how people are cropped for the network.
      chunk: number of people that the network processes together; a divisor of the number of boxes.
        Memory is that of one chunk. Chunks that are only padding are skipped.
      flip_test: average the heatmaps with those of the mirrored crop.
    """
    predict = make_predict(model, codec, skeleton, flip_test=flip_test)

    @jax.jit
    def estimate_poses(
        variables: VariableDict,
        pixels: UInt8[Array, "i l 3"],
        sizes: Int[Array, "i 2"],
        boxes: BoxBatch,
        nms: PoseNmsParams,
    ) -> NmsResult:
        def predict_chunk(
            i: Int[Array, ""], poses: tuple[Float[Array, "n k 2"], Float[Array, "n k"]]
        ) -> tuple[Float[Array, "n k 2"], Float[Array, "n k"]]:
            image_index, bboxes = (
                jax.lax.dynamic_slice_in_dim(rows, i * chunk, chunk)
                for rows in (boxes.image_index, boxes.bboxes)
            )
            image_from_crop = crop.image_from_crop(bboxes)
            crops = crop_people(pixels, sizes, image_index, image_from_crop, crop.input_size)
            keypoints, scores = (
                jax.lax.dynamic_update_slice_in_dim(rows, new, i * chunk, 0)
                for rows, new in zip(poses, predict(variables, crops, image_from_crop), strict=True)
            )
            return keypoints, scores

        n, k = len(boxes.bboxes), skeleton.num_keypoints
        num_chunks = (boxes.count + chunk - 1) // chunk
        no_poses = (jnp.zeros((n, k, 2)), jnp.zeros((n, k)))
        keypoints, scores = jax.lax.fori_loop(0, num_chunks, predict_chunk, no_poses)
        valid = jnp.arange(n) < boxes.count
        candidates = PoseCandidates(keypoints, scores, boxes.bboxes, boxes.scores, valid)
        return _nms_per_image(candidates, boxes.image_index, len(pixels), nms, skeleton)

    return estimate_poses


def _nms_per_image(
    candidates: PoseCandidates,
    image_index: Int[Array, " n"],
    num_images: int,
    nms: PoseNmsParams,
    skeleton: Skeleton,
) -> NmsResult:
    def nms_of_image(index: Int[Array, ""]) -> NmsResult:
        valid = candidates.valid & (image_index == index)
        return pose_nms(*candidates._replace(valid=valid), nms, skeleton)

    results = jax.vmap(nms_of_image)(jnp.arange(num_images))
    rows = jnp.arange(len(image_index))
    return jax.tree.map(lambda values: values[image_index, rows], results)
