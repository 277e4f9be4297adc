"""How much is traced and compiled until the first poses; time itself is not tested."""

import bright
import jax
import jax.numpy as jnp
import numpy as np

from rmpe_jax.config import default_config, model_spec, parse_config
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.model_io.detector_model import DetectorModel, save_detector_model
from rmpe_jax.model_io.pose_model import save_pose_model
from rmpe_jax.models.small import TinyPose

CENTERS = [(60.3, 40.8), (110.1, 70.6)]


def save_detector(path) -> None:
    """A small detector with constant weights."""
    config = default_config()
    config.model.task, config.model.name = "detection", "tinypose_xs"
    config.model.input_size, config.detection.test_size = (64, 64), (64, 96)
    spec = model_spec(parse_config(config))
    shapes = jax.eval_shape(spec.module().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), dict(shapes))
    save_detector_model(path, DetectorModel(spec, variables))


def count_calls(network, monkeypatch) -> list:
    """A list that grows by one for each trace of a network."""
    calls, original = [], network.__call__

    def call(self, x, train=False):
        calls.append(x.shape)
        return original(self, x, train)

    monkeypatch.setattr(network, "__call__", call)
    return calls


def test_each_network_is_traced_and_compiled_once(bright_network, tmp_path, monkeypatch, caplog):
    """From files to poses there is one program per network, and nothing is computed beside them."""
    save_pose_model(tmp_path / "pose.safetensors", bright.pose_model())
    save_detector(tmp_path / "detector.safetensors")
    detector_traces = count_calls(TinyPose, monkeypatch)
    pose_traces = count_calls(bright.Bright, monkeypatch)
    image = bright.spots((140, 180), CENTERS)
    with jax.log_compiles():
        estimator = PoseEstimator.from_checkpoint(
            tmp_path / "pose.safetensors", detector=str(tmp_path / "detector.safetensors")
        )
        estimator.detect(image)
        poses = estimator.estimate(image, *bright.boxes_around(CENTERS))
    assert len(poses.scores) == len(CENTERS)
    assert detector_traces == [(1, 64, 96, 3)]
    assert [shape[1:] for shape in pose_traces] == [(*bright.INPUT_SIZE, 3)]
    compiled = [r.getMessage().split()[1] for r in caplog.records if "Compiling" in r.getMessage()]
    assert compiled == ["jit(detect)", "jit(estimate_poses)"]
