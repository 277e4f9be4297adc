import contextlib
import copy
import io
import json
import logging
import math

import numpy as np
import pytest
from pycocotools.coco import COCO as CocoApi
from tiny_sets import coco_annotation, coco_document, raster, write_coco, write_images, write_json

from rmpe_jax.data.images import read_image
from rmpe_jax.data.readers.coco import read_coco
from rmpe_jax.data.readers.records import trainable
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO


def error_of(folder, document) -> str:
    """The error message of reading `document`, with FILE in place of the file's name."""
    path = write_json(folder / "annotations" / "person_keypoints_mini.json", document)
    with pytest.raises(UserError) as error:
        read_coco(folder, "mini")
    line = str(error.value)
    assert "\n" not in line
    assert str(path) in line
    return line.replace(str(path), "FILE")


def changed(**changes) -> dict:
    """The tiny document with the first annotation (id 100) changed; None removes a key."""
    document = coco_document()
    entry = document["annotations"][0]
    entry.update(changes)
    document["annotations"][0] = {key: value for key, value in entry.items() if value is not None}
    return document


def test_images_and_people_are_read(tmp_path):
    dataset = read_coco(write_coco(tmp_path), "mini")
    assert dataset.name == "coco/mini"
    assert dataset.skeleton is COCO
    assert dataset.annotations == tmp_path / "annotations" / "person_keypoints_mini.json"
    assert [p.image_id for p in dataset.images] == [7, 8, 9]
    assert dataset.num_people == 4
    first, second, third = dataset.images
    np.testing.assert_array_equal(read_image(second.path), raster(1))
    np.testing.assert_array_equal(first.bboxes, [[10, 10, 30, 40]])
    np.testing.assert_array_equal(second.person_ids, [100, 102, 103])
    np.testing.assert_array_equal(second.iscrowd, [False, False, True])
    np.testing.assert_array_equal(second.area, np.float32([1234.5] * 3))
    assert np.isnan(second.head_sizes).all()
    expected = np.array(coco_annotation(100, 8)["keypoints"], np.float32).reshape(17, 3)
    np.testing.assert_array_equal(second.keypoints[0], expected[:, :2])
    np.testing.assert_array_equal(second.visibility[0], expected[:, 2])
    assert third.keypoints.shape == (0, 17, 2)
    assert third.visibility.shape == (0, 17)
    assert third.bboxes.shape == (0, 4)
    for record in dataset.images:
        assert record.keypoints.dtype == record.bboxes.dtype == np.float32
        assert record.visibility.dtype == np.uint8


def test_without_a_split_the_images_are_in_images(tmp_path):
    write_json(tmp_path / "annotations" / "person_keypoints.json", coco_document())
    write_images(tmp_path / "images", ["7.png", "8.png", "9.png"])
    dataset = read_coco(tmp_path)
    assert dataset.name == f"coco/{tmp_path.name}"
    np.testing.assert_array_equal(read_image(dataset.images[0].path), raster(0))


def test_crowds_and_the_unlabeled_are_kept_but_not_trained_on(tmp_path):
    second = read_coco(write_coco(tmp_path), "mini").images[1]
    np.testing.assert_array_equal(trainable(second), [True, False, False])


def test_missing_images_are_no_matter_to_the_reader(tmp_path):
    write_json(tmp_path / "annotations" / "person_keypoints_mini.json", coco_document())
    assert len(read_coco(tmp_path, "mini").images) == 3


def test_other_categories_are_left_out(tmp_path):
    document = coco_document()
    document["annotations"].append({"id": 1, "image_id": 7, "category_id": 18, "bbox": []})
    assert read_coco(write_coco(tmp_path, document=document), "mini").num_people == 4


def test_without_area_it_is_that_of_the_box(tmp_path):
    document = changed(area=None)
    dataset = read_coco(write_coco(tmp_path, document=document), "mini")
    np.testing.assert_array_equal(dataset.images[1].area[:2], np.float32([70 * 48.5, 1234.5]))


@pytest.mark.parametrize("size", [(0.0, 30.0), (30.0, 0.0), (-5.0, 9.0)])
def test_a_person_whose_box_has_no_area_is_left_out_and_counted(tmp_path, caplog, size):
    document = changed(bbox=[10.0, 10.0, *size])
    with caplog.at_level(logging.WARNING):
        dataset = read_coco(write_coco(tmp_path, document=document), "mini")
    np.testing.assert_array_equal(dataset.images[1].person_ids, [102, 103])
    assert caplog.messages == [
        "coco/mini: people skipped because their box has no area: 1 (the first: annotation 100)"
    ]


def test_no_annotation_file(tmp_path):
    with pytest.raises(UserError) as error:
        read_coco(tmp_path, "mini")
    path = tmp_path / "annotations" / "person_keypoints_mini.json"
    assert str(error.value) == f"no annotation file {path}: check the path"


@pytest.mark.parametrize("content", [b"", b"{", b"<html>", b"\xff\xd8\xff\xe0\x80\x81"])
def test_a_file_that_is_not_json(tmp_path, content):
    path = write_json(tmp_path / "annotations" / "person_keypoints_mini.json", {})
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"^annotation file .*mini\.json is not JSON.*: give a complete file$"
    ):
        read_coco(tmp_path, "mini")


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_a_document_without_a_needed_key(tmp_path, key):
    document = coco_document()
    del document[key]
    assert error_of(tmp_path, document) == f"FILE has no {key!r}: add it or use another file"


def test_a_document_that_is_no_object(tmp_path):
    assert error_of(tmp_path, [1]) == "FILE is a list, not an object: fix the file"


@pytest.mark.parametrize("key", ["image_id", "bbox", "keypoints"])
def test_an_annotation_without_a_needed_key(tmp_path, key):
    line = error_of(tmp_path, changed(**{key: None}))
    assert line == f"FILE: annotation 100 has no {key!r}: add it or use another file"


def test_an_annotation_without_id(tmp_path):
    line = error_of(tmp_path, changed(id=None))
    assert line == "FILE: annotation number 0 has no 'id': add it or use another file"


@pytest.mark.parametrize("key", ["id", "file_name"])
def test_an_image_without_a_needed_key(tmp_path, key):
    document = coco_document()
    del document["images"][1][key]
    line = f"FILE: image number 1 has no {key!r}: add it or use another file"
    assert error_of(tmp_path, document) == line


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["bbox", "keypoints"])
def test_numbers_that_are_not_finite(tmp_path, key, value):
    numbers = copy.copy(coco_annotation(100, 8)[key])
    numbers[1] = value
    line = error_of(tmp_path, changed(**{key: numbers}))
    assert line == f"FILE: annotation 100 has {key} with NaN or infinity: fix the file"


def test_an_area_that_is_not_finite(tmp_path):
    line = error_of(tmp_path, changed(area=math.nan))
    assert line == "FILE: annotation 100 has area = nan: fix the file"


@pytest.mark.parametrize("count", [0, 14 * 3, 50, 52])
def test_keypoints_of_the_wrong_length(tmp_path, count):
    line = error_of(tmp_path, changed(keypoints=[1.0] * count))
    assert line == f"FILE: annotation 100 has {count} numbers in keypoints, not 51: fix the file"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"keypoints": ["a"] * 51}, "has keypoints that are not all numbers"),
        ({"keypoints": [[1.0], [2.0, 3.0]]}, "has keypoints that are not all numbers"),
        ({"keypoints": "none"}, "has keypoints = 'none'"),
        ({"keypoints": [3.0] * 51}, "has a visibility other than 0, 1, 2"),
        ({"image_id": [7]}, "has image_id = [7]"),
        ({"area": "big"}, "has area = 'big'"),
    ],
)
def test_values_of_the_wrong_kind(tmp_path, changes, expected):
    line = error_of(tmp_path, changed(**changes))
    assert line == f"FILE: annotation 100 {expected}: fix the file"


def test_an_annotation_of_an_unknown_image(tmp_path):
    line = error_of(tmp_path, changed(image_id=70))
    assert line == (
        "FILE: annotation 100 refers to image 70, which is not in 'images': "
        "add it or remove the annotation"
    )


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_ids_that_come_twice(tmp_path, key):
    document = coco_document()
    document[key].append(document[key][1])
    twice = document[key][1]["id"]
    assert error_of(tmp_path, document) == f"FILE: 'id' of the {key} has {twice} twice: remove one"


def test_an_empty_dataset(tmp_path):
    line = "FILE has no people in 0 images: the dataset is empty, use another file"
    assert error_of(tmp_path, {"images": [], "annotations": []}) == line
    nobody = coco_document() | {"annotations": []}
    assert error_of(tmp_path, nobody) == line.replace("in 0", "in 3")


@pytest.mark.parametrize(
    ("split", "images", "people", "to_train_on", "crowds"),
    [("train2017", 174, 641, 477, 11), ("val2017", 142, 619, 400, 16)],
)
def test_real_counts(shared_data, split, images, people, to_train_on, crowds):
    dataset = read_coco(shared_data / "coco", split)
    assert len(dataset.images) == images
    assert dataset.num_people == people
    assert sum(trainable(record).sum() for record in dataset.images) == to_train_on
    assert sum(record.iscrowd.sum() for record in dataset.images) == crowds


def test_real_annotations_equal_those_of_the_coco_api(shared_data):
    dataset = read_coco(shared_data / "coco", "val2017")
    with contextlib.redirect_stdout(io.StringIO()):
        api = CocoApi(str(dataset.annotations))
    names = json.loads(dataset.annotations.read_text())["categories"][0]["keypoints"]
    assert tuple(names) == COCO.joints
    for record in dataset.images:
        expected = api.loadAnns(api.getAnnIds(record.image_id))
        np.testing.assert_array_equal(record.person_ids, [a["id"] for a in expected])
        joints = np.float32([a["keypoints"] for a in expected]).reshape(-1, 17, 3)
        np.testing.assert_array_equal(record.keypoints, joints[..., :2])
        np.testing.assert_array_equal(record.visibility, joints[..., 2])
        xywh = np.array([a["bbox"] for a in expected])
        np.testing.assert_allclose(record.bboxes[:, 2:], xywh[:, :2] + xywh[:, 2:], rtol=1e-6)
        np.testing.assert_array_equal(record.area, np.float32([a["area"] for a in expected]))
