"""Detectors from runs and files: the same boxes from each."""

import numpy as np
import pytest

from rmpe_jax.config import default_config, model_spec, parse_config, spec_to_dict
from rmpe_jax.data.synthetic import write_coco_folder
from rmpe_jax.detectors import open_detector
from rmpe_jax.detectors.points import PointDetector
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.detector_model import load_detector_model, save_detector_model
from rmpe_jax.model_io.model_file import save_model
from rmpe_jax.training.loop import train


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of no steps: what is in its checkpoints does not matter here."""
    folder = tmp_path_factory.mktemp("run")
    write_coco_folder(folder / "data", range(1), size=(64, 96))
    config = default_config()
    config.model.task = "detection"
    config.model.input_size = (32, 32)
    config.detection.test_size = (64, 64)
    config.data.train = (f"coco:{folder / 'data'}",)
    config.batch_size, config.total_steps = 2, 1
    train(config, folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_run_and_files_give_the_same_boxes(workdir, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    model = load_detector_model(workdir)
    boxes = PointDetector.from_model(model, 0.001)(image)
    assert len(boxes.bboxes)
    for half, tolerance in ((False, 1e-5), (True, 0.02)):
        path = tmp_path / f"half_{half}.safetensors"
        save_detector_model(path, model, half=half, about={"data": "scenes"})
        scores = open_detector(str(path), 0.001)(image, "a.jpg").scores
        np.testing.assert_allclose(scores[:3], boxes.scores[:3], rtol=tolerance)
    sizes = [(tmp_path / f"half_{half}.safetensors").stat().st_size for half in (False, True)]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("model", {"task": "pose"}, "this network finds no boxes"),
        ("model", "tinypose_s", "it has no config of a detector"),
        ("detection", {}, "it has no config of a detector"),
        ("detection", {"test_size": [64, 64]}, "the variables are not those of tinypose_s"),
    ],
)
def test_files_of_something_else(tmp_path, part, value, expected):
    config = default_config()
    config.model.task = "detection"
    config = spec_to_dict(model_spec(parse_config(config)))
    path = tmp_path / "a.safetensors"
    save_model(path, {"params": {"a": np.zeros(1)}}, {"config": config | {part: value}})
    with pytest.raises(UserError, match=expected) as error:
        open_detector(str(path))
    assert path.name in str(error.value)


def test_no_run_there(tmp_path):
    with pytest.raises(UserError, match="no model there; name a model file or a training run"):
        load_detector_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no checkpoint there can be read; train first"):
        load_detector_model(tmp_path)


def test_a_detector_trained_in_bfloat16_is_used_in_float32(tmp_path):
    config = default_config()
    config.model.task, config.model.dtype = "detection", "bfloat16"
    content = {"config": spec_to_dict(model_spec(parse_config(config)))}
    save_model(tmp_path / "a", {"params": {"a": np.zeros(1)}}, content)
    assert load_detector_model(tmp_path / "a").spec.dtype == "float32"
