"""Detectors from strings, as on the command line, and the error messages."""

import numpy as np
import pytest

from rmpe_jax.detectors import open_detector
from rmpe_jax.detectors.factory import is_lookup
from rmpe_jax.errors import UserError

IMAGE = np.zeros((48, 64, 3), np.uint8)
RECORDS = [
    {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": score} for score in (0.2, 0.6)
]


def test_the_whole_image():
    assert open_detector("whole")(IMAGE, "a.jpg").bboxes.tolist() == [[0, 0, 64, 48]]


def test_ground_truth(coco_folder):
    found = open_detector(f"gt:coco:{coco_folder}:val")(IMAGE, "a.jpg")
    assert found.bboxes.tolist() == [[10, 20, 40, 60]]


def test_files(write, coco_folder):
    path = write(RECORDS)
    assert (
        open_detector(str(path))(IMAGE, "007.jpg").scores.tolist()
        == np.float32([0.6, 0.2]).tolist()
    )
    annotations = coco_folder / "annotations/person_keypoints_val.json"
    detect = open_detector(f"{path}:{annotations}", score_threshold=0.5)
    assert len(detect(IMAGE, "a.jpg").scores) == 1


def test_a_network(shared):
    path = shared / "models/fastestdet/fastestdet_coco_352.onnx"
    if not path.is_file():
        pytest.skip("no shared/models beside the checkout")
    detect = open_detector(f"{path}:fastestdet", score_threshold=0.3)
    assert detect.config.score_threshold == 0.3
    assert len(detect(IMAGE, "a.jpg").scores) == 0
    with pytest.raises(UserError, match=r"outputs \(1, 85, 22, 22\) .* not the layout ssd: give"):
        open_detector(f"{path}:ssd")
    with pytest.raises(
        UserError, match="'yolo' is not a layout of a detector: write yolox, yolov5"
    ):
        open_detector(f"{path}:yolo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a detector: write builtin, whole, gt:DATASET, FILE"),
        ("yolo", "'yolo' is not a detector"),
        ("whole:1", "is not a detector"),
        ("gt", "is not a dataset"),
        ("gt:coco", "is not a dataset"),
        ("gt:coco:nowhere:val", "no annotation file nowhere"),
        ("none.json", "no detections file none.json"),
        ("none.onnx", "no detector none.onnx: check the path"),
    ],
)
def test_invalid_strings(text, message):
    with pytest.raises(UserError, match=message) as error:
        open_detector(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gt:coco:FOLDER:val", True),
        ("boxes.json", True),
        ("boxes.JSON:annotations.json", True),
        ("builtin", False),
        ("whole", False),
        ("person.onnx:yolox", False),
        ("runs/detector", False),
    ],
)
def test_is_lookup(text, expected):
    assert is_lookup(text) == expected
