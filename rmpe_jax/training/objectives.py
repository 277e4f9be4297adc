"""What a network is trained for: its inputs, its loss and the metrics of a step, by task."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.config import SstnConfig
from rmpe_jax.models.rmpe import TrainingOutputs
from rmpe_jax.ops import geometry
from rmpe_jax.ops.differences import central_differences, with_gradient
from rmpe_jax.ops.losses import heatmap_accuracy
from rmpe_jax.ops.spatial_transformer import placement_error, theta_metrics

Batch = Mapping[str, Array]
Metrics = dict[str, Array]


@runtime_checkable
class Objective(Protocol):
    """The loss of a network's outputs on a batch."""

    @property
    def batch_keys(self) -> tuple[str, ...]:
        """What it uses of a batch; the rest can stay on the host."""
        ...

    def inputs(self, batch: Batch) -> Float[Array, "b h w 3"]:
        """What the network is applied to."""
        ...

    def loss(self, outputs: Any, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        """The loss to minimize, and scalar metrics beside it."""
        ...


@dataclasses.dataclass(frozen=True)
class PoseObjective:
    """Keypoints of an SPPE, alone or in `RMPE`.

    Attributes:
      codec: of the network.
      sstn: whether the network has STN and SDTN, and the weights of what guides them.
    """

    codec: PoseCodec
    sstn: SstnConfig = dataclasses.field(default_factory=SstnConfig)

    @property
    def batch_keys(self) -> tuple[str, ...]:
        """Images, keypoints and their weights; with an STN, where the well-placed crop is."""
        keys = ("image", "keypoints", "weights")
        return (*keys, "centered_from_crop") if self.sstn.enabled else keys

    def inputs(self, batch: Batch) -> Float[Array, "b h w 3"]:
        """Normalized crops."""
        return self.codec.inputs(batch["image"])

    def loss(self, outputs: Any, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        """The loss of keypoints, plus what guides the STN; the accuracy of keypoints as counts."""
        loss, metrics = 0.0, {}
        if self.sstn.enabled:
            loss, metrics = self._sstn_loss(outputs, batch)
            outputs = outputs.heatmaps
        loss += self.codec.compute_loss(outputs, batch["keypoints"], batch["weights"])
        maps = self.codec.maps(jax.lax.stop_gradient(outputs))
        predicted, _ = self.codec.keypoints(maps)
        correct, counted = heatmap_accuracy(
            predicted, batch["keypoints"], batch["weights"], self.codec.input_size
        )
        return loss, metrics | {"correct": correct, "joints": counted}

    def _sstn_loss(
        self, outputs: TrainingOutputs, batch: Batch
    ) -> tuple[Float[Array, ""] | float, Metrics]:
        """The loss of what guides the STN, and metrics of the spatial transformer.

        The parallel SPPE's target is the pose in the frame of the well-placed crop, or in the
        central window of it that a smaller view is, wherever the STN looks. Joints outside the crop
        do not count, since the STN cannot bring them in (RMPE, section 3.1). `placement_weight` is
        not in the paper: it penalizes the distance to the well-placed crop itself.

        With the guidance "differences" the losses of heatmaps do not depend on theta. Theta then
        has the central differences of the parallel SPPE's loss as gradient, or, without a parallel
        SPPE, those of the loss in the crop. The value of the loss is the same.
        """
        centered_from_crop = batch["centered_from_crop"]
        placement = placement_error(outputs.theta, centered_from_crop, self.codec.input_size)
        metrics = {"placement": placement} | theta_metrics(outputs.theta)
        loss = self.sstn.placement_weight * placement
        keypoints, weights, codec = batch["keypoints"], batch["weights"], self.codec
        guide_weight = 1.0
        if outputs.parallel_heatmaps is not None:
            view_size = geometry.view_size(codec.input_size, self.sstn.context)
            keypoints, weights = well_placed_pose(batch, codec.input_size, view_size)
            codec = codec.window(view_size) if isinstance(codec, HeatmapCodec) else codec
            guide_weight = self.sstn.parallel_weight
            parallel = codec.compute_loss(outputs.parallel_heatmaps, keypoints, weights)
            loss += guide_weight * parallel
            metrics["parallel_loss"] = parallel
        if outputs.probe_heatmaps is not None:
            losses = functools.partial(_losses, codec)
            probes = jax.vmap(losses)(outputs.probe_heatmaps, keypoints, weights)
            slopes = central_differences(probes, self.sstn.difference_step)
            loss += guide_weight * with_gradient(outputs.theta, slopes / len(slopes))
        return loss, metrics


def well_placed_pose(
    batch: Batch, input_size: tuple[int, int], view_size: tuple[int, int]
) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
    """The pose that a view of the well-placed crop shows, which is the parallel SPPE's target.

    Args:
      batch: keypoints and weights in the crop, and where the well-placed crop is.
      input_size: (height, width) of the crop.
      view_size: (height, width) of the view, the central window of the well-placed crop.

    Returns:
      Keypoints in pixels of the view, and weights. In a view that is smaller than the crop, joints
      outside the view have weight 0.
    """
    keypoints = geometry.transform_points(batch["centered_from_crop"], batch["keypoints"])
    if view_size == input_size:
        return keypoints, batch["weights"]
    keypoints = keypoints - geometry.window_offset(input_size, view_size)
    limit = np.array(view_size[::-1], np.float32) - 0.5
    return keypoints, batch["weights"] * ((keypoints >= -0.5) & (keypoints < limit)).all(-1)


def _losses(
    codec: PoseCodec, heatmaps: Any, keypoints: Float[Array, "k 2"], weights: Float[Array, " k"]
) -> Float[Array, " probes"]:
    """The loss of one crop at each of its probes."""

    def loss(heatmaps: Any) -> Float[Array, ""]:
        single = jax.tree.map(lambda maps: maps[None], heatmaps)
        return codec.compute_loss(single, keypoints[None], weights[None])

    return jax.vmap(loss)(heatmaps)


@dataclasses.dataclass(frozen=True)
class DetectionObjective:
    """Centers and boxes of people.

    Attributes:
      codec: of the network.
      bbox_weight: of the loss of boxes; that of centers is 1.
    """

    codec: BoxCodec
    bbox_weight: float = 1.0

    @property
    def batch_keys(self) -> tuple[str, ...]:
        """Images, boxes and their weights, and regions to ignore."""
        return ("image", "bboxes", "weights", "ignored")

    def inputs(self, batch: Batch) -> Float[Array, "b h w 3"]:
        """Normalized images."""
        return self.codec.inputs(batch["image"])

    def loss(self, outputs: Any, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        """The loss of centers plus that of boxes, and both as metrics."""
        heat, boxes = self.codec.compute_losses(
            outputs, batch["bboxes"], batch["weights"], batch["ignored"]
        )
        boxes = self.bbox_weight * boxes
        return heat + boxes, {"heat_loss": heat, "bbox_loss": boxes}
