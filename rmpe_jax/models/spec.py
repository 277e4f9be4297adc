"""What a trained network is: everything that has to be known to build it and to use its outputs.

A spec comes from a config, a run's checkpoint or a model file (`rmpe_jax.config.spec`), and builds
the Flax module together with the codec that fits its output.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmpe_jax.codecs.boxes import NUM_MAPS, BoxCodec
from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.codecs.simcc import SimccCodec
from rmpe_jax.codecs.view import ViewCodec
from rmpe_jax.errors import UserError
from rmpe_jax.models import build_sppe
from rmpe_jax.models.localization import build_localization
from rmpe_jax.models.rmpe import RMPE, crop_heatmap_size
from rmpe_jax.models.rtmpose import RTMPOSE_MODELS
from rmpe_jax.models.vitpose import TransformerOptions
from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A pose network, alone or inside the symmetric spatial transformer.

    Attributes:
      network: name of the SPPE, one of `models.SPPE_NAMES`.
      skeleton: the joints that it finds.
      input_size: (height, width) of the crops. Those of an SPPE inside the spatial transformer are
        its views, see `view_size`.
      padding: factor on both sides of a person's box for the crop.
      mean: of the inputs, RGB in 0..1.
      std: likewise.
      loss: that it was trained with, which says what its outputs mean; see `HeatmapCodec`.
      sigma: of the target Gaussians, heatmap pixels.
      integer_center: AlphaPose's rounded, truncated Gaussians instead of exact ones.
      decode: how keypoints are read from heatmaps; see `HeatmapCodec`.
      alignment: of heatmaps with the crop; see `HeatmapCodec`.
      sstn: whether STN and SDTN are around the SPPE.
      localization: name of the localization network, used with `sstn`.
      parallel: name of the parallel SPPE's network, used with `sstn` in training; empty: none.
      dtype: of the arithmetic; parameters are float32.
      blur_sigma: of the smoothing before decoding; see `HeatmapCodec`.
      transformer: options of a ViTPose.
      difference_step: of the STN's guidance in training, see `RMPE`; None: by gradients.
      sstn_decode: "crop": keypoints are read from heatmaps after the SDTN; "view": from those
        before it, and mapped to the crop, see `ViewCodec`.
      context: sides of the crop in sides of the STN's view; 1 without `sstn`.
    """

    network: str
    skeleton: Skeleton
    input_size: tuple[int, int]
    padding: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    loss: str
    sigma: float
    integer_center: bool
    decode: str
    alignment: str
    sstn: bool
    localization: str
    parallel: str = ""
    dtype: str = "float32"
    blur_sigma: float = 0.0
    transformer: TransformerOptions = dataclasses.field(default_factory=TransformerOptions)
    difference_step: float | None = None
    sstn_decode: str = "crop"
    context: float = 1.0

    @property
    def view_size(self) -> tuple[int, int]:
        """(height, width) of what the SPPE sees: the STN's view, or else the crop."""
        return geometry.view_size(self.input_size, self.context)

    @property
    def view_padding(self) -> float:
        """Factor on both sides of a person's box for what the SPPE sees, up to rounding."""
        return self.padding / self.context

    @property
    def crop(self) -> CropSpec:
        """How people are cropped for it."""
        return CropSpec(self.input_size, self.padding, udp=self.alignment == "udp")

    @property
    def has_heatmaps(self) -> bool:
        """False for RTMPose, whose outputs are SimCC's vectors.

        Nothing then depends on the attributes of heatmaps, from `loss` to `alignment` and
        `blur_sigma`.
        """
        return self.network not in RTMPOSE_MODELS

    def build(self) -> tuple[nn.Module, PoseCodec]:
        """The network and the codec that fits its output.

        Raises:
          UserError: the network does not work at this input size, or not with this context.
        """
        module = self.module()
        try:
            return module, self.codec(_output(module, self.input_size))
        except UserError as error:
            if self.view_size == self.input_size:
                raise
            raise UserError(f"config.sstn.context={self.context}: {error}") from None

    def module(self) -> nn.Module:
        """The network."""
        num_keypoints, dtype = self.skeleton.num_keypoints, jnp.dtype(self.dtype)
        build = functools.partial(
            build_sppe, num_keypoints=num_keypoints, dtype=dtype, transformer=self.transformer
        )
        module = build(self.network)
        if not self.sstn or not self.has_heatmaps:
            return module
        return RMPE(
            sppe=module,
            localization=build_localization(self.localization, dtype),
            parallel_sppe=build(self.parallel) if self.parallel else None,
            logits=self.loss != "mse",
            difference_step=self.difference_step,
            in_view=self._in_view,
            view_size=None if self.context == 1 else self.view_size,
        )

    def codec(self, output: Any) -> PoseCodec:
        """The codec that fits an output of the network, of which only the shapes are used.

        Raises:
          UserError: the margin around the view is no whole number of heatmap pixels.
        """
        if not self.has_heatmaps:
            return SimccCodec(self.input_size, self.mean, self.std)
        heatmaps = output.heatmaps if self._in_view else output
        last = heatmaps[-1] if isinstance(heatmaps, list) else heatmaps
        heatmap_size = last.shape[1:3]
        make: Callable[..., PoseCodec] = HeatmapCodec
        if self._in_view:
            make = functools.partial(ViewCodec, view_size=self.view_size)
            heatmap_size = crop_heatmap_size(heatmap_size, self.view_size, self.input_size)
        return make(
            loss=self.loss,
            input_size=self.input_size,
            heatmap_size=heatmap_size,
            sigma=self.sigma,
            integer_center=self.integer_center,
            decode=self.decode,
            mean=self.mean,
            std=self.std,
            alignment=self.alignment,
            blur_sigma=self.blur_sigma,
        )

    @property
    def _in_view(self) -> bool:
        return self.sstn and self.sstn_decode == "view"


@dataclasses.dataclass(frozen=True)
class DetectorSpec:
    """A person detector: a pose network that draws the maps of boxes instead of keypoints.

    Attributes:
      network: one of `models.SPPE_NAMES` with maps and without stacks.
      input_size: (height, width) that it is trained at.
      test_size: (height, width) that images are fitted into when it is used.
      mean: of the inputs, RGB in 0..1.
      std: likewise.
      dtype: of the arithmetic; parameters are float32.
    """

    network: str
    input_size: tuple[int, int]
    test_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dtype: str = "float32"

    def build(self) -> tuple[nn.Module, BoxCodec]:
        """The network and the codec that fits its output.

        Raises:
          UserError: the network does not work at this input size, or has stacks or no maps.
        """
        module = self.module()
        return module, self.codec(_output(module, self.input_size), self.input_size)

    def module(self) -> nn.Module:
        """The network."""
        return build_sppe(self.network, NUM_MAPS, jnp.dtype(self.dtype))

    def codec(self, output: Any, image_size: tuple[int, int]) -> BoxCodec:
        """The codec that fits the network.

        Args:
          output: of the network; only the shapes are used.
          image_size: (height, width) of the images that it was made of.

        Raises:
          UserError: the network has stacks or no maps.
        """
        if isinstance(output, list):
            raise UserError(
                f"model: {self.network} has stacks, which a detector cannot have; use another"
            )
        if self.network in RTMPOSE_MODELS:
            raise UserError(f"model: {self.network} has no maps for a detector; use another")
        stride = image_size[0] // output.shape[1]
        return BoxCodec(self.input_size, stride, self.mean, self.std)


def require_pose(spec: ModelSpec | DetectorSpec) -> ModelSpec:
    """The spec of a pose network.

    Raises:
      UserError: it is a detector's.
    """
    if isinstance(spec, DetectorSpec):
        raise UserError(f"{spec.network} is a detector: name a pose network")
    return spec


def require_detector(spec: ModelSpec | DetectorSpec) -> DetectorSpec:
    """The spec of a detector.

    Raises:
      UserError: it is a pose network's.
    """
    if isinstance(spec, ModelSpec):
        raise UserError("this network finds no boxes: name one of config.model.task='detection'")
    return spec


def _output(module: nn.Module, input_size: tuple[int, int]) -> Any:
    """Shapes of what the network makes of one image; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *input_size, 3), jnp.float32)
    return jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], image)
