"""Labels for detector training: who counts, with what weight, and which regions are ignored."""

import pathlib
import pickle

import numpy as np
import pytest

from rmpe_jax.data.boxed_images import (
    DOUBTFUL_SCORE,
    FULL_WEIGHT_SCORE,
    MISSED_WEIGHT,
    PERSON_SCORE,
    BoxLabels,
    annotated_labels,
    label_images,
    soft_labels,
)
from rmpe_jax.data.readers.records import ImageRecord
from rmpe_jax.errors import UserError


def record(*bboxes, crowds=()) -> ImageRecord:
    everybody = np.array([*bboxes, *crowds], np.float32).reshape(-1, 4)
    n = len(everybody)
    return ImageRecord(
        image_id=1,
        path=pathlib.Path("a.jpg"),
        keypoints=np.zeros((n, 1, 2), np.float32),
        visibility=np.zeros((n, 1), np.uint8),  # without keypoints they count all the same
        bboxes=everybody,
        area=np.ones(n, np.float32),
        iscrowd=np.arange(n) >= len(bboxes),
        head_sizes=np.full(n, np.nan, np.float32),
        person_ids=np.arange(n),
    )


def detections(*rows):
    rows = np.array(rows, np.float32).reshape(-1, 5)
    return rows[:, :4], rows[:, 4]


A, B, CROWD = (0, 0, 10, 20), (40, 0, 50, 20), (60, 0, 90, 30)


def test_annotated_people_count_and_crowds_are_ignored():
    labels = annotated_labels(record(A, B, crowds=[CROWD]))
    np.testing.assert_array_equal(labels.bboxes, [A, B])
    np.testing.assert_array_equal(labels.weights, [1, 1])
    np.testing.assert_array_equal(labels.ignored, [CROWD])


def test_nobody_and_no_detection():
    for labels in (annotated_labels(record()), soft_labels(record(), *detections())):
        assert labels.bboxes.shape == labels.ignored.shape == (0, 4)
        assert labels.weights.shape == (0,)


def test_a_detection_replaces_the_annotated_box_that_it_overlaps():
    near_a = (1, 0, 11, 20)
    labels = soft_labels(record(A), *detections((*near_a, 0.1)))
    np.testing.assert_array_equal(labels.bboxes, [near_a])
    np.testing.assert_array_equal(labels.weights, [1])
    assert len(labels.ignored) == 0


def test_annotated_people_without_a_detection_keep_their_box_at_less_weight():
    labels = soft_labels(record(A, B), *detections((*A, 0.9)))
    np.testing.assert_array_equal(labels.bboxes, [A, B])
    np.testing.assert_allclose(labels.weights, [1, MISSED_WEIGHT])


def test_bystanders_weigh_by_score_and_doubtful_ones_are_ignored_in_their_middle():
    boxes = [(100 * i, 0, 100 * i + 20, 40) for i in range(5)]
    scores = (
        FULL_WEIGHT_SCORE + 0.2,
        PERSON_SCORE,
        PERSON_SCORE - 0.01,
        DOUBTFUL_SCORE,
        DOUBTFUL_SCORE - 0.01,
    )
    rows = [(*box, score) for box, score in zip(boxes, scores, strict=True)]
    labels = soft_labels(record(crowds=[CROWD]), *detections(*rows))
    np.testing.assert_array_equal(labels.bboxes, boxes[:2])
    np.testing.assert_allclose(labels.weights, [1, PERSON_SCORE / FULL_WEIGHT_SCORE], rtol=1e-5)
    np.testing.assert_array_equal(labels.ignored, [CROWD, (205, 10, 215, 30), (305, 10, 315, 30)])


def some_labels(count=1) -> BoxLabels:
    people = np.tile(np.float32(A), (count, 1))
    return BoxLabels(people, np.ones(count, np.float32), np.zeros((0, 4), np.float32))


def test_datasets_count_as_often_as_they_repeat(tmp_path):
    paths = [tmp_path / f"{name}.jpg" for name in "abc"]
    for path in paths:
        path.write_bytes(path.stem.encode())
    first = [(path, some_labels()) for path in paths[:2]]
    source = label_images([first, [(paths[2], some_labels(3))]], (2, 3))
    assert len(source) == 2 * 2 + 3
    source = pickle.loads(pickle.dumps(source))
    assert [source[i]["encoded"] for i in range(7)] == [b"a", b"b", b"a", b"b", b"c", b"c", b"c"]
    assert len(source[6]["labels"].bboxes) == 3
    assert source[0]["name"].endswith("a.jpg")


@pytest.mark.parametrize("repeats", [(), (1,), (1, 0)])
def test_repeats_that_do_not_fit(repeats):
    data = [[("a.jpg", some_labels())], [("b.jpg", some_labels())]]
    with pytest.raises(UserError, match=r"repeats .* do not fit 2 datasets: give"):
        label_images(data, repeats)


def test_nobody_anywhere():
    with pytest.raises(UserError, match="no people to train on"):
        label_images([[("a.jpg", some_labels(0))]], (1,))
