"""Poses of files of any program, and what is wrong with such files."""

import json

import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.pose_file import load_poses
from rmpe_jax.skeletons import COCO


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(COCO, [np.zeros((1, 17, 2)), np.zeros((2, 17, 2))], ["a.jpg", "0012.jpg"])


@pytest.fixture
def load(dataset, tmp_path):
    def load(*records):
        path = tmp_path / "poses.json"
        path.write_text(json.dumps(list(records)))
        return load_poses(path, dataset, COCO)

    return load


def record(**changes):
    joints = np.c_[np.arange(34.0).reshape(17, 2), np.full(17, 0.5)]
    return {"image_id": "a.jpg", "category_id": 1, "keypoints": joints.ravel().tolist()} | changes


def test_all_fields(load):
    nobody, people = load(
        record(image_id=12, bbox=[1, 2, 30, 40], score=0.7, annotation=1),
        record(image_id="folder/0012.png", score=3),
    )
    assert len(nobody.bboxes) == 0
    np.testing.assert_array_equal(people.keypoints[0], np.arange(34).reshape(17, 2))
    np.testing.assert_array_equal(people.keypoint_scores, np.full((2, 17), 0.5))
    np.testing.assert_array_equal(people.bboxes[0], [1, 2, 31, 42])
    np.testing.assert_allclose(people.scores, [0.7, 3])
    assert people.person_ids.tolist() == [1, -1]


def test_what_is_optional(load):
    """The box is around the joints that are not guessed, 10 % larger; scores end at 1."""
    joints = np.c_[np.zeros((17, 2)), np.full(17, 0.29)]
    joints[3:5] = [[10, 20, 0.3], [30, 60, 2.0]]
    people, _ = load({"image_id": "a", "keypoints": joints.tolist()})
    np.testing.assert_allclose(people.bboxes, [[8, 16, 32, 64]])
    np.testing.assert_allclose(people.keypoint_scores[0, 3:5], [0.3, 1])
    np.testing.assert_allclose(people.scores, (15 * 0.29 + 1.3) / 17, rtol=1e-6)


def test_what_is_skipped_is_counted(load, caplog):
    people, _ = load(
        record(),
        record(category_id=18),
        record(image_id="b.jpg"),
        record(image_id=99),
        record(bbox=[1, 2, 0, 4]),
    )
    assert len(people.bboxes) == 1
    counts = [message.partition(": ")[2] for message in caplog.messages]
    assert counts == [
        "1 of 5 poses are skipped: of other categories than person",
        "2 of 5 poses are skipped: on other images",
        "1 of 5 poses are skipped: without area",
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keypoints": [1.0] * 48}, "entry 0 has 48 numbers in keypoints, not 51"),
        ({"keypoints": [float("nan")] * 51}, "entry 0 has keypoints with NaN"),
        ({"image_id": None}, "entry 0 has image_id = None"),
        ({"annotation": "x"}, "entry 0 has annotation = 'x'"),
        ({"bbox": [1, 2]}, "entry 0 has 2 numbers in bbox, not 4"),
    ],
)
def test_files_that_cannot_be_read(load, changes, says):
    with pytest.raises(UserError, match=f"^poses file .*: {says}"):
        load(record(**changes))


def test_a_file_of_annotations(dataset, tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text('{"annotations": []}')
    with pytest.raises(UserError, match="is not a list of poses: give COCO's result format"):
        load_poses(path, dataset, COCO)
