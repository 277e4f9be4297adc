"""Decoding in the view of the STN: points are mapped to the crop, instead of heatmaps.

The SDTN samples the heatmaps a second time, which lowers and widens their peaks. Keypoints that are
read from the heatmaps of the view and then mapped by theta need no second sampling.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.ops.spatial_transformer import pixels_from_theta


class ViewHeatmaps(NamedTuple):
    """Outputs of a network with STN and without SDTN.

    Attributes:
      heatmaps: (b, h, w, k) in the frames of the views; a list with one array per stack.
      theta: affine maps to pixels of the crop, in normalized coordinates, see `models.rmpe.stn`.
    """

    heatmaps: Any
    theta: Float[Array, "b 2 3"]


class ViewMaps(NamedTuple):
    """Maps of n views of each crop: one, or two with those of the mirrored crop, mirrored back.

    Attributes:
      maps: high where a joint is, in the frames of the views.
      theta: of each view, as in `ViewHeatmaps`.
    """

    maps: Float[Array, "b n h w k"]
    theta: Float[Array, "b n 2 3"]


@dataclasses.dataclass(frozen=True)
class ViewCodec(HeatmapCodec):
    """A `HeatmapCodec` that also takes outputs in the STN's views.

    Outputs in the frame of the crop, as in training, are used as by `HeatmapCodec`.

    Attributes:
      view_size: (height, width) of the views; None: `input_size`.
    """

    view_size: tuple[int, int] | None = None

    def maps(self, outputs: Any) -> Any:
        """`ViewMaps` of `ViewHeatmaps`; other outputs as in `HeatmapCodec`."""
        if not isinstance(outputs, ViewHeatmaps):
            return super().maps(outputs)
        return ViewMaps(super().maps(outputs.heatmaps)[:, None], outputs.theta[:, None])

    def merge_flipped(
        self, maps: Any, flipped_maps: Any, flip_indices: ArrayLike, whole_pixel: bool = False
    ) -> Any:
        """Both maps, those of the mirrored crop mirrored back; `keypoints` averages the points.

        The two views differ, so their maps cannot be averaged.

        Args:
          maps: `ViewMaps` of the crop; other maps as in `HeatmapCodec`.
          flipped_maps: of the crop mirrored left to right.
          flip_indices: (k,), as in `Skeleton.flip_indices`.
          whole_pixel: must be False for `ViewMaps`.

        Raises:
          UserError: `whole_pixel` is True.
        """
        if not isinstance(maps, ViewMaps):
            return super().merge_flipped(maps, flipped_maps, flip_indices, whole_pixel)
        if whole_pixel:
            raise UserError("flip_shift: moves heatmaps, sstn.decode='view' maps points: leave out")
        mirrored = flipped_maps.maps[:, :, :, ::-1, jnp.asarray(flip_indices)]
        # In normalized coordinates a mirror changes the sign of x, in the view and in the crop.
        signs = jnp.array([[1, -1, -1], [-1, 1, 1]], flipped_maps.theta.dtype)
        return ViewMaps(
            jnp.concatenate([maps.maps, mirrored], 1),
            jnp.concatenate([maps.theta, signs * flipped_maps.theta], 1),
        )

    def keypoints(self, maps: Any) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
        """Keypoints in crop pixels and scores from 0 to 1: means over the views of each crop."""
        if not isinstance(maps, ViewMaps):
            return super().keypoints(maps)
        view_size = self.view_size or self.input_size
        of_view = self.window(view_size)
        points, scores = jax.vmap(of_view.keypoints, in_axes=1, out_axes=1)(maps.maps)
        points += geometry.window_offset(self.input_size, view_size)
        crop_from_raster = pixels_from_theta(maps.theta, self.input_size)
        return geometry.transform_points(crop_from_raster, points).mean(1), scores.mean(1)
