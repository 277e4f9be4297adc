"""A network whose answer is known: every joint is where the crop is brightest."""

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from rmpe_jax import models
from rmpe_jax.config import default_config, model_spec, parse_config, validation
from rmpe_jax.detectors import Boxes
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.models.layers import batch_norm
from rmpe_jax.pose_nms import PoseNmsParams
from rmpe_jax.pose_nms.params import NmsVariant

SIZE = (64, 48)
# Nobody is like another, and the score is that of the box times the mean of the joints'.
ALL = PoseNmsParams(
    1.0, 1.0, 1.0, 1e9, NmsVariant("disc", "reference", False, 0, "none", "box_mean", 0.0)
)


class Bright(nn.Module):
    """(b, h, w, 3) -> (b, h/4, w/4, k): mean brightness, after a batch norm that takes it away."""

    num_keypoints: int
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.num_keypoints, (4, 4), (4, 4), "VALID", use_bias=False, name="conv")(x)
        return batch_norm(train=train, name="bn")(x)


def register(patch) -> None:
    """Makes it known as "bright"; `patch` is as `monkeypatch.setattr`."""
    names = (*models.SPPE_NAMES, "bright")
    patch(models, "_MODELS", {**models._MODELS, "bright": Bright})
    patch(validation, "SPPE_NAMES", names)


def pose_model(nms=ALL) -> PoseModel:
    """The network, with weights."""
    config = default_config()
    config.model.name, config.model.input_size = "bright", SIZE
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


def spots(size: tuple[int, int], centres, sigma: float = 6.0) -> np.ndarray:
    """A black picture with bright Gaussian spots at (x, y), uint8 RGB."""
    ys, xs = np.mgrid[: size[0], : size[1]]
    bells = [np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2)) for x, y in centres]
    image = (250 * np.max(bells, 0)).round().astype(np.uint8)
    return np.repeat(image[..., None], 3, -1)


def boxes_about(centres, scores=None) -> Boxes:
    """Boxes of 50 x 60 pixels, none with its spot in its middle."""
    centres = np.array(centres, np.float32).reshape(-1, 2)
    corners = np.tile(centres, 2) + np.array([-21, -33, 29, 27])
    scores = np.linspace(1, 0.5, len(centres)) if scores is None else np.array(scores)
    return Boxes(corners.astype(np.float32), scores.astype(np.float32))


def find_spots(image: np.ndarray, name: str = "") -> Boxes:
    """A detector: boxes about what is bright."""
    bright = (image[..., 0] > 125).astype(np.uint8)
    centres = cv2.connectedComponentsWithStats(bright)[3]
    return boxes_about(sorted(centres[1:].tolist()))
