"""The detector: from known maps to boxes in an image, and from a file."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_processes import FakeProcesses

from rmpe_jax.codecs.boxes import PRIOR, BoxCodec
from rmpe_jax.config import default_config, model_spec, parse_config
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.detectors import open_detector
from rmpe_jax.detectors.evaluation import detector_ap
from rmpe_jax.detectors.points import PointDetector
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.detector_model import DetectorModel, save_detector_model
from rmpe_jax.model_io.model_file import save_model
from rmpe_jax.top_down.detection import detect

STRIDE = 4
CODEC = BoxCodec((64, 64), STRIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Known(nn.Module):
    """Outputs the same maps for every image."""

    @nn.compact
    def __call__(self, x, train=False):
        maps = self.param("maps", nn.initializers.zeros, (16, 16, 5))
        return jnp.broadcast_to(maps, (len(x), *maps.shape))


def maps_of(*people) -> dict:
    """The variables of `Known` for people (x1, y1, x2, y2, score)."""
    maps = np.full((16, 16, 5), -30 - PRIOR, np.float32)
    for x1, y1, x2, y2, score in people:
        i, j = int((y1 + y2) / 2 // STRIDE), int((x1 + x2) / 2 // STRIDE)
        x, y = (j + 0.5) * STRIDE, (i + 0.5) * STRIDE
        maps[i, j, 0] = np.log(score / (1 - score)) - PRIOR
        maps[i, j, 1:] = np.log(np.array([x - x1, y - y1, x2 - x, y2 - y]) / (4 * STRIDE))
    return {"params": {"maps": jnp.asarray(maps)}}


A, B = (10, 8, 30, 40, 0.9), (40, 20, 60, 60, 0.8)


def found(*people, image=None, **options):
    image = np.zeros((1, 64, 64, 3), np.uint8) if image is None else image
    boxes = detect(Known(), CODEC, maps_of(*people), image, max_boxes=8, **options)
    return [np.asarray(values) for values in boxes]


def test_boxes_are_best_first_and_padded():
    bboxes, scores, valid = found(B, A, score_threshold=0.5)
    np.testing.assert_array_equal(valid, [[True] * 2 + [False] * 6])
    np.testing.assert_allclose(bboxes[0, :2], [A[:4], B[:4]], atol=1e-3)
    np.testing.assert_allclose(scores[0], [0.9, 0.8] + [0] * 6, atol=1e-5)
    assert not bboxes[0, 2:].any()


def test_of_overlapping_boxes_the_better_one_stays():
    # IoU 0.55, and centers too far apart to vote on each other's box.
    better, worse = (10, 2, 40, 50, 0.9), (10, 16, 40, 64, 0.7)
    assert found(better, worse, score_threshold=0.5, nms_iou=0.6)[2].sum() == 2
    bboxes, _, valid = found(worse, better, score_threshold=0.5)
    assert valid.sum() == 1
    np.testing.assert_allclose(bboxes[0, 0], better[:4], atol=1e-3)


def test_no_people():
    bboxes, scores, valid = found(score_threshold=0.5)
    assert not valid.any()
    assert not scores.any()
    assert not bboxes.any()


def test_boxes_are_clipped():
    bboxes, _, _ = found((-20, -10, 30, 30, 0.9), score_threshold=0.5)
    np.testing.assert_allclose(bboxes[0, 0], [0, 0, 30, 30], atol=1e-3)


def test_it_can_be_part_of_a_larger_function():
    def areas(variables, image):
        boxes = detect(Known(), CODEC, variables, image, score_threshold=0.5)
        sides = boxes.bboxes[..., 2:] - boxes.bboxes[..., :2]
        return jnp.where(boxes.valid, sides.prod(-1), 0).sum()

    image = np.zeros((2, 64, 64, 3), np.uint8)
    assert float(jax.jit(areas)(maps_of(A), image)) == pytest.approx(2 * 20 * 32, rel=1e-4)


def test_boxes_are_in_pixels_of_the_image():
    """An image of 96x128 is halved, with 8 rows of gray above and below."""
    detector = PointDetector(Known(), CODEC, maps_of(A, B), (64, 64), 0.5)
    boxes = detector(np.zeros((96, 128, 3), np.uint8), "a.jpg")
    assert boxes.bboxes.dtype == boxes.scores.dtype == np.float32
    np.testing.assert_allclose(boxes.bboxes, [[20, 0, 60, 64], [80, 24, 120, 96]], atol=1e-2)
    np.testing.assert_allclose(boxes.scores, [0.9, 0.8], atol=1e-5)


def test_boxes_in_the_gray_border_are_left_out():
    detector = PointDetector(Known(), CODEC, maps_of((10, 0, 40, 7, 0.9)), (64, 64), 0.5)
    assert len(detector(np.zeros((96, 128, 3), np.uint8), "a.jpg").bboxes) == 0


@pytest.fixture(scope="module")
def config():
    config = default_config()
    config.model.task = "detection"
    config.model.input_size = (64, 64)
    config.detection.test_size = (96, 64)
    return config


@pytest.fixture(scope="module")
def variables(config):
    model, _ = model_spec(parse_config(config)).build()
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


@pytest.mark.slow
def test_a_file_gives_the_same_boxes_as_the_run(config, variables, tmp_path):
    path = tmp_path / "detector.safetensors"
    model = DetectorModel(model_spec(parse_config(config)), variables)
    save_detector_model(path, model)
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    ours = PointDetector.from_model(model, 0.005)(image)
    assert len(ours.bboxes)
    theirs = open_detector(str(path), 0.005)(image, "a.jpg")
    np.testing.assert_allclose(theirs.bboxes, ours.bboxes, atol=1e-3)
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-6)


def test_the_file_of_a_pose_network_is_not_a_detector(variables, tmp_path):
    path = tmp_path / "pose.safetensors"
    save_model(path, variables, {"config": {"model": {"name": "tinypose_s"}}})
    with pytest.raises(UserError, match="finds no boxes: name one of"):
        open_detector(str(path))


def test_networks_with_stacks_are_refused(config):
    with pytest.raises(UserError, match="hourglass_2 has stacks"):
        dataclasses.replace(model_spec(parse_config(config)), network="hourglass_2").build()


def test_networks_without_maps_are_refused(config):
    with pytest.raises(UserError, match="rtmpose_t has no maps for a detector"):
        dataclasses.replace(model_spec(parse_config(config)), network="rtmpose_t").build()


def test_average_precision_of_a_dataset(tmp_path, monkeypatch, caplog):
    import cv2

    from rmpe_jax.data.readers.datasets import open_dataset

    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((64, 64, 3), np.uint8))
    x1, y1, x2, y2, _ = A
    person = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": 640,
        "iscrowd": 0,
        "num_keypoints": 0,
        "keypoints": [0] * 51,
    }
    images = [
        {"id": 1, "file_name": "a.png", "height": 64, "width": 64},
        {"id": 2, "file_name": "missing.png", "height": 64, "width": 64},
    ]
    document = {"images": images, "annotations": [person, person | {"id": 2, "image_id": 2}]}
    document["categories"] = [{"id": 1, "name": "person"}]
    (tmp_path / "annotations/person_keypoints.json").write_text(json.dumps(document))
    dataset: PoseDataset = open_dataset(f"coco:{tmp_path}")
    detector = PointDetector(Known(), CODEC, maps_of(A, B), (64, 64), 0.5)
    metrics, results = detector_ap(detector, dataset)
    assert [result["image_id"] for result in results] == [1, 1]
    (line,) = caplog.messages
    assert line.startswith("1 of 2 images cannot be read, their people count as missed: image ")
    assert "missing.png" in line
    # Half of the people found, at full precision: 51 of 101 recall thresholds.
    assert metrics["AP50"] == pytest.approx(51 / 101, abs=0.011)

    class Named:
        """Another detector, without a network on the devices."""

        def __call__(self, image, name):
            return detector(image, name)

    assert detector_ap(Named(), dataset)[1] == results
    together = FakeProcesses(3, monkeypatch.setattr)
    assert together.run(lambda: detector_ap(detector, dataset)) == [(metrics, results)] * 3
