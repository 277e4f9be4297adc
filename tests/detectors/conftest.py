"""Detection and annotation files."""

import json
import sys

import pytest


@pytest.fixture
def write(tmp_path):
    """A function that writes JSON, or text as it is, and returns the file's path."""

    def write_file(content, name="detections.json"):
        text = content if isinstance(content, str) else json.dumps(content)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def coco_folder(write):
    """A COCO folder of three images: two people, one of them without joints; a crowd; no people."""
    person = {"category_id": 1, "iscrowd": 0, "area": 100, "keypoints": [20, 30, 2] * 17}
    people = [
        {**person, "id": 1, "image_id": 7, "bbox": [10, 20, 30, 40]},
        {**person, "id": 2, "image_id": 7, "bbox": [0, 0, 5, 5], "keypoints": [0] * 51},
        {**person, "id": 3, "image_id": 8, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    images = [{"id": i, "file_name": f"{name}.jpg"} for i, name in ((7, "a"), (8, "b"), (9, "c"))]
    document = {"images": images, "annotations": people}
    return write(document, "annotations/person_keypoints_val.json").parents[1]


@pytest.fixture(params=["onnxruntime", "opencv"])
def either_engine(request, monkeypatch):
    """With onnxruntime, and as if it were not installed."""
    if request.param == "opencv":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        pytest.importorskip("onnxruntime")
    return request.param
