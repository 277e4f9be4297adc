import math

import numpy as np
import pytest
from tiny_sets import mpii_entry, write_json, write_mpii

from rmpe_jax.data.images import read_image
from rmpe_jax.data.readers.mpii import read_mpii
from rmpe_jax.data.readers.records import trainable
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import MPII


def error_of(folder, content) -> str:
    path = write_json(folder / "annotations" / "mini.json", content)
    with pytest.raises(UserError) as error:
        read_mpii(folder, "mini")
    return str(error.value).replace(str(path), "FILE")


def test_people_of_one_image_come_together(tmp_path):
    dataset = read_mpii(write_mpii(tmp_path), "mini")
    assert dataset.name == "mpii/mini"
    assert dataset.skeleton is MPII
    assert [record.image_id for record in dataset.images] == ["a.jpg", "b.jpg"]
    first = dataset.images[0]
    assert read_image(first.path).shape == (60, 80, 3)
    np.testing.assert_array_equal(first.person_ids, [0, 2])
    np.testing.assert_array_equal(first.keypoints[1], np.float32(mpii_entry(2, "")["joints"]))
    np.testing.assert_array_equal(first.bboxes[0], np.float32([3.5, 4.5, 60, 50]))
    np.testing.assert_allclose(first.area, 56.5 * 45.5)
    np.testing.assert_array_equal(first.head_sizes, [9.5, 9.5])
    np.testing.assert_array_equal(first.visibility, np.full((2, 16), 2))
    assert not first.iscrowd.any()


def test_what_is_not_annotated_is_0(tmp_path):
    entry = mpii_entry(0, "a.jpg", joints_vis=[0] * 5 + [1] * 11)
    dataset = read_mpii(write_mpii(tmp_path, entries=[entry]), "mini")
    np.testing.assert_array_equal(dataset.images[0].visibility, [[0] * 5 + [2] * 11])


def test_without_a_box_it_is_the_extent_of_the_annotated_joints_grown(tmp_path):
    joints = [[-1.0, -1.0]] * 13 + [[10.0, 20.0], [30.0, 40.0], [20.0, 60.0]]
    entry = mpii_entry(0, "a.jpg", joints=joints, joints_vis=[0] * 13 + [1] * 3)
    del entry["bbox"], entry["head_size"]
    record = read_mpii(write_mpii(tmp_path, entries=[entry]), "mini").images[0]
    np.testing.assert_allclose(record.bboxes, [[10 - 2, 20 - 4, 30 + 2, 60 + 4]])
    assert math.isnan(record.head_sizes[0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"joints": [[1.0, 2.0]] * 17}, "has 34 numbers in joints, not 32"),
        ({"joints_vis": [1] * 14}, "has 14 numbers in joints_vis, not 16"),
        ({"joints": [[math.nan, 2.0]] * 16}, "has joints with NaN or infinity"),
        ({"bbox": [1.0, 2.0, math.inf, 4.0]}, "has bbox with NaN or infinity"),
        ({"head_size": math.nan}, "has head_size = nan"),
        ({"image": 3}, "has image = 3"),
    ],
)
def test_bad_entries_are_named(tmp_path, changes, expected):
    entries = [mpii_entry(0, "a.jpg"), mpii_entry(1, "b.jpg") | changes]
    assert error_of(tmp_path, entries) == f"FILE: person 1 {expected}: fix the file"


@pytest.mark.parametrize("key", ["image", "joints", "joints_vis"])
def test_an_entry_without_a_needed_key(tmp_path, key):
    entry = mpii_entry(0, "a.jpg")
    del entry[key]
    line = f"FILE: person 0 has no {key!r}: add it or use another file"
    assert error_of(tmp_path, [entry]) == line


def test_a_document_of_another_form(tmp_path):
    line = "FILE is not a list of people: use the usual JSON format of MPII"
    assert error_of(tmp_path, {"images": []}) == line
    assert error_of(tmp_path, [7]) == "FILE: person 0 is a int, not an object: fix the file"


def test_an_empty_dataset(tmp_path):
    line = "FILE has no people in 0 images: the dataset is empty, use another file"
    assert error_of(tmp_path, []) == line


@pytest.mark.parametrize(
    ("split", "images", "people", "unknown_heads"),
    [("train", 1242, 1794, 4), ("valid", 231, 507, 3)],
)
def test_real_counts(shared_data, split, images, people, unknown_heads):
    dataset = read_mpii(shared_data / "mpii", split)
    assert len(dataset.images) == images
    assert dataset.num_people == people
    assert sum(trainable(record).sum() for record in dataset.images) == people
    heads = np.concatenate([record.head_sizes for record in dataset.images])
    assert np.isnan(heads).sum() == unknown_heads
    # The boxes of this release contain the joints.
    record = dataset.images[0]
    points = record.keypoints[0][record.visibility[0] > 0]
    assert (record.bboxes[0, :2] < points.min(0)).all()
    assert (record.bboxes[0, 2:] > points.max(0)).all()
