"""The networks that come with the package: small, without pickle, and as good as documented."""

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


def test_weights_are_small_and_describe_themselves():
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert [file.name for file in files] == [
        "detector.safetensors",
        "pose.safetensors",
        "pose_small.safetensors",
    ]
    assert sum(file.stat().st_size for file in files) < 30e6
    for file in files:
        with safetensors.safe_open(file, framework="numpy") as opened:
            assert "docs/model_card.md" in opened.metadata()["rmpe_jax"]


@pytest.fixture(scope="module")
def portrait_path() -> str:
    return matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)


@pytest.fixture(scope="module")
def portrait(portrait_path) -> np.ndarray:
    return read_image(portrait_path, upright=True)


# Nose, left eye, right eye; annotated by hand.
FACE = np.array([[260, 222], [310, 188], [218, 188]])
SHOULDERS = np.array([[440, 400], [80, 410]])  # left, right


@pytest.mark.slow
def test_both_networks_are_the_default(portrait_path, portrait):
    """And a path gives the poses of the array.

    The cap is found as a second person, with low scores.
    """
    estimator = rmpe_jax.PoseEstimator.from_checkpoint()
    poses = estimator.predict(portrait_path)
    assert len(poses.scores) <= 2
    assert (poses.keypoint_scores[1:].mean(-1) < 0.25).all()
    assert np.linalg.norm(poses.keypoints[0, :3] - FACE, axis=-1).max() < 31
    assert np.linalg.norm(poses.keypoints[0, 5:7] - SHOULDERS, axis=-1).max() < 62
    for a, b in zip(poses, estimator.predict(portrait), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["builtin", "builtin-small"])
def test_a_portrait(name, portrait):
    """Eyes and nose, within a third of the distance of the eyes, and shoulders, within two."""
    estimator = rmpe_jax.PoseEstimator.from_checkpoint(name, detector="whole")
    assert estimator.skeleton is COCO
    poses = estimator.predict(portrait)
    assert np.linalg.norm(poses.keypoints[0, :3] - FACE, axis=-1).max() < 31
    shoulders = poses.keypoints[0, 5:7] - SHOULDERS
    assert np.linalg.norm(shoulders, axis=-1).max() < 62
    # Mirroring swaps left and right.
    mirrored = estimator.predict(portrait[:, ::-1].copy()).keypoints[0, [0, 2, 1]]
    mirrored[:, 0] = portrait.shape[1] - 1 - mirrored[:, 0]
    assert np.linalg.norm(mirrored - FACE, axis=-1).max() < 31


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ap"), [("builtin", 0.524), ("builtin-small", 0.447)])
def test_ap_of_the_pose_networks_in_the_model_card(name, ap, shared_data, tmp_path):
    model = load_pose_model(name)
    spec = f"coco:{shared_data}/coco:val2017"
    metrics = evaluate_pose_model(model, spec, "gt", tmp_path, flip_test=True)
    assert metrics["AP"] == pytest.approx(ap, abs=0.005)


@pytest.mark.slow
def test_ap_of_the_detector_in_the_model_card(shared_data):
    dataset = open_dataset(f"coco:{shared_data}/coco:val2017")
    metrics, _ = detector_ap(open_detector("builtin", score_threshold=0.05), dataset)
    assert metrics["AP50"] == pytest.approx(0.581, abs=0.01)
