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
    np.testing.assert_array_equal(first.bboxes, [[10, 10, 70, 50]])
    np.testing.assert_array_equal(second.person_ids, [100, 102, 103])
    np.testing.assert_array_equal(second.iscrowd, [False, False, True])
    np.testing.assert_array_equal(second.area, [1234.5] * 3)
    assert first.declared_size == (80, 60)
    assert np.isnan(second.head_sizes).all()
    expected = np.array(coco_annotation(100, 8)["keypoints"], np.float32).reshape(17, 3)
    np.testing.assert_array_equal(second.keypoints[0], expected[:, :2])
    np.testing.assert_array_equal(second.visibility[0], expected[:, 2])
    assert third.keypoints.shape == (0, 17, 2)
    assert third.visibility.shape == (0, 17)
    assert third.bboxes.shape == (0, 4)
    for record in dataset.images:
        assert record.keypoints.dtype == np.float32
        assert record.bboxes.dtype == record.area.dtype == np.float64
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


def first_area(folder, document) -> float:
    return read_coco(write_coco(folder, document=document), "mini").images[1].area[0]


def test_areas_are_those_of_the_file_to_the_last_digit(tmp_path):
    """In float32 this medium person would be large: 96 x 96."""
    assert np.float32(9215.9999) == 96**2
    assert first_area(tmp_path, changed(area=9215.9999)) == 9215.9999


def test_without_area_it_is_that_of_the_box(tmp_path, caplog):
    assert first_area(tmp_path, changed(area=None)) == 70 * 48.5
    assert not caplog.messages


@pytest.mark.parametrize("area", [0, -5, math.nan, math.inf, 1e11, "null"])
def test_an_area_that_cannot_be_is_that_of_the_box(tmp_path, caplog, area):
    document = changed()
    for entry in document["annotations"][:2]:
        entry["area"] = None if area == "null" else area
    assert first_area(tmp_path, document) == 70 * 48.5
    [line] = caplog.messages
    assert line == (
        f"{tmp_path}/annotations/person_keypoints_mini.json: area is null, NaN, not positive or "
        "above 1e10 in 2 annotations (the first: 100): the area of the box is used"
    )


@pytest.mark.parametrize("count", [3, 0, -1, "17", "null"])
def test_labeled_joints_are_counted_here(tmp_path, caplog, count):
    document = coco_document()
    for entry in document["annotations"][1:]:
        entry["num_keypoints"] = None if count == "null" else count
    dataset = read_coco(write_coco(tmp_path, document=document), "mini")
    np.testing.assert_array_equal((dataset.images[1].visibility > 0).sum(-1), [17, 0, 0])
    [line] = caplog.messages
    assert line == (
        f"{tmp_path}/annotations/person_keypoints_mini.json: num_keypoints is not the number of "
        f"labeled joints in {1 if count == 0 else 3} annotations (the first: 101): the labeled "
        "joints are counted"
    )


def test_num_keypoints_is_not_needed(tmp_path, caplog):
    document = coco_document()
    for entry in document["annotations"]:
        del entry["num_keypoints"]
    read_coco(write_coco(tmp_path, document=document), "mini")
    assert not caplog.messages


@pytest.mark.parametrize(
    ("value", "crowd"), [(0, False), (False, False), (0.0, False), (1, True), (True, True)]
)
def test_kinds_of_iscrowd(tmp_path, value, crowd):
    document = changed(iscrowd=value)
    second = read_coco(write_coco(tmp_path, document=document), "mini").images[1]
    np.testing.assert_array_equal(second.iscrowd, [crowd, False, True])


@pytest.mark.parametrize("change", [lambda e: e.pop("iscrowd"), lambda e: e.update(iscrowd=None)])
def test_without_iscrowd_it_is_a_person(tmp_path, change):
    document = coco_document()
    change(document["annotations"][3])
    second = read_coco(write_coco(tmp_path, document=document), "mini").images[1]
    assert not second.iscrowd.any()


def test_ids_may_be_whole_floats_or_negative(tmp_path):
    document = coco_document()
    for entry in document["annotations"]:
        entry.update(id=-float(entry["id"]), image_id=float(entry["image_id"]))
    document["images"][0]["id"] = 7.0
    dataset = read_coco(write_coco(tmp_path, document=document), "mini")
    assert [type(record.image_id) for record in dataset.images] == [int] * 3
    np.testing.assert_array_equal(dataset.images[1].person_ids, [-100, -102, -103])


def test_nested_keypoints_are_read(tmp_path):
    document = coco_document()
    flat = document["annotations"][0]["keypoints"]
    document["annotations"][0]["keypoints"] = np.reshape(flat, (17, 3)).tolist()
    second = read_coco(write_coco(tmp_path, document=document), "mini").images[1]
    np.testing.assert_array_equal(second.keypoints[0], np.float32(flat).reshape(17, 3)[:, :2])
    columns = np.reshape(flat, (17, 3)).T.tolist()
    line = "FILE: annotation 100 has keypoints of shape (3, 17), not (17, 3) or (51,): fix the file"
    assert error_of(tmp_path, changed(keypoints=columns)) == line


def test_joints_that_are_not_labeled_may_be_anywhere(tmp_path):
    joints = np.reshape(coco_annotation(100, 8)["keypoints"], (17, 3))
    joints[4] = -1e9, 1e9, 0
    document = changed(keypoints=joints.ravel().tolist(), num_keypoints=16)
    second = read_coco(write_coco(tmp_path, document=document), "mini").images[1]
    assert second.visibility[0, 4] == 0
    np.testing.assert_array_equal(second.keypoints[0, 4], [0, 0])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (640, 480)),
        ((640.0, 480), (640, 480)),
        ((0, 480), None),
        ((640, -1), None),
        (("640", 480), None),
        ((None, 480), None),
        ((0.4, 480), None),
        ((math.nan, 480), None),
        ((1e30, 480), None),
    ],
)
def test_the_size_that_the_file_declares(tmp_path, size, expected):
    document = coco_document()
    document["images"][0].update(width=size[0], height=size[1])
    assert read_coco(write_coco(tmp_path, document=document), "mini").images[0].declared_size == (
        expected
    )


def test_paths_of_windows(tmp_path):
    document = coco_document()
    document["images"][0]["file_name"] = "sub\\7.png"
    write_json(tmp_path / "annotations" / "person_keypoints_mini.json", document)
    assert read_coco(tmp_path, "mini").images[0].path == tmp_path / "mini" / "sub" / "7.png"


def test_a_byte_order_mark(tmp_path):
    path = write_json(tmp_path / "annotations" / "person_keypoints_mini.json", coco_document())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_coco(tmp_path, "mini").num_people == 4


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


@pytest.mark.parametrize("content", [b"", b"{", "{}".encode("utf-16"), b"\xff\xd8\xff\xe0"])
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
        ({"keypoints": ["1"] * 51}, "has keypoints that are not all numbers"),
        ({"keypoints": [{}] * 51}, "has keypoints that are not all numbers"),
        ({"bbox": ["1", "2", "3", "4"]}, "has bbox that are not all numbers"),
        ({"bbox": [0, 0, 1e30, 1e30]}, "has bbox of more than 10,000,000 pixels"),
        ({"bbox": [0, 0, 9, -10000001]}, "has bbox of more than 10,000,000 pixels"),
        ({"bbox": [0, 0, 1e6, 2e4]}, "has bbox of 2e+10 square pixels"),
        ({"keypoints": [10000001, 1, 1] * 17}, "has keypoints of more than 10,000,000 pixels"),
        ({"image_id": [7]}, "has image_id = [7]"),
        ({"image_id": 7.5}, "has image_id = 7.5, not a whole number"),
        ({"area": "12.5"}, "has area = '12.5'"),
        ({"area": True}, "has area = True"),
        ({"iscrowd": "0"}, "has iscrowd = '0', not 0 or 1"),
        ({"iscrowd": 2}, "has iscrowd = 2, not 0 or 1"),
        ({"iscrowd": [0]}, "has iscrowd = [0], not 0 or 1"),
    ],
)
def test_values_of_the_wrong_kind(tmp_path, changes, expected):
    line = error_of(tmp_path, changed(**changes))
    assert line == f"FILE: annotation 100 {expected}: fix the file"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("100", "has id = '100': fix the file"),
        (True, "has id = True: fix the file"),
        (1.5, "has id = 1.5, not a whole number: fix the file"),
        (math.nan, "has id = nan, not a whole number: fix the file"),
        (2**63, f"has id = {2**63}, which needs more than 64 bits: give smaller ids"),
        (1e30, "has id = 1e+30, which needs more than 64 bits: give smaller ids"),
    ],
)
def test_ids_that_are_none(tmp_path, value, expected):
    assert error_of(tmp_path, changed(id=value)) == f"FILE: annotation number 0 {expected}"


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
    without_area = changed(bbox=[3, 4, 0, 0])
    without_area["annotations"] = without_area["annotations"][:1]
    what = "only people whose box has no area (1)"
    assert error_of(tmp_path, without_area) == line.replace("no people in 0", f"{what} in 3")


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
        np.testing.assert_array_equal(record.bboxes[:, :2], xywh[:, :2])
        np.testing.assert_allclose(record.bboxes[:, 2:] - xywh[:, :2], xywh[:, 2:], rtol=1e-12)
        np.testing.assert_array_equal(record.area, [a["area"] for a in expected])
        image = api.loadImgs(record.image_id)[0]
        assert record.declared_size == (image["width"], image["height"])


def test_real_files_leave_nothing_to_report(shared_data, caplog):
    read_coco(shared_data / "coco", "train2017")
    read_coco(shared_data / "coco", "val2017")
    assert not caplog.messages
