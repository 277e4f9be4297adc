"""Readers of whole-body annotations: joints in several fields, or more joints than requested."""

import json

import numpy as np
import pytest
from tiny_sets import coco_annotation, coco_document, raster, write_images, write_json

from rmpe_jax.data.images import read_image
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.sources import open_source
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, COCO_WHOLEBODY, HALPE26, HALPE136

FIELDS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")


def in_fields(annotation):
    """An annotation of 133 joints in COCO-WholeBody's fields; `num_keypoints` counts the body."""
    joints = np.reshape(annotation["keypoints"], (133, 3))
    parts = COCO_WHOLEBODY.parts.values()
    named = {name: joints[part].ravel().tolist() for name, part in zip(FIELDS, parts, strict=True)}
    return annotation | named | {"num_keypoints": int((joints[:17, 2] > 0).sum())}


def write_wholebody(root, change=lambda annotations: None):
    document = coco_document(COCO_WHOLEBODY)
    document["annotations"] = [in_fields(a) for a in document["annotations"]]
    change(document["annotations"])
    path = root / "annotations" / "coco_wholebody_val_v1.0.json"
    write_json(path, document)
    write_images(root / "val2017", ["7.png", "8.png", "9.png"])
    return path


def test_parts_of_coco_wholebody_are_joined(tmp_path):
    path = write_wholebody(tmp_path)
    for split in ("val", "val2017"):
        dataset = open_dataset(f"coco_wholebody:{tmp_path}:{split}")
        assert dataset.name == "coco_wholebody/val"
    assert dataset.skeleton is COCO_WHOLEBODY
    assert dataset.annotations == path
    expected = np.float32(coco_document(COCO_WHOLEBODY)["annotations"][0]["keypoints"])
    expected = expected.reshape(133, 3)
    np.testing.assert_array_equal(dataset.images[1].keypoints[0], expected[:, :2])
    np.testing.assert_array_equal(dataset.images[1].visibility[0], expected[:, 2])
    assert dataset.images[1].iscrowd.tolist() == [False, False, True]
    np.testing.assert_array_equal(read_image(dataset.images[1].path), raster(1))


def test_labels_that_are_fractions(tmp_path):
    def change(annotations):
        annotations[0]["lefthand_kpts"][2::3] = [0.3, 0.0, 1.2, 1.8, 5.0, -1.0, *[0.0] * 15]

    write_wholebody(tmp_path, change)
    person = open_dataset(f"coco_wholebody:{tmp_path}:val").images[1]
    hand = COCO_WHOLEBODY.parts["left_hand"]
    assert person.visibility[0, hand].tolist() == [1, 0, 1, 2, 2, 0, *[0] * 15]
    assert (person.keypoints[0, hand][[1, 5]] == 0).all()


def test_a_missing_part_is_one_line(tmp_path):
    write_wholebody(tmp_path, lambda annotations: annotations[2].pop("face_kpts"))
    with pytest.raises(UserError, match=r"val_v1\.0\.json: annotation 102 has no 'face_kpts'"):
        open_dataset(f"coco_wholebody:{tmp_path}:val")


@pytest.mark.parametrize("split", ["train", "val", "mini"])
@pytest.mark.parametrize("skeleton", [HALPE136, HALPE26], ids=lambda s: s.name)
def test_halpe_is_read_whole_or_without_faces_and_hands(tmp_path, split, skeleton):
    write_json(tmp_path / "annotations" / f"halpe_{split}_v1.json", coco_document(HALPE136))
    dataset = open_dataset(f"{skeleton.name}:{tmp_path}:{split}")
    assert dataset.name == f"{skeleton.name}/{split}"
    expected = np.float32(coco_document(HALPE136)["annotations"][0]["keypoints"])
    expected = expected.reshape(136, 3)[: skeleton.num_keypoints]
    np.testing.assert_array_equal(dataset.images[1].keypoints[0], expected[:, :2])
    np.testing.assert_array_equal(dataset.images[1].visibility[0], expected[:, 2])
    folder = {"train": "images/train2015", "val": "val2017", "mini": "mini"}[split]
    assert dataset.images[0].path.as_posix().endswith(f"{folder}/7.png")


def test_halpe_of_another_number_of_joints(tmp_path):
    write_json(tmp_path / "annotations" / "halpe_val_v1.json", coco_document(COCO))
    with pytest.raises(UserError, match="annotation 100 has 51 numbers in keypoints, not 408"):
        open_dataset(f"halpe136:{tmp_path}:val")
    only = coco_document(HALPE26)
    write_json(tmp_path / "annotations" / "halpe_val_v1.json", only)
    assert open_dataset(f"halpe26:{tmp_path}:val").images[1].visibility[0].all()


def test_other_categories_are_left_out(tmp_path):
    path = write_wholebody(tmp_path)
    document = json.loads(path.read_text())
    document["annotations"].append({"id": 5, "image_id": 7, "category_id": 18})
    write_json(path, document)
    assert open_dataset(f"coco_wholebody:{tmp_path}:val").num_people == 4


def test_networks_of_different_joints_train_on_them(tmp_path):
    """Joints are matched by name: COCO-WholeBody has Halpe's 26 except head, neck and pelvis."""
    write_wholebody(tmp_path)
    people = open_source((f"coco_wholebody:{tmp_path}:val",), HALPE26)
    assert len(people) == 2
    person = people[0]
    missing = [HALPE26.joints.index(joint) for joint in ("head_top", "upper_neck", "pelvis")]
    assert np.flatnonzero(~person["annotated"]).tolist() == missing
    given = np.reshape(coco_annotation(101, 7, COCO_WHOLEBODY)["keypoints"], (133, 3))
    big_toes = [HALPE26.joints.index(f"{side}_big_toe") for side in ("left", "right")]
    np.testing.assert_allclose(person["keypoints"][big_toes], given[[17, 20], :2])
