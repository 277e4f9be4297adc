"""From crops to keypoints: network, flip test and decoding in one compiled function."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
from jaxtyping import Array, Float, UInt8

from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.ops import geometry, heatmaps
from rmpe_jax.skeletons import Skeleton

Predict = Callable[..., tuple[Float[Array, "b k 2"], Float[Array, "b k"]]]


class Network(Protocol):
    """A Flax module, or what applies one."""

    def apply(self, variables: Any, x: Float[Array, "b h w 3"], /) -> Any:
        """Heatmaps, or a list of them, of crops."""


def make_predict(
    model: Network,
    codec: HeatmapCodec,
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
