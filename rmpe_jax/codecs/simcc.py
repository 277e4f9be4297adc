"""SimCC: a joint's x and y are classified separately, over bins of half a pixel.

Li et al., SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation, ECCV
2022, with the targets, the loss and the decoding of RTMPose (Jiang et al., 2023) in MMPose.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from rmpe_jax.codecs.heatmap import RgbImages, normalize
from rmpe_jax.errors import UserError

BINS_PER_PIXEL = 2
_BETA = 10.0  # factor on outputs and targets before their softmax


class SimccMaps(NamedTuple):
    """Two vectors per joint, which are high at its coordinates. Bin i is at crop pixel i / 2.

    Attributes:
      x: of a crop of width w, with 2 w bins.
      y: of a crop of height h, with 2 h bins.
    """

    x: Float[Array, "*b k bins_x"]
    y: Float[Array, "*b k bins_y"]


@dataclasses.dataclass(frozen=True)
class SimccCodec:
    """How keypoints are encoded as vectors over x and over y, and decoded from them.

    The targets are exp(-(i - c)² / 2σ²) at bin i, where c is the joint's coordinate in bins. σ is
    sqrt(side / 8) bins for a side of the crop in pixels: 4.9 and 5.66 for a crop of 256x192 (as in
    MMPose's rtmpose-m_8xb256-420e_coco-256x192.py), 6 and 6.93 for 384x288 (as in its
    rtmpose-m_8xb256-420e_aic-coco-384x288.py). MMPose rounds c to a whole bin first.

    Attributes:
      input_size: (height, width) of the crop.
      mean: of the network's inputs, RGB in 0..1.
      std: of the network's inputs, RGB in 0..1.
    """

    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def inputs(self, image: RgbImages) -> Float[Array, "b h w 3"]:
        """The network's inputs from crops: (value / 255 - mean) / std."""
        return normalize(image, self.mean, self.std)

    def encode(
        self, keypoints: Float[Array, "b k 2"], weights: Float[Array, "b k"]
    ) -> tuple[SimccMaps, Float[Array, "b k"]]:
        """Targets, and the weights of joints with one.

        A joint that is more than 3σ outside the crop, in x or in y, has weight 0.

        Args:
          keypoints: crop pixels; may be NaN where the weight is 0.
          weights: per joint.
        """
        keypoints = jnp.where(weights[..., None] > 0, keypoints, 0)
        targets = []
        for axis, side in enumerate(self.input_size[::-1]):
            num_bins, sigma = BINS_PER_PIXEL * side, math.sqrt(side / 8)
            center = BINS_PER_PIXEL * keypoints[..., axis]
            bins = jnp.arange(num_bins, dtype=jnp.float32)
            targets.append(jnp.exp(-((bins - center[..., None]) ** 2) / (2 * sigma**2)))
            inside = (center > -3 * sigma) & (center < num_bins - 1 + 3 * sigma)
            weights = weights * inside
        return SimccMaps(*targets), weights

    def compute_loss(
        self,
        outputs: SimccMaps,
        keypoints: Float[Array, "b k 2"],
        weights: Float[Array, "b k"],
    ) -> Float[Array, ""]:
        """Σ w (KL(t_x, p_x) / bins_x + KL(t_y, p_y) / bins_y) / (b k).

        p = softmax(β outputs) and t = softmax(β targets), both over bins, with β = 10. KL(t, p) is
        Σ t ln(t / p). It is 0 for perfect outputs. MMPose's KLDiscretLoss is b times this: it adds
        up over people instead of taking their mean.

        Args:
          outputs: of the network.
          keypoints: crop pixels; may be NaN where the weight is 0.
          weights: per joint; 0 where it is not annotated. Joints far outside the crop count as 0.
        """
        targets, weights = self.encode(keypoints, weights)
        divergence = sum(
            _mean_divergence(target, output)
            for target, output in zip(targets, outputs, strict=True)
        )
        return (weights * divergence).mean()

    def maps(self, outputs: SimccMaps) -> SimccMaps:
        """The outputs themselves."""
        return outputs

    def merge_flipped(
        self,
        maps: SimccMaps,
        flipped_maps: SimccMaps,
        flip_indices: ArrayLike,
        whole_pixel: bool = False,
    ) -> SimccMaps:
        """The mean of a crop's maps and of those of the mirrored crop, mirrored back.

        Pixel x of the crop is pixel width - 1 - x of the mirrored one, so bin i corresponds to bin
        2 width - 2 - i. The last bin, half a pixel outside, has no counterpart and takes bin 0,
        its nearest. MMPose reverses the bins, i to 2 width - 1 - i, which moves the mean by a
        quarter pixel.

        Args:
          maps: of the crop.
          flipped_maps: of the crop mirrored left to right.
          flip_indices: (k,), as in `Skeleton.flip_indices`.
          whole_pixel: must be False; for heatmaps.

        Raises:
          UserError: `whole_pixel` is True.
        """
        if whole_pixel:
            raise UserError("flip_shift: is for heatmaps, which SimCC has none of: leave it out")
        x, y = (vectors[..., jnp.asarray(flip_indices), :] for vectors in flipped_maps)
        x = jnp.concatenate([x[..., -2::-1], x[..., :1]], -1)
        return SimccMaps((maps.x + x) / 2, (maps.y + y) / 2)

    def keypoints(self, maps: SimccMaps) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
        """Keypoints in crop pixels, at the highest bins, and their scores.

        The score is the lower one of the maxima of x and y, clipped to 0 to 1. It is no
        probability: the loss draws outputs to Gaussians of height 1, up to a constant.
        """
        bins = jnp.stack([vectors.argmax(-1) for vectors in maps], -1)
        scores = jnp.minimum(*(vectors.max(-1) for vectors in maps))
        return bins.astype(jnp.float32) / BINS_PER_PIXEL, jnp.clip(scores, 0, 1)


def _mean_divergence(
    targets: Float[Array, "b k bins"], outputs: Float[Array, "b k bins"]
) -> Float[Array, "b k"]:
    """KL divergence of the softmaxes, divided by the number of bins."""
    log_targets = jax.nn.log_softmax(_BETA * targets)
    log_probs = jax.nn.log_softmax(_BETA * outputs.astype(jnp.float32))
    return (jnp.exp(log_targets) * (log_targets - log_probs)).mean(-1)
