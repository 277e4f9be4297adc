"""Between pictures, a network and person boxes: inputs, loss, reading out.

Any of the pose networks with `NUM_MAPS` maps in place of the keypoints' is a detector: the first
is where centres of people are, the others how far the sides of their boxes are from there.
"""

import dataclasses

import jax
from jaxtyping import Array, Float, UInt8

from rmpe_jax.codecs.poses import normalised
from rmpe_jax.ops import box_losses, box_maps

NUM_MAPS = 5
PRIOR = -4.6  # added to the logits: a network that knows nothing says 1 %


@dataclasses.dataclass(frozen=True)
class BoxCodec:
    """How boxes are written into maps and read out of them; `Codec`'s counterpart.

    Attributes:
      input_size: (height, width) in training; pictures of other sizes will do as well.
      stride: input pixels that a cell of the maps is wide.
      bbox_weight: of the boxes' loss, the heat map's being 1.
      mean: of the network's inputs, RGB in 0..1.
      std: likewise.
    """

    input_size: tuple[int, int]
    stride: int
    bbox_weight: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def inputs(self, image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """RGB bytes to what the network takes."""
        return normalised(image, self.mean, self.std)

    def losses_of(
        self,
        outputs: Float[Array, "b h w 5"],
        bboxes: Float[Array, "b n 4"],
        weights: Float[Array, "b n"],
        ignored: Float[Array, "b m 4"],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The losses of the heat map and of the boxes, the second weighted by `bbox_weight`.

        Args:
          outputs: the network's maps.
          bboxes: of people, input pixels.
          weights: of people, 0 for padding.
          ignored: regions where it is not known whether there are people, as crowds; boxes without
            area are padding.
        """
        size = (outputs.shape[1], outputs.shape[2])
        targets = box_maps.encode(bboxes, weights, size, self.stride)
        counts = ~box_maps.cells_inside(ignored, size, self.stride)
        heat = box_losses.focal(outputs[..., 0] + PRIOR, targets, counts.astype(outputs.dtype))
        told = box_maps.to_bboxes(outputs[..., 1:], self.stride)
        return heat, self.bbox_weight * box_losses.giou_loss(told, targets)

    def bboxes(
        self, outputs: Float[Array, "b h w 5"], count: int
    ) -> tuple[Float[Array, "b n 4"], Float[Array, "b n"]]:
        """The `count` most likely people, best first: boxes in input pixels, scores from 0 to 1."""
        heat = jax.nn.sigmoid(outputs[..., 0] + PRIOR)
        scores, index = box_maps.peaks(heat, count)
        told = box_maps.to_bboxes(outputs[..., 1:], self.stride)
        return jax.vmap(box_maps.voted)(told, heat, index), scores
