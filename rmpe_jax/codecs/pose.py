"""What a codec of a pose network gives: `HeatmapCodec` and `SimccCodec` both do.

Training, prediction and export use this alone, so they work with either.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, ArrayLike, Float

from rmpe_jax.codecs.heatmap import RgbImages


@runtime_checkable
class PoseCodec(Protocol):
    """How keypoints are encoded as a network's outputs and decoded from them.

    What outputs and maps are is the codec's own affair: heatmaps (b, h, w, k), or a pair of vectors
    per joint.
    """

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the crop."""
        ...

    @property
    def mean(self) -> tuple[float, float, float]:
        """Of the network's inputs, RGB in 0..1."""
        ...

    @property
    def std(self) -> tuple[float, float, float]:
        """Of the network's inputs, RGB in 0..1."""
        ...

    def inputs(self, image: RgbImages) -> Float[Array, "b h w 3"]:
        """The network's inputs from crops: (value / 255 - mean) / std."""
        ...

    def compute_loss(
        self, outputs: Any, keypoints: Float[Array, "b k 2"], weights: Float[Array, "b k"]
    ) -> Float[Array, ""]:
        """The loss of a network's outputs, from keypoints in crop pixels."""
        ...

    def maps(self, outputs: Any) -> Any:
        """Maps from a network's outputs; they are high where a joint is."""
        ...

    def merge_flipped(
        self, maps: Any, flipped_maps: Any, flip_indices: ArrayLike, whole_pixel: bool = False
    ) -> Any:
        """The mean of a crop's maps and of those of the mirrored crop, mirrored back.

        Args:
          maps: of the crop.
          flipped_maps: of the crop mirrored left to right.
          flip_indices: (k,), as in `Skeleton.flip_indices`.
          whole_pixel: move mirrored heatmaps by a whole pixel, as AlphaPose does, instead of by
            what their alignment asks for.

        Raises:
          UserError: `whole_pixel` without heatmaps.
        """
        ...

    def keypoints(self, maps: Any) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
        """Keypoints in crop pixels and scores from 0 to 1, from maps of `maps`."""
        ...
