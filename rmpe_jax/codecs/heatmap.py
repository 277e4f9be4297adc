"""The codec of pose networks: inputs, targets, loss, heatmaps, decoding of keypoints.

The meaning of a network's outputs depends on the loss that it was trained with: Gaussians for the
MSE, logits over positions for the cross-entropy, logits of the two-step normalization for the
symmetric integral. A `HeatmapCodec` holds this choice, so training and inference always agree.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, UInt8

from rmpe_jax.ops import geometry, heatmaps, losses

LOSSES = ("mse", "cross_entropy", "symmetric_integral")
DECODERS = ("argmax", "quarter", "dark", "dark_udp", "integral")
ALIGNMENTS = ("center", "first_pixel", "udp")

# RGB values from 0 to 255: bytes, or floats where images were resampled on the device.
RgbImages = UInt8[Array, "b h w 3"] | Float[Array, "b h w 3"]


@dataclasses.dataclass(frozen=True)
class HeatmapCodec:
    """How keypoints are encoded as heatmaps and decoded from them.

    Attributes:
      loss: one of `LOSSES`.
      input_size: (height, width) of the crop.
      heatmap_size: (height, width) of the network's output.
      sigma: of the target Gaussians, heatmap pixels.
      integer_center: AlphaPose's rounded, truncated Gaussians instead of exact ones.
      decode: one of `DECODERS`.
      mean: of the network's inputs, RGB in 0..1.
      std: of the network's inputs, RGB in 0..1.
      alignment: one of `ALIGNMENTS`. "center": heatmap and crop cover the same area. "first_pixel":
        the centers of their first pixels coincide, so heatmap x is crop x / stride, as in
        AlphaPose's networks. "udp": the centers of their first and of their last pixels coincide,
        as in networks trained with unbiased data processing (Huang et al., CVPR 2020), such as
        ViTPose.
      blur_sigma: of the smoothing in "dark" and "dark_udp", heatmap pixels; 0: `sigma`.
    """

    loss: str
    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float
    integer_center: bool
    decode: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    alignment: str = "center"
    blur_sigma: float = 0.0

    @property
    def flip_shift(self) -> float:
        """Heatmap pixels that mirrored maps must move by, see `heatmaps.flip_and_merge`."""
        is_even = self.alignment != "first_pixel"
        return 0.0 if is_even else 1 - self.heatmap_size[1] / self.input_size[1]

    @property
    def heatmap_from_crop(self) -> Float[Array, "2 3"]:
        """Affine from crop pixels to heatmap pixels."""
        if self.alignment == "udp":
            (h, w), (height, width) = self.heatmap_size, self.input_size
            return jnp.array([[(w - 1) / (width - 1), 0, 0], [0, (h - 1) / (height - 1), 0]])
        affine = jnp.asarray(geometry.heatmap_from_crop(self.input_size, self.heatmap_size))
        return affine.at[:, 2].set(0) if self.alignment == "first_pixel" else affine

    def inputs(self, image: RgbImages) -> Float[Array, "b h w 3"]:
        """The network's inputs from crops: (value / 255 - mean) / std."""
        return normalize(image, self.mean, self.std)

    def compute_loss(
        self,
        outputs: Float[Array, "b h w k"] | list[Float[Array, "b h w k"]],
        keypoints: Float[Array, "b k 2"],
        weights: Float[Array, "b k"],
    ) -> Float[Array, ""]:
        """The loss, summed over the stacks of a stacked network.

        Args:
          outputs: the network's output, a list if it has several stacks.
          keypoints: crop pixels.
          weights: 0 where a joint is not annotated.
        """
        stacks = outputs if isinstance(outputs, list) else [outputs]
        keypoints = self.to_heatmap(keypoints)
        targets, is_drawn = heatmaps.encode(
            keypoints, weights, self.heatmap_size, self.sigma, self.integer_center
        )
        weights = weights * is_drawn
        match self.loss:
            case "mse":
                terms = [losses.mse(output, targets, weights) for output in stacks]
            case "cross_entropy":
                terms = [losses.cross_entropy(output, targets, weights) for output in stacks]
            case _:
                terms = [losses.symmetric_integral(output, keypoints, weights) for output in stacks]
        return functools.reduce(operator.add, terms)

    def maps(
        self, outputs: Float[Array, "b h w k"] | list[Float[Array, "b h w k"]]
    ) -> Float[Array, "b h w k"]:
        """Maps that are high where a joint is, from the last stack's output."""
        last = outputs[-1] if isinstance(outputs, list) else outputs
        match self.loss:
            case "mse":
                return last
            case "cross_entropy":
                return heatmaps.spatial_softmax(last)
            case _:
                return jax.nn.sigmoid(last)

    def merge_flipped(
        self,
        maps: Float[Array, "b h w k"],
        flipped_maps: Float[Array, "b h w k"],
        flip_indices: ArrayLike,
        whole_pixel: bool = False,
    ) -> Float[Array, "b h w k"]:
        """The mean of a crop's maps and of those of the mirrored crop, mirrored back.

        Args:
          maps: of the crop.
          flipped_maps: of the crop mirrored left to right.
          flip_indices: (k,), as in `Skeleton.flip_indices`.
          whole_pixel: move the mirrored maps by a whole pixel, as AlphaPose does, instead of by
            `flip_shift`.
        """
        shift = 1.0 if whole_pixel else self.flip_shift
        return heatmaps.flip_and_merge(maps, flipped_maps, flip_indices, shift)

    def keypoints(
        self, maps: Float[Array, "b h w k"]
    ) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
        """Keypoints in crop pixels and scores from 0 to 1, from maps of `maps`.

        The maps may be merged from two passes (`merge_flipped`). The peak of a map that
        sums to 1 depends on its spread, so the score of the cross-entropy's maps is the probability
        within two pixels of the keypoint.
        """
        points, scores = heatmaps.decode(maps, self.decode, self.blur_sigma or self.sigma)
        if self.loss == "cross_entropy":
            scores = heatmaps.local_mass(maps, points, radius=2)
        crop_from_heatmap = geometry.invert(self.heatmap_from_crop)
        return geometry.transform_points(crop_from_heatmap, points), jnp.clip(scores, 0, 1)

    def window(self, size: tuple[int, int]) -> "HeatmapCodec":
        """The codec of the central window of the crop, at the same resolution.

        It is right for the alignment "center".

        Args:
          size: (height, width) of the window; its heatmap has a whole number of pixels.
        """
        fields = dataclasses.fields(HeatmapCodec)
        values = {field.name: getattr(self, field.name) for field in fields}
        sides = zip(self.heatmap_size, size, self.input_size, strict=True)
        heatmap_size = tuple(side * part // full for side, part, full in sides)
        return HeatmapCodec(**values | {"input_size": size, "heatmap_size": heatmap_size})

    def to_heatmap(self, keypoints: Float[Array, "b k 2"]) -> Float[Array, "b k 2"]:
        """Keypoints in heatmap pixels from keypoints in crop pixels."""
        return geometry.transform_points(self.heatmap_from_crop, keypoints)


def normalize(
    image: RgbImages,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Array, "b h w 3"]:
    """Normalize RGB values from 0 to 255: (value / 255 - mean) / std."""
    return (image.astype(jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)
