"""From crops to keypoints: network, flip test and decoding in one compiled function."""

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax.typing import VariableDict
from jaxtyping import Array, Float, UInt8

from rmpe_jax.codecs.heatmap import RgbImages
from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton


@runtime_checkable
class Network(Protocol):
    """A Flax module, or an object that applies one."""

    def apply(self, variables: VariableDict, x: Float[Array, "b h w 3"], /) -> Any:
        """Outputs for normalized crops, as the network's codec takes them."""


@runtime_checkable
class PredictFn(Protocol):
    """Finds one pose in each crop; made by `make_predict`."""

    def __call__(
        self,
        variables: VariableDict,
        crops: UInt8[Array | np.ndarray, "b h w 3"] | Float[Array | np.ndarray, "b h w 3"],
        image_from_crop: Float[Array | np.ndarray, "b 2 3"],
        /,
    ) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
        """Find the keypoints.

        Args:
          variables: of the network.
          crops: RGB from 0 to 255.
          image_from_crop: affine from the pixels of each crop to those of its image.

        Returns:
          Keypoints in image pixels, and their scores from 0 to 1.
        """
        ...


def make_predict(
    model: Network,
    codec: PoseCodec,
    skeleton: Skeleton,
    *,
    flip_test: bool = False,
    flip_shift: bool = False,
) -> PredictFn:
    """The compiled function from crops to keypoints.

    Args:
      model: the network.
      codec: of the network.
      skeleton: of the network.
      flip_test: average the maps with those of the mirrored crop.
      flip_shift: move mirrored heatmaps by a whole pixel, as AlphaPose does, instead of what their
        alignment asks for (`HeatmapCodec.flip_shift`).
    """

    def predict_maps(variables: VariableDict, image: RgbImages) -> Any:
        return codec.maps(model.apply(variables, codec.inputs(image)))

    @jax.jit
    def predict(
        variables: VariableDict, crops: RgbImages, image_from_crop: Float[Array, "b 2 3"]
    ) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
        maps = predict_maps(variables, crops)
        if flip_test:
            flipped = predict_maps(variables, crops[:, :, ::-1])
            maps = codec.merge_flipped(maps, flipped, skeleton.flip_indices, flip_shift)
        keypoints, scores = codec.keypoints(maps)
        return geometry.transform_points(image_from_crop, keypoints), scores

    return predict
