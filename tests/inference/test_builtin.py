"""The networks that come with the package: small, without pickle, and of use."""

import pathlib

import matplotlib.cbook
import numpy as np
import pytest
import safetensors

import rmpe_jax
from rmpe_jax.data.images import read_image
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.detectors import open_detector
from rmpe_jax.detectors.evaluation import detector_ap
from rmpe_jax.experiments.evaluate import evaluate_pose_model
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.skeletons import COCO

WEIGHTS = pathlib.Path(rmpe_jax.__file__).parent / "weights"


def test_weights_are_small_and_say_what_they_are():
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert [file.name for file in files] == ["detector.safetensors", "pose.safetensors"]
    assert sum(file.stat().st_size for file in files) < 30e6
    for file in files:
        with safetensors.safe_open(file, framework="numpy") as opened:
            assert "docs/model_card.md" in opened.metadata()["rmpe_jax"]


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


def test_a_portrait(portrait):
    """Her eyes and nose, within a third of the distance of the eyes; read off the picture."""
    estimator = rmpe_jax.PoseEstimator.from_checkpoint("builtin", detector="whole")
    assert estimator.skeleton is COCO
    poses = estimator.predict(portrait)
    found = poses.keypoints[0, :3]  # nose, left eye, right eye
    expected = np.array([[260, 222], [310, 188], [218, 188]])
    assert np.linalg.norm(found - expected, axis=-1).max() < 31
    # Mirrored, left and right change places.
    mirrored = estimator.predict(portrait[:, ::-1].copy()).keypoints[0, [0, 2, 1]]
    mirrored[:, 0] = portrait.shape[1] - 1 - mirrored[:, 0]
    assert np.linalg.norm(mirrored - expected, axis=-1).max() < 31


@pytest.mark.slow
def test_what_the_model_card_says_of_the_pose_network(shared_data, tmp_path):
    model = load_pose_model("builtin")
    spec = f"coco:{shared_data}/coco:val2017"
    metrics = evaluate_pose_model(model, spec, "gt", tmp_path, flip_test=True)
    assert metrics["AP"] == pytest.approx(0.201, abs=0.005)


@pytest.mark.slow
def test_what_the_model_card_says_of_the_detector(shared_data):
    dataset = open_dataset(f"coco:{shared_data}/coco:val2017")
    metrics, _ = detector_ap(open_detector("builtin", score_threshold=0.05), dataset)
    assert metrics["AP50"] == pytest.approx(0.413, abs=0.01)
