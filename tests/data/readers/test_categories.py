"""Which category is the person, what is said of the others, and the order of joints."""

import numpy as np
import pytest
from tiny_sets import coco_document, write_coco, write_crowdpose, write_json

from rmpe_jax.data.readers.coco import read_coco
from rmpe_jax.data.readers.crowdpose import read_crowdpose
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, COCO_WHOLEBODY, CROWDPOSE, HALPE136


def read(folder, document):
    return read_coco(write_coco(folder, document=document), "mini")


def error_of(folder, document) -> str:
    path = write_json(folder / "annotations" / "person_keypoints_mini.json", document)
    with pytest.raises(UserError) as error:
        read_coco(folder, "mini")
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "FILE")


def lines(caplog, folder) -> list[str]:
    path = str(folder / "annotations" / "person_keypoints_mini.json")
    return [message.replace(path, "FILE") for message in caplog.messages]


def document_of(category_ids, categories=None) -> dict:
    document = coco_document()
    for entry, category_id in zip(document["annotations"], category_ids, strict=True):
        entry["category_id"] = category_id
    return document | {"categories": categories or document["categories"]}


def test_others_than_people_are_left_out_and_counted(tmp_path, caplog):
    dog = {"id": 18, "name": "dog"}
    document = document_of([1, 1, 18, 3], [{"id": 1, "name": "person"}, dog])
    document["annotations"].append({"id": 1, "image_id": 7, "category_id": 18, "bbox": []})
    assert read(tmp_path, document).num_people == 2
    assert lines(caplog, tmp_path) == [
        "FILE: annotations of other categories than person are left out: 3 "
        "(2 of category 18 (dog), 1 of category 3)"
    ]


@pytest.mark.parametrize("category_id", [1, 1.0, None])
def test_people(tmp_path, caplog, category_id):
    assert read(tmp_path, document_of([category_id] * 4)).num_people == 4
    document = coco_document()
    for entry in document["annotations"]:
        del entry["category_id"]
    assert read(tmp_path, document | {"categories": None}).num_people == 4
    assert not caplog.messages


@pytest.mark.parametrize("number", [0, 2])
def test_the_category_that_is_named_person(tmp_path, caplog, number):
    categories = [{"id": 1, "name": "face"}, {"id": number, "name": "Person"}]
    assert read(tmp_path, document_of([number, number, number, 1], categories)).num_people == 3
    assert lines(caplog, tmp_path) == [
        f"FILE: category {number} is named person: its annotations are the people",
        "FILE: annotations of other categories than person are left out: 1 "
        "(1 of category 1 (face))",
    ]


def test_nobody_is_of_the_right_category(tmp_path):
    line = "FILE has no people, who are of category 1, but 4 of category 0{}: change their "
    line += "category_id, or name their category person in 'categories'"
    assert error_of(tmp_path, document_of([0] * 4)) == line.format("")
    named = document_of([0] * 4, [{"id": 0, "name": "pedestrian"}])
    assert error_of(tmp_path, named) == line.format(" (pedestrian)")


@pytest.mark.parametrize("value", ["1", True, 1.5, [1]])
def test_category_ids_that_are_none(tmp_path, value):
    line = error_of(tmp_path, document_of([value, 1, 1, 1]))
    assert line.startswith(f"FILE: annotation number 0 has category_id = {value!r}")


@pytest.mark.parametrize("categories", [{}, [1], [{"name": "person"}], [{"id": "1"}]])
def test_categories_that_are_none(tmp_path, categories):
    line = error_of(tmp_path, coco_document() | {"categories": categories})
    assert line.startswith("FILE")
    assert "categor" in line


def named(document, names) -> dict:
    return document | {"categories": [{"id": 1, "name": "person", "keypoints": names}]}


@pytest.mark.parametrize(
    "spell",
    [str, str.upper, lambda n: n.replace("_", " ").title(), lambda n: n.replace("_", "-")],
)
def test_joints_by_name(tmp_path, caplog, spell):
    """In another order the joints are still the same; the spelling does not matter."""
    document = coco_document()
    expected = read(tmp_path / "plain", document).images[1]
    order = np.random.default_rng(0).permutation(17)
    for entry in document["annotations"]:
        joints = np.reshape(entry["keypoints"], (17, 3))[order]
        entry["keypoints"] = joints.ravel().tolist()
    names = [spell(COCO.joints[i]) for i in order]
    found = read(tmp_path, named(document, names)).images[1]
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    np.testing.assert_array_equal(found.visibility, expected.visibility)
    [line] = lines(caplog, tmp_path)
    assert line == (
        f"FILE: joints are in another order ({', '.join(names[:5])}, ...): they are reordered by "
        "their names"
    )


@pytest.mark.parametrize("names", [list(COCO.joints), [], None])
def test_names_in_order_and_no_names_say_nothing(tmp_path, caplog, names):
    read(tmp_path, named(coco_document(), names))
    assert not caplog.messages


def test_numbers_are_no_names(tmp_path, caplog):
    expected = read(tmp_path / "plain", coco_document()).images[1]
    document = named(coco_document(), [f"kp {i}" for i in range(17)])
    np.testing.assert_array_equal(read(tmp_path, document).images[1].keypoints, expected.keypoints)
    assert lines(caplog, tmp_path) == [
        "FILE: joints have no names but numbers (kp 0, kp 1, kp 2, kp 3, kp 4, ...): they are read "
        "in the order nose, left_eye, right_eye, left_ear, right_ear, ..."
    ]


@pytest.mark.parametrize(
    "names",
    [
        [str(i) for i in range(21)],
        [*COCO.joints[:-1], "tail"],
        [*COCO.joints[:-1], "nose"],
        list(COCO.joints[:16]),
        "nose",
    ],
)
def test_joints_of_something_else(tmp_path, names):
    line = error_of(tmp_path, named(coco_document(), names))
    count = 1 if isinstance(names, str) else len(names)
    assert line.startswith(f"FILE: category 1 names {count} joints (")
    assert f"not the 17 of coco ({', '.join(COCO.joints)}): rename them" in line


def test_crowdposes_own_names(tmp_path, caplog):
    folder = write_crowdpose(tmp_path)
    document = coco_document(CROWDPOSE)
    names = [*CROWDPOSE.joints[:12], "head", "neck"]
    write_json(folder / "json" / "crowdpose_mini.json", named(document, names))
    joints = np.float32(document["annotations"][0]["keypoints"]).reshape(14, 3)
    found = read_crowdpose(folder, "mini").images[1]
    np.testing.assert_array_equal(found.keypoints[0], joints[:, :2])
    assert not caplog.messages


@pytest.mark.parametrize("names", [COCO.joints, COCO_WHOLEBODY.joints, ["Nose", "Head"]])
def test_names_of_whole_bodies_are_not_read(tmp_path, names):
    document = named(coco_document(HALPE136), list(names))
    write_json(tmp_path / "annotations" / "halpe_val_v1.json", document)
    assert open_dataset(f"halpe136:{tmp_path}:val").num_people == 4
