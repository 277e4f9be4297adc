"""Result files round-trip, detections files of both formats are read, invalid ones are refused."""

import json

import numpy as np
import pytest

from rmpe_jax.data.readers.mpii import read_mpii
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_detections
from rmpe_jax.evaluation.results import coco_results, person_records
from rmpe_jax.files import write_json
from rmpe_jax.skeletons import COCO, MPII


def box(image_id, x=1.0, score=0.5, **more):
    return {"image_id": image_id, "category_id": 1, "bbox": [x, 2, 30, 40], "score": score, **more}


@pytest.fixture
def dataset(make_dataset):
    """Three images with COCO's ids and file names."""
    people = [np.zeros((1, 17, 2))] * 3
    data = make_dataset(COCO, people, image_ids=[7, 8, 9])
    for record, number in zip(data.images, (7, 8, 9), strict=True):
        object.__setattr__(record, "path", record.path.with_name(f"{number:012d}.jpg"))
    return data


def test_coco_format(dataset, write):
    path = write([box(9, x=5, score=0.25), box(7), box(9, x=6)])
    found = load_detections(path, dataset)
    np.testing.assert_array_equal(found.image_index, [0, 2, 2])
    np.testing.assert_array_equal(found.bboxes, [[1, 2, 31, 42], [5, 2, 35, 42], [6, 2, 36, 42]])
    np.testing.assert_array_equal(found.scores, np.float32([0.5, 0.25, 0.5]))
    assert found.bboxes.dtype == found.scores.dtype == np.float32
    assert found.num_skipped == 0


@pytest.mark.parametrize(
    "image_id",
    ["000000000008.jpg", "/data/val2017/000000000008.png", "C:\\val\\000000000008.jpg", 8],
)
def test_alphapose_format(dataset, write, image_id):
    found = load_detections(write([box(image_id, idx=3)]), dataset)
    np.testing.assert_array_equal(found.image_index, [1])


def test_other_categories_are_counted_and_none_means_person(dataset, write, caplog):
    records = [box(7), *(box(7, category_id=i) for i in (18, 3, 18)), box(8), box(9)]
    del records[4]["category_id"]
    records[5]["category_id"] = None
    path = write(records)
    assert load_detections(path, dataset).image_index.tolist() == [0, 1, 2]
    assert caplog.messages == [
        f"detections file {path}: boxes of other categories than person are skipped: "
        "2 of category 18, 1 of category 3"
    ]


def test_classes_counted_from_0(dataset, write, caplog):
    path = write([box(8, category_id=0), box(7, x=5, category_id=0.0), box(7, category_id=2)])
    assert load_detections(path, dataset).bboxes.tolist() == [[5, 2, 35, 42], [1, 2, 31, 42]]
    assert caplog.messages == [
        f"detections file {path}: category 0 is taken as person, because nothing has category 1",
        f"detections file {path}: boxes of other categories than person are skipped: "
        "1 of category 2",
    ]
    assert {record["category_id"] for record in person_records(path)} == {1}


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([0, 1, 1], "has category 0 and category 1: person is 1 in COCO, but 0 for"),
        ([18, 18], "has nothing of category 1, which is person, only 2 of category 18: give"),
        ([3, 18, 18], "only 2 of category 18, 1 of category 3: give people the category_id 1, or"),
        (["1"], "entry 0 has category_id = '1': fix the file"),
        ([1, 1.5], "entry 1 has category_id = 1.5, not a whole number"),
    ],
)
def test_files_without_a_clear_category_of_people(dataset, write, categories, message):
    path = write([box(7, category_id=category) for category in categories])
    with pytest.raises(UserError, match=message) as error:
        load_detections(path, dataset)
    assert "\n" not in str(error.value)


def test_ids_may_be_written_as_floats(dataset, write):
    found = load_detections(write([box(9.0), box(7)]), dataset)
    assert found.image_index.tolist() == [0, 2]


def test_invalid_boxes_are_skipped_and_counted(dataset, write, caplog):
    flat = [[1, 2, 0, 5], [1, 2, 5, -1], [float("nan"), 2, 3, 4], [1, 2, float("inf"), 4]]
    records = [{**box(7), "bbox": b} for b in flat]
    records += [box(8, score=float("nan")), box(9)]
    found = load_detections(write(records), dataset)
    assert found.image_index.tolist() == [2]
    assert found.num_skipped == 5
    assert "5 boxes" in caplog.text


def test_empty_file(dataset, write):
    found = load_detections(write([]), dataset)
    assert found.bboxes.shape == (0, 4)
    assert found.image_index.shape == found.scores.shape == (0,)


def test_unknown_images(dataset, write, caplog):
    path = write([box(7), *(box(i) for i in ("7000", 101, 102, 103, 103))])
    with pytest.raises(UserError) as error:
        load_detections(path, dataset)
    line = str(error.value)
    assert "\n" not in line
    assert "4 of its images are not in test/set ('7000', 101, 102, ...): give" in line
    assert load_detections(path, dataset, skip_unknown=True).image_index.tolist() == [0]
    assert caplog.messages == [f"{path}: skipped 5 boxes on images that are not in test/set"]


def test_a_stem_in_two_folders_is_ambiguous(make_dataset, write):
    data = make_dataset(COCO, [np.zeros((1, 17, 2))] * 3, ["a/1.jpg", "b/1.jpg", "b/2.jpg"])
    assert load_detections(write([box("b/1.jpg"), box("2")]), data).image_index.tolist() == [1, 2]
    for skip_unknown in (False, True):
        with pytest.raises(UserError, match=r"1\.jpg may be .*a/1\.jpg or .*b/1\.jpg: give the"):
            load_detections(write([box("1.jpg")]), data, skip_unknown)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "is not JSON"),
        ({"annotations": []}, "is not a list of boxes"),
        ([3], "entry 0 needs image_id, bbox and score"),
        ([{"image_id": 7, "score": 1}], "entry 0 needs image_id, bbox and score"),
        ([box(None)], "entry 0 has image_id = None"),
        ([box(7.5)], "entry 0 has image_id = 7.5, not a whole number"),
        ([box(7), {**box(7), "bbox": [1, 2, 3]}], r"entry 1 has bbox = \[1, 2, 3\], not \[x, y, w"),
        ([{**box(7), "bbox": None}], "entry 0 has bbox = None"),
        ([{**box(7), "bbox": ["1", 2, 3, 4]}], r"entry 0 has bbox = \['1', 2, 3, 4\], not"),
        ([{**box(7), "bbox": [1, 2, 3, True]}], r"entry 0 has bbox = \[1, 2, 3, True\], not"),
        ([box(7), box(8), box(7, score="0.5")], "entry 2 has score = '0.5': fix the file"),
        ([box(7), box(7, score=None)], "entry 1 has score = None"),
    ],
)
def test_bad_files(dataset, write, content, message):
    with pytest.raises(UserError, match=message) as error:
        load_detections(write(content), dataset)
    assert str(error.value).startswith("detections file ")
    assert "\n" not in str(error.value)


def test_missing_file(dataset, tmp_path):
    with pytest.raises(UserError, match=r"no detections file .*none\.json: check the path"):
        load_detections(tmp_path / "none.json", dataset)


@pytest.mark.parametrize(("detector", "count"), [("fastestdet", 3795), ("centernet", 2038)])
def test_real_coco_detections(shared_data, coco_val, detector, count):
    path = shared_data / f"coco/detections/person_detections_val2017_{detector}.json"
    found = load_detections(path, coco_val)
    assert (len(found.bboxes), found.num_skipped) == (count, 0)
    assert (np.diff(found.image_index) >= 0).all()
    first = json.loads(path.read_text())[0]
    assert coco_val.images[found.image_index[0]].image_id == first["image_id"]


@pytest.mark.parametrize(("detector", "count"), [("fastestdet", 8121), ("centernet", 4051)])
def test_real_mpii_detections_of_all_splits(shared_data, detector, count):
    dataset = read_mpii(shared_data / "mpii", "valid")
    path = shared_data / f"mpii/detections/person_detections_{detector}.json"
    assert dataset.skeleton is MPII
    assert len(load_detections(path, dataset, skip_unknown=True).bboxes) == count
    with pytest.raises(UserError, match="1241 of its images are not in mpii/valid"):
        load_detections(path, dataset)


def test_results_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, 500, (2, 17, 2)).astype(np.float32)
    scores = rng.uniform(size=(2, 17)).astype(np.float32)
    bboxes = np.float32([[10, 20, 40, 60], [0, 0, 5, 5]])
    pose_scores, box_scores = np.float32([0.9, 0.1]), np.float32([0.7, 0.3])
    results = coco_results([5, "a.jpg"], keypoints, scores, pose_scores, bboxes, box_scores)
    write_json(tmp_path / "new" / "results.json", results)
    loaded = json.loads((tmp_path / "new" / "results.json").read_text())
    assert loaded == results
    assert [r["image_id"] for r in loaded] == [5, "a.jpg"]
    assert loaded[0]["bbox"] == [10, 20, 30, 40]
    assert (loaded[0]["score"], loaded[0]["bbox_score"]) == (0.9, 0.7)
    assert (
        "bbox_score"
        not in coco_results([5], keypoints[:1], scores[:1], pose_scores[:1], bboxes[:1])[0]
    )
    poses = np.array([r["keypoints"] for r in loaded]).reshape(2, 17, 3)
    np.testing.assert_allclose(poses[..., :2], keypoints, atol=5.1e-4)
    np.testing.assert_allclose(poses[..., 2], scores, atol=6e-7)
