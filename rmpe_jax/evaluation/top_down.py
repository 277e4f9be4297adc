"""From boxes to poses: crop on the host, network and decoding in one compiled function."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from rmpe_jax import geometry, heatmaps
from rmpe_jax.codec import Codec
from rmpe_jax.data.eval_pipeline import PersonBox, eval_batches
from rmpe_jax.data.records import PoseDataset
from rmpe_jax.evaluation.protocol import PersonBoxes
from rmpe_jax.skeletons import Skeleton

Predict = Callable[..., tuple[Float[Array, "b k 2"], Float[Array, "b k"]]]


class Network(Protocol):
    """A Flax module, or what applies one."""

    def apply(self, variables: Any, x: Float[Array, "b h w 3"], /) -> Any:
        """Heatmaps, or a list of them, of crops."""


def make_predict(
    model: Network,
    codec: Codec,
    skeleton: Skeleton,
    *,
    flip_test: bool = False,
    flip_shift: bool = False,
) -> Predict:
    """The compiled function (variables, crops, image_from_crop) -> keypoints, scores.

    Crops are (b, height, width, 3) RGB from 0 to 255, affines (b, 2, 3); keypoints come back in
    image pixels (b, k, 2), scores in 0..1 (b, k).

    Args:
      flip_test: average the heatmaps with those of the mirrored crop.
      flip_shift: and move the mirrored ones by a pixel, as AlphaPose does. Its heatmaps are aligned
        at their first pixels, ours at their centres, so that ours need no shift.
    """

    def maps(variables: Any, image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w k"]:
        outputs: Any = model.apply(variables, codec.inputs(image))
        return codec.heatmaps(outputs)

    @jax.jit
    def predict(variables, image, image_from_crop):
        found = maps(variables, image)
        if flip_test:
            flipped = maps(variables, image[:, :, ::-1])
            shift = flip_shift or codec.flip_shift
            found = heatmaps.flip_and_merge(found, flipped, skeleton.flip_indices, shift)
        keypoints, scores = codec.keypoints(found)
        return geometry.transform_points(image_from_crop, keypoints), scores

    return predict


def predict_boxes(
    predict: Predict,
    variables: Any,
    dataset: PoseDataset,
    boxes: PersonBoxes,
    *,
    num_keypoints: int,
    input_size: tuple[int, int],
    padding: float,
    batch_size: int = 32,
    num_threads: int = 2,
) -> tuple[Float[np.ndarray, "m k 2"], Float[np.ndarray, "m k"]]:
    """Poses in all boxes of a data set: keypoints in image pixels, and scores.

    The rows of boxes whose picture cannot be read are NaN, with scores 0.
    """
    keypoints = np.full((len(boxes), num_keypoints, 2), np.nan, np.float32)
    scores = np.zeros((len(boxes), num_keypoints), np.float32)
    items = [
        PersonBox(dataset.pictures[picture].path, bbox, index)
        for index, (picture, bbox) in enumerate(zip(boxes.picture_index, boxes.bboxes, strict=True))
    ]
    batches = eval_batches(
        items,
        input_size=input_size,
        padding=padding,
        batch_size=batch_size,
        num_threads=num_threads,
    )
    for batch in batches:
        found = predict(variables, batch["image"], batch["image_from_crop"])
        rows, valid = batch["index"], batch["valid"]
        for target, values in zip((keypoints, scores), found, strict=True):
            target[rows[valid]] = np.asarray(values)[valid]
    return keypoints, scores
