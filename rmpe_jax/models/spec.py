"""What a trained network is: everything that has to be known to build it and to use its outputs.

A spec comes from a config, a run's checkpoint or a model file (`rmpe_jax.config.spec`), and builds
the Flax module together with the codec that fits its output.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmpe_jax.codecs.boxes import NUM_MAPS, BoxCodec
from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.codecs.simcc import SimccCodec
from rmpe_jax.errors import UserError
from rmpe_jax.models import build_sppe
from rmpe_jax.models.localization import build_localization
from rmpe_jax.models.rmpe import RMPE
from rmpe_jax.models.rtmpose import RTMPOSE_MODELS
from rmpe_jax.models.vitpose import TransformerOptions
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A pose network, alone or inside the symmetric spatial transformer.

    Attributes:
      network: name of the SPPE, one of `models.SPPE_NAMES`.
      skeleton: the joints that it finds.
      input_size: (height, width) of its crops.
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
          UserError: the network does not work at this input size.
        """
        num_keypoints, dtype = self.skeleton.num_keypoints, jnp.dtype(self.dtype)
        build = functools.partial(
            build_sppe, num_keypoints=num_keypoints, dtype=dtype, transformer=self.transformer
        )
        module = build(self.network)
        if not self.has_heatmaps:
            _output(module, self.input_size)  # raises
            return module, SimccCodec(self.input_size, self.mean, self.std)
        if self.sstn:
            parallel = build(self.parallel) if self.parallel else None
            module = RMPE(
                sppe=module,
                localization=build_localization(self.localization, dtype),
                parallel_sppe=parallel,
                logits=self.loss != "mse",
            )
        codec = HeatmapCodec(
            loss=self.loss,
            input_size=self.input_size,
            heatmap_size=_heatmap_size(module, self.input_size),
            sigma=self.sigma,
            integer_center=self.integer_center,
            decode=self.decode,
            mean=self.mean,
            std=self.std,
            alignment=self.alignment,
            blur_sigma=self.blur_sigma,
        )
        return module, codec


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
        module = build_sppe(self.network, NUM_MAPS, jnp.dtype(self.dtype))
        output = _output(module, self.input_size)
        if isinstance(output, list):
            raise UserError(
                f"model: {self.network} has stacks, which a detector cannot have; use another"
            )
        if self.network in RTMPOSE_MODELS:
            raise UserError(f"model: {self.network} has no maps for a detector; use another")
        stride = self.input_size[0] // output.shape[1]
        return module, BoxCodec(self.input_size, stride, self.mean, self.std)


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


def _heatmap_size(module: nn.Module, input_size: tuple[int, int]) -> tuple[int, int]:
    output = _output(module, input_size)
    last = output[-1] if isinstance(output, list) else output
    return tuple(last.shape[1:3])


def _output(module: nn.Module, input_size: tuple[int, int]) -> Any:
    """Shapes of what the network makes of one image; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *input_size, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    return jax.eval_shape(module.apply, variables, image)
