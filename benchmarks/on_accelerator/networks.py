"""The networks that are measured, from the files in configs/, with random weights."""

import dataclasses
import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.config import RunConfig, model_spec, parse_config
from rmpe_jax.experiments.stages import load_config
from rmpe_jax.models.rmpe import RMPE
from rmpe_jax.models.spec import ModelSpec, require_pose

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
R50, VIT, SSTN = "FastPose-R50", "ViTPose-B", "RMPE (SSTN, FastPose-R50)"
LITE = "LitePose"  # litepose_effnet0_s
_FILES = {
    R50: "coco_fastpose_res50_256x192.py:data,random",
    VIT: "coco_vitpose_256x192.py:base,data,random",
    SSTN: "coco_fastpose_res50_256x192.py:data,random",
    LITE: "pose_movenet.py",
}
# The training of the built-in networks, with another network from ImageNet.
_LITE_CHANGES = {
    "model.name": "litepose_effnet0_s",
    "model.mean": (0.485, 0.456, 0.406),
    "model.std": (0.229, 0.224, 0.225),
    "optim.learning_rate": 1.5e-3,
    "optim.backbone_factor": 1.0,
    "optim.warmup_steps": 300,
    "optim.frozen": "",
}
# The smallest networks at small sizes, for a rehearsal.
_TINY = {
    R50: ("tinypose_s", (64, 64)),
    VIT: ("vitpose_s", (32, 32)),
    SSTN: ("tinypose_s", (64, 64)),
    LITE: ("tinypose_s", (64, 64)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A network in a precision, on batches of a size.

    Attributes:
      network: one of `R50`, `VIT`, `SSTN` and `LITE`.
      batch: crops.
      dtype: of the arithmetic.
      tiny: a small network in its place.
    """

    network: str
    batch: int
    dtype: str = "bfloat16"
    tiny: bool = False

    @property
    def name(self) -> str:
        return f"{self.network} {self.dtype} {self.batch}"

    def config(self) -> Any:
        """The `ConfigDict` of the run."""
        config = load_config(f"{CONFIGS}/{_FILES[self.network]}")
        config.batch_size, config.model.dtype = self.batch, self.dtype
        config.model.backbone_weights = ""
        if self.network == LITE:
            config.update_from_flattened_dict(_LITE_CHANGES)
        if self.network == SSTN:
            config.sstn.enabled = True
            config.sstn.localization = "small"
            config.sstn.parallel = "tinypose_s" if self.tiny else "fastpose_res18"
            config.sstn.parallel_from = "random"  # required; nothing reads it here
        if self.tiny:
            config.model.name, config.model.input_size = _TINY[self.network]
        return config

    def run(self) -> RunConfig:
        """The checked config."""
        return parse_config(self.config())

    def spec(self) -> ModelSpec:
        """Of the network."""
        return require_pose(model_spec(self.run()))

    def for_one(self) -> "Case":
        """The same network with one crop in float32."""
        return dataclasses.replace(self, batch=1, dtype="float32")

    def build(self) -> tuple[nn.Module, PoseCodec]:
        """The network and its codec, which do not depend on the batch."""
        return _build(dataclasses.replace(self, batch=1))

    def describe(self) -> dict[str, Any]:
        """For a line of the report."""
        size = self.spec().input_size
        inputs = {"network": self.network, "dtype": self.dtype, "batch": self.batch}
        return {**inputs, "input_size": "x".join(map(str, size))}


@functools.cache
def _build(case: Case) -> tuple[nn.Module, PoseCodec]:
    return case.spec().build()


def images(batch: int, size: tuple[int, int], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """The shape of a batch of images."""
    return jax.ShapeDtypeStruct((batch, *size, 3), dtype)


def random_variables(case: Case) -> dict[str, Any]:
    """Values for the variables of a network, on the host; they do not depend on batch and dtype.

    They are drawn without compiling the network's own initialization. The localization network is
    initialized properly, since the positions that it makes the sampler read depend on it.
    """
    return _random_variables(case.for_one())


@functools.cache
def _random_variables(case: Case) -> dict[str, Any]:
    network, _ = case.build()
    size = case.spec().input_size
    shapes = jax.eval_shape(network.init, jax.random.key(0), images(1, size))
    rng = np.random.default_rng(0)

    def value(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, leaf.dtype)
        if len(leaf.shape) < 2:
            return np.zeros(leaf.shape, leaf.dtype)
        spread = np.float32(np.prod(leaf.shape[:-1]) ** -0.5)
        return spread * rng.standard_normal(leaf.shape, leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(value, dict(shapes))
    if isinstance(network, RMPE):
        crops = jnp.zeros((1, *size, 3))
        parts = jax.jit(network.localization.init)(jax.random.key(0), crops)
        for kind, part in jax.device_get(parts).items():
            variables[kind]["localization"] = part
    return variables
