"""What `rmpe eval` says of labels and boxes that cannot belong to the images."""

import json

import bright
import cv2
import numpy as np
import pytest
from tiny_sets import coco_annotation, coco_document, write_coco

from rmpe_jax.errors import UserError
from rmpe_jax.experiments.evaluate import evaluate_detector_model, evaluate_pose_model
from rmpe_jax.model_io.detector_model import load_detector_model

pytestmark = pytest.mark.usefixtures("bright_network")


def write_people(folder, change=lambda annotation: None) -> str:
    """A dataset of four people on two images, each annotation changed."""
    document = coco_document()
    document["annotations"] = [coco_annotation(i, 7 + i % 2) for i in range(4)]
    for annotation in document["annotations"]:
        change(annotation)
    return f"coco:{write_coco(folder, document=document)}:mini"


def scale(factor: float):
    """A function that multiplies the coordinates of an annotation."""

    def change(annotation) -> None:
        joints = np.reshape(annotation["keypoints"], (-1, 3)) * (factor, factor, 1)
        annotation["keypoints"] = joints.ravel().tolist()
        annotation["bbox"] = [factor * v for v in annotation["bbox"]]

    return change


@pytest.mark.parametrize(
    ("factor", "says"), [(1 / 80, "boxes in fractions of the image"), (9.0, "boxes mostly outside")]
)
def test_suspicious_labels_are_refused(tmp_path, factor, says):
    data = write_people(tmp_path / "data", scale(factor))
    line = f"^coco/mini: 4 of 4 people have labels that do not fit their image: {says}.*"
    for call in (
        lambda: evaluate_pose_model(bright.pose_model(), data, "gt", tmp_path / "out"),
        lambda: evaluate_detector_model(load_detector_model("builtin"), data, tmp_path / "out"),
    ):
        with pytest.raises(UserError, match=line + r"or go on with --max-suspicious=1$"):
            call()
    assert not (tmp_path / "out").exists()


def test_images_of_another_size_are_refused(tmp_path):
    """Half as large as when they were annotated: AP would be 0."""
    data = write_people(tmp_path / "data")
    for path in (tmp_path / "data" / "mini").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (40, 30)))
    with pytest.raises(UserError, match=r"2 of 2 images do not have the width and height that .*"):
        evaluate_pose_model(bright.pose_model(), data, "gt", tmp_path / "out")


def test_suspicious_boxes_of_a_detector_are_refused(tmp_path):
    data = write_people(tmp_path / "data")
    boxes = tmp_path / "boxes.json"
    record = {"image_id": 7, "category_id": 1, "score": 0.5}
    corners = [{**record, "bbox": [60, 40, 79, 59]}, {**record, "bbox": [2, 3, 30, 50]}]
    boxes.write_text(json.dumps(corners))
    with pytest.raises(UserError) as error:
        evaluate_pose_model(bright.pose_model(), data, str(boxes), tmp_path / "out")
    assert str(error.value).startswith(
        f"{boxes}: 1 of 2 boxes do not fit their image: boxes mostly outside of the image (1); the "
        "first: [60, 40, 79, 59] on 7.png; "
    )


def test_it_goes_on_if_that_is_wanted(tmp_path, caplog):
    data = write_people(tmp_path / "data", scale(1 / 80))
    metrics = evaluate_pose_model(
        bright.pose_model(), data, "gt", tmp_path / "out", max_suspicious=1.0
    )
    assert "AP" in metrics
    assert (tmp_path / "out" / "results.json").exists()
    (warning,) = [m for m in caplog.messages if "do not fit" in m]
    assert warning.startswith("coco/mini: 4 of 4 people have labels")
