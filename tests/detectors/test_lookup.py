"""Detectors without a network: the whole image, ground truth, files of both formats."""

import json
import re

import numpy as np
import pytest

from rmpe_jax.data.readers.coco import read_coco
from rmpe_jax.detectors.lookup import from_file, ground_truth
from rmpe_jax.detectors.whole import whole_image
from rmpe_jax.errors import UserError

IMAGE = np.zeros((48, 64, 3), np.uint8)


def box(image_id, x=1.0, score=0.5, **more):
    return {"image_id": image_id, "category_id": 1, "bbox": [x, 2, 30, 40], "score": score, **more}


def assert_boxes(found, bboxes, scores):
    np.testing.assert_array_equal(found.bboxes, np.reshape(np.float32(bboxes), (-1, 4)))
    np.testing.assert_array_equal(found.scores, np.float32(scores))
    assert found.bboxes.dtype == found.scores.dtype == np.float32


@pytest.mark.parametrize("size", [(48, 64), (1, 1), (3, 5000)])
def test_the_whole_image(size):
    found = whole_image(np.zeros((*size, 3), np.uint8), "a.jpg")
    assert_boxes(found, [0, 0, size[1], size[0]], [1])


def test_ground_truth_has_people_with_joints_and_no_crowds(coco_folder, caplog):
    detect = ground_truth(read_coco(coco_folder, "val"))
    assert_boxes(detect(IMAGE, "a.jpg"), [10, 20, 40, 60], [1])
    assert_boxes(detect(IMAGE, "b.jpg"), [], [])
    assert_boxes(detect(IMAGE, "c.jpg"), [], [])
    assert caplog.text == ""
    assert_boxes(detect(IMAGE, "other.jpg"), [], [])
    assert "coco/val has no boxes of image other.jpg" in caplog.text


def test_ground_truth_of_images_with_the_same_name(coco_folder):
    path = coco_folder / "annotations/person_keypoints_val.json"
    document = json.loads(path.read_text())
    document["images"][1]["file_name"] = "folder/a.jpg"
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="coco/val has two images named a,"):
        ground_truth(read_coco(coco_folder, "val"))


@pytest.mark.parametrize("name", ["000000000139.jpg", "COCO_val2014_000000000139.jpg", "139.png"])
def test_coco_ids_are_the_numbers_in_file_names(write, name):
    detect = from_file(write([box(139, 1, 0.25), box(14), box(139, 7, 0.75)]))
    assert_boxes(detect(IMAGE, name), [[7, 2, 37, 42], [1, 2, 31, 42]], [0.75, 0.25])


@pytest.mark.parametrize("image_id", ["/data/set/frame_12.jpg", "set\\frame_12.png", "frame_12"])
def test_alphapose_names_images_by_path(write, image_id):
    detect = from_file(write([box(image_id, idx=3), box("other.jpg", 9)]))
    assert_boxes(detect(IMAGE, "frame_12.jpg"), [1, 2, 31, 42], [0.5])
    # Numbers are ids only if the file has integers.
    assert_boxes(detect(IMAGE, "12.jpg"), [], [])


def test_annotations_give_the_names_of_ids(write, coco_folder, caplog):
    annotations = coco_folder / "annotations/person_keypoints_val.json"
    detect = from_file(write([box(8, 5), box("c.jpg", 6)]), annotations)
    assert_boxes(detect(IMAGE, "b.jpg"), [5, 2, 35, 42], [0.5])
    assert_boxes(detect(IMAGE, "c.jpg"), [6, 2, 36, 42], [0.5])
    assert_boxes(detect(IMAGE, "a.jpg"), [], [])  # known, without detections
    assert caplog.text == ""
    detect(IMAGE, "8.jpg")
    assert "has no boxes of image 8.jpg" in caplog.text


def test_ids_of_annotations_may_be_floats(write):
    images = [{"id": 5.0, "file_name": "a.jpg"}, {"id": "x", "file_name": "b.jpg"}]
    annotations = write({"images": images}, "annotations.json")
    detect = from_file(write([box(5, 1), box("x", 2), box(5.0, 3, 0.75)]), annotations)
    assert_boxes(detect(IMAGE, "a.jpg"), [[3, 2, 33, 42], [1, 2, 31, 42]], [0.75, 0.5])
    assert_boxes(detect(IMAGE, "b.jpg"), [2, 2, 32, 42], [0.5])


def test_boxes_of_images_missing_in_the_annotations(write, coco_folder):
    annotations = coco_folder / "annotations/person_keypoints_val.json"
    with pytest.raises(UserError, match="has boxes of 11, which is not in"):
        from_file(write([box(8), box(11)]), annotations)


def test_names_that_are_not_unique(write):
    with pytest.raises(UserError, match="two images named 1, whose boxes"):
        from_file(write([box("a/1.jpg"), box("b/1.jpg")]))


def test_names_that_are_not_unique_in_the_annotations(write):
    images = [{"id": i, "file_name": f"{folder}/1.jpg"} for i, folder in enumerate("ab")]
    annotations = write({"images": images}, "annotations.json")
    with pytest.raises(UserError, match="two images named 1, whose boxes"):
        from_file(write([box(0)]), annotations)


@pytest.mark.parametrize(
    "names",
    [["img_5.jpg", "000000000005.jpg"], ["a/5.jpg", "b/5.jpg"], ["5.jpg", "clip_000005.jpg"]],
)
def test_an_id_that_fits_two_images_is_an_error(write, names):
    path = write([box(5), box(6)])
    line = f"detections file {path} has boxes of an image 5, which may be {names[0]} or {names[1]}:"
    with pytest.raises(UserError, match=re.escape(line)) as error:
        from_file(path).check_names(["000000000006.jpg", *names])
    assert "\n" not in str(error.value)


def test_a_name_that_fits_two_images_is_an_error(write):
    with pytest.raises(UserError, match=r"of an image 'x', which may be a/x\.jpg or x\.png: give"):
        from_file(write([box("x.jpg")])).check_names(["a/x.jpg", "x.png"])


def test_images_without_boxes_are_counted_once(write, caplog):
    path = write([box(5)])
    detect = from_file(path)
    names = ["a.jpg", "5.jpg", "x/b.jpg", "x/a.jpg"]  # nothing is looked up for two of them
    detect.check_names(names)
    for name in names:
        detect(IMAGE, name)
    line = f"detections file {path} has no boxes of 3 of 4 images, such as a.jpg"
    assert caplog.messages == [line]


def test_without_a_count_the_first_image_without_boxes_is_reported(write, caplog):
    path = write([box(5)])
    detect = from_file(path)
    for name in ("5.jpg", "7.jpg", "8.jpg"):
        detect(IMAGE, name)
    line = f"detections file {path} has no boxes of image 7.jpg; others are not reported"
    assert caplog.messages == [line]


def test_thresholds_other_categories_and_unusable_boxes(write, caplog):
    records = [box("a", 1, 0.5), box("a", 2, 0.2), box("a", 3, 0.9, category_id=3)]
    records += [box("a", 4, float("nan")), {**box("a"), "bbox": [1, 2, 0, 5]}, box("b", 5, 0.1)]
    detect = from_file(write(records), score_threshold=0.2)
    assert_boxes(detect(IMAGE, "a.jpg"), [[1, 2, 31, 42], [2, 2, 32, 42]], [0.5, 0.2])
    assert "2 boxes without area or with NaN" in caplog.text
    assert "other categories than person are skipped: 1 of category 3" in caplog.text
    caplog.clear()
    assert_boxes(detect(IMAGE, "b.jpg"), [], [])
    assert caplog.text == ""  # the file has the image


def test_real_detections(shared_data):
    path = shared_data / "coco/detections/person_detections_val2017_fastestdet.json"
    annotations = shared_data / "coco/annotations/person_keypoints_val2017.json"
    by_name, by_number = from_file(path, annotations), from_file(path)
    images = json.loads(annotations.read_text())["images"]
    records = json.loads(path.read_text())
    total = 0
    for image in images:
        found = by_name(IMAGE, image["file_name"])
        total += len(found.scores)
        assert_boxes(by_number(IMAGE, image["file_name"]), *found)
    assert total == len(records)
