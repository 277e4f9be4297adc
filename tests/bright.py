"""A network with a known answer: every joint is where the crop is brightest."""

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from rmpe_jax import models
from rmpe_jax.config import default_config, model_spec, parse_config, validation
from rmpe_jax.detectors import Boxes
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.models.layers import BatchNorm
from rmpe_jax.pose_nms import PoseNmsParams
from rmpe_jax.pose_nms.params import NmsVariant

INPUT_SIZE = (64, 48)
# Keeps every pose; the score is that of the box times the mean of the joints'.
KEEP_ALL = PoseNmsParams(
    1.0, 1.0, 1.0, 1e9, NmsVariant("disc", "reference", False, 0, "none", "box_mean", 0.0)
)


class Bright(nn.Module):
    """(b, h, w, 3) -> (b, h/4, w/4, k): mean brightness, then a batch norm."""

    num_keypoints: int
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.num_keypoints, (4, 4), (4, 4), "VALID", use_bias=False, name="conv")(x)
        return BatchNorm(train, name="bn")(x)


def register(patch) -> None:
    """Registers the network under the name "bright"; `patch` is like `monkeypatch.setattr`."""
    names = (*models.SPPE_NAMES, "bright")
    patch(models, "_MODELS", {**models._MODELS, "bright": Bright})
    patch(validation, "SPPE_NAMES", names)


def pose_model(nms=KEEP_ALL) -> PoseModel:
    """The network with weights for which the batch norm is the identity."""
    config = default_config()
    config.model.name, config.model.input_size = "bright", INPUT_SIZE
    config.model.mean, config.model.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    k = 17
    mean, deviation = np.linspace(-1, 1, k), np.linspace(0.5, 2, k)
    vectors = {"mean": mean, "var": deviation**2 - 1e-5, "scale": deviation, "bias": mean}
    vectors = {name: value.astype(np.float32) for name, value in vectors.items()}
    variables = {
        "params": {
            "conv": {"kernel": np.full((4, 4, 3, k), 1 / 48, np.float32)},
            "bn": {name: vectors[name] for name in ("scale", "bias")},
        },
        "batch_stats": {"bn": {name: vectors[name] for name in ("mean", "var")}},
    }
    return PoseModel(model_spec(parse_config(config)), variables, nms)


def spots(size: tuple[int, int], centers, sigma: float = 6.0) -> np.ndarray:
    """A black image with bright Gaussian spots at (x, y), uint8 RGB."""
    ys, xs = np.mgrid[: size[0], : size[1]]
    bells = [np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2)) for x, y in centers]
    image = (250 * np.max(bells, 0)).round().astype(np.uint8)
    return np.repeat(image[..., None], 3, -1)


def boxes_around(centers, scores=None) -> Boxes:
    """Boxes of 50 x 60 pixels around spots, which are not in their centers."""
    centers = np.array(centers, np.float32).reshape(-1, 2)
    corners = np.tile(centers, 2) + np.array([-21, -33, 29, 27])
    scores = np.linspace(1, 0.5, len(centers)) if scores is None else np.array(scores)
    return Boxes(corners.astype(np.float32), scores.astype(np.float32))


def find_spots(image: np.ndarray, name: str = "") -> Boxes:
    """A detector: boxes around bright spots."""
    bright = (image[..., 0] > 125).astype(np.uint8)
    centers = cv2.connectedComponentsWithStats(bright)[3]
    return boxes_around(sorted(centers[1:].tolist()))
