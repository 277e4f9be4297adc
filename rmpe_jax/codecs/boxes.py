"""The codec of person detectors: inputs, loss, decoding of boxes.

Any pose network becomes a detector if it outputs `NUM_MAPS` maps instead of one per keypoint. The
first map is a heatmap of people's centers, the others are the distances to the sides of their
boxes.
"""

import dataclasses

import jax
from jaxtyping import Array, Float

from rmpe_jax.codecs.heatmap import RgbImages, normalize
from rmpe_jax.ops import box_losses, box_maps

NUM_MAPS = 5
PRIOR = -4.6  # added to the logits, so that an untrained network predicts about 1 %


@dataclasses.dataclass(frozen=True)
class BoxCodec:
    """How boxes are encoded as maps and decoded from them, as `HeatmapCodec` does for keypoints.

    Attributes:
      input_size: (height, width) in training; inputs of other sizes work too.
      stride: width of a cell of the maps in input pixels.
      mean: of the network's inputs, RGB in 0..1.
      std: of the network's inputs, RGB in 0..1.
    """

    input_size: tuple[int, int]
    stride: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def inputs(self, image: RgbImages) -> Float[Array, "b h w 3"]:
        """The network's inputs from images: (value / 255 - mean) / std."""
        return normalize(image, self.mean, self.std)

    def compute_losses(
        self,
        outputs: Float[Array, "b h w 5"],
        bboxes: Float[Array, "b n 4"],
        weights: Float[Array, "b n"],
        ignored: Float[Array, "b m 4"],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The losses of the heatmap and of the boxes.

        Args:
          outputs: the network's maps.
          bboxes: of people, xyxy input pixels.
          weights: of people, 0 for padding.
          ignored: boxes of regions such as crowds where the positions of people are not known;
            boxes without area are padding.
        """
        size = (outputs.shape[1], outputs.shape[2])
        targets = box_maps.encode(bboxes, weights, size, self.stride)
        counts = ~box_maps.cells_inside(ignored, size, self.stride)
        heat = box_losses.focal(outputs[..., 0] + PRIOR, targets, counts.astype(outputs.dtype))
        predicted = box_maps.to_bboxes(outputs[..., 1:], self.stride)
        return heat, box_losses.giou_loss(predicted, targets)

    def bboxes(
        self, outputs: Float[Array, "b h w 5"], count: int
    ) -> tuple[Float[Array, "b n 4"], Float[Array, "b n"]]:
        """The `count` most likely people, best first: xyxy input pixels, and scores from 0 to 1."""
        heat = jax.nn.sigmoid(outputs[..., 0] + PRIOR)
        scores, index = box_maps.peaks(heat, count)
        predicted = box_maps.to_bboxes(outputs[..., 1:], self.stride)
        return jax.vmap(box_maps.vote_boxes)(predicted, heat, index), scores
