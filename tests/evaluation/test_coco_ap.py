"""`coco_ap` and `box_ap` against pycocotools used directly, and all errors."""

import copy
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rmpe_jax.errors import UserError
from rmpe_jax.evaluation import box_ap, coco_ap
from rmpe_jax.evaluation.coco import METRICS


def pycocotools_stats(ground_truth, results, kind="keypoints", sigmas=None):
    coco = COCO()
    coco.dataset = copy.deepcopy(ground_truth)
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), kind)
    if sigmas is not None:
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(random_set, seed):
    ground_truth, results = random_set(seed)
    expected = pycocotools_stats(ground_truth, results)
    assert 0.02 < expected[0] < 0.98
    assert coco_ap(ground_truth, results) == dict(zip(METRICS, expected, strict=True))


@pytest.mark.parametrize("seed", range(2))
def test_other_joint_sets_by_their_sigmas(random_set, seed):
    ground_truth, results = random_set(seed, k=14)
    sigmas = np.linspace(0.03, 0.1, 14)
    expected = pycocotools_stats(ground_truth, results, sigmas=sigmas)
    assert list(coco_ap(ground_truth, results, sigmas).values()) == expected


def test_boxes_equal_pycocotools(random_set):
    ground_truth, results = random_set(3)
    expected = pycocotools_stats(ground_truth, results, "bbox")
    other = {"image_id": 1, "category_id": 18, "bbox": [0, 0, 50, 50], "score": 1.0}
    assert box_ap(ground_truth, [*results, other]) == {"AP": expected[0], "AP50": expected[1]}


def test_only_some_images(random_set):
    ground_truth, results = random_set(1)
    chosen = [1, 2, 3, 4, 5]
    part = {
        **ground_truth,
        "images": [i for i in ground_truth["images"] if i["id"] in chosen],
        "annotations": [a for a in ground_truth["annotations"] if a["image_id"] in chosen],
    }
    results = [r for r in results if r["image_id"] in chosen]
    expected = coco_ap(part, results)
    assert coco_ap(ground_truth, results, image_ids=chosen) == expected
    assert coco_ap(ground_truth, results) != expected


def test_silent_and_changes_nothing(random_set, capfd):
    ground_truth, results = random_set(0)
    before = copy.deepcopy((ground_truth, results))
    coco_ap(ground_truth, results)
    box_ap(ground_truth, results)
    assert (ground_truth, results) == before
    assert capfd.readouterr() == ("", "")


def test_file_or_its_content(random_set, write):
    ground_truth, results = random_set(2)
    path = write(ground_truth)
    assert coco_ap(path, results) == coco_ap(str(path), results) == coco_ap(ground_truth, results)


def test_no_results_are_zeros(random_set):
    ground_truth, _ = random_set(0)
    assert coco_ap(ground_truth, []) == dict.fromkeys(METRICS, 0.0)
    assert box_ap(ground_truth, []) == {"AP": 0.0, "AP50": 0.0}


def test_keys_that_the_reader_does_not_require(random_set):
    ground_truth, results = random_set(0)
    bare = copy.deepcopy(ground_truth)
    for annotation in ground_truth["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    for annotation in bare["annotations"]:
        del annotation["area"], annotation["num_keypoints"], annotation["category_id"]
        if not annotation["iscrowd"]:
            del annotation["iscrowd"]
    del bare["categories"]
    bare["annotations"].append({"id": 999, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9]})
    assert coco_ap(bare, results) == coco_ap(ground_truth, results)


def test_real_annotations_with_perfect_and_noisy_poses(shared_data):
    path = shared_data / "coco/annotations/person_keypoints_val2017.json"
    ground_truth = json.loads(path.read_text())
    people = [a for a in ground_truth["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
    perfect = [{**a, "score": 1.0} for a in people]
    assert coco_ap(path, perfect) == dict.fromkeys(METRICS, 1.0)
    rng = np.random.default_rng(0)
    noisy = copy.deepcopy(perfect)
    for result in noisy:
        result["score"] = rng.uniform()
        points = np.reshape(result["keypoints"], (-1, 3)) + rng.normal(0, 6, (17, 3))
        result["keypoints"] = points.ravel().tolist()
    expected = pycocotools_stats(ground_truth, noisy)
    assert 0.1 < expected[0] < 0.9
    assert list(coco_ap(path, noisy).values()) == expected


@pytest.mark.parametrize(("detector", "ap50"), [("fastestdet", 0.51), ("centernet", 0.67)])
def test_real_detectors(shared_data, detector, ap50):
    folder = shared_data / "coco"
    boxes = json.loads(
        (folder / f"detections/person_detections_val2017_{detector}.json").read_text()
    )
    found = box_ap(folder / "annotations/person_keypoints_val2017.json", boxes)
    assert found["AP50"] == pytest.approx(ap50, abs=0.0075)


def changed(results, number, **fields):
    results = copy.deepcopy(results)
    results[number].update(fields)
    return results


def test_unknown_images_are_named_in_one_line(random_set):
    ground_truth, results = random_set(0)
    results = [{**r, "image_id": r["image_id"] + 1000} for r in results]
    count = len({r["image_id"] for r in results})
    with pytest.raises(UserError, match=rf"^{count} images .* not in .* \(1001, .*\.\.\.\): give"):
        coco_ap(ground_truth, results)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keypoints": [0.0] * 42}, r"^result 3 \(image \d+\) has keypoints of shape \(42,\)"),
        ({"keypoints": [float("nan")] * 51}, r"^result 3 .* not a finite number"),
        ({"keypoints": ["a"] * 51}, r"^result 3 .* not a finite number"),
        ({"keypoints": None}, r"^result 3 .* shape \(\)"),
        ({"keypoints": [[0.0, 1.0], [2.0]]}, r"^result 3 .* shape \(2,\)"),
        ({"score": float("inf")}, r"^result 3 .* not a finite number"),
        ({"score": None}, r"^result 3 .* not a finite number"),
    ],
)
def test_bad_results(random_set, fields, message):
    ground_truth, results = random_set(0)
    with pytest.raises(UserError, match=message):
        coco_ap(ground_truth, changed(results, 3, **fields))


def test_results_without_a_field(random_set):
    ground_truth, results = random_set(0)
    del results[2]["score"], results[2]["keypoints"]
    with pytest.raises(UserError, match=r"^result 2 .* has no keypoints, score"):
        coco_ap(ground_truth, results)


@pytest.mark.parametrize("content", ["{", "[1]", '{"images": []}'])
def test_not_ground_truth(write, content):
    with pytest.raises(UserError, match=r"^annotation file .*file\.json "):
        coco_ap(write(content), [])


def test_missing_ground_truth(tmp_path):
    with pytest.raises(UserError, match="no annotation file"):
        coco_ap(tmp_path / "none.json", [])


def test_ground_truth_of_another_joint_set(random_set):
    ground_truth, results = random_set(0, k=14)
    with pytest.raises(UserError, match="annotation 1 has 14 keypoints instead of 17"):
        coco_ap(ground_truth, results)


def test_annotation_without_a_field(random_set):
    ground_truth, results = random_set(0)
    del ground_truth["annotations"][4]["bbox"]
    with pytest.raises(UserError, match="annotation 5 has no bbox"):
        coco_ap(ground_truth, results)
