"""`coco_ap` and `box_ap` against pycocotools used directly, on odd files, and all errors."""

import copy
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rmpe_jax.errors import UserError
from rmpe_jax.evaluation import box_ap, coco_ap
from rmpe_jax.evaluation.coco import METRICS
from rmpe_jax.skeletons import COCO as COCO_SKELETON


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


def test_images_that_the_ground_truth_does_not_have(random_set):
    ground_truth, results = random_set(1)
    with pytest.raises(UserError, match=r"^image_ids has 99, which"):
        coco_ap(ground_truth, results, image_ids=[1, 99])


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


@pytest.fixture(scope="module")
def real(shared_data):
    """COCO's own file and its content."""
    path = shared_data / "coco/annotations/person_keypoints_val2017.json"
    return path, json.loads(path.read_text())


def labeled_people(ground_truth) -> list[dict]:
    people = ground_truth["annotations"]
    return [a for a in people if a["num_keypoints"] and not a["iscrowd"]]


def noisy_copies(ground_truth, seed):
    """Each person twice, with noise of a size of its own; equal scores occur."""
    rng = np.random.default_rng(seed)
    results = []
    for person in labeled_people(ground_truth) * 2:
        points = np.reshape(person["keypoints"], (-1, 3)).astype(float)
        points[:, :2] += rng.normal(0, rng.uniform(0.01, 0.2) * person["area"] ** 0.5, (17, 2))
        box = np.array(person["bbox"]) + rng.normal(0, 0.1 * min(person["bbox"][2:]), 4)
        result = {"image_id": person["image_id"], "category_id": 1, "bbox": box.tolist()}
        result |= {"keypoints": points.ravel().tolist(), "score": round(rng.uniform(), 2)}
        results.append(result)
    return results


def test_perfect_poses_on_real_annotations(real):
    path, ground_truth = real
    perfect = [{**a, "score": 1.0} for a in labeled_people(ground_truth)]
    assert coco_ap(path, perfect) == pytest.approx(dict.fromkeys(METRICS, 1.0))


@pytest.mark.parametrize("seed", range(3))
def test_noisy_poses_on_real_annotations_equal_pycocotools(real, coco_val, seed):
    path, ground_truth = real
    results = noisy_copies(ground_truth, seed)
    expected = pycocotools_stats(ground_truth, results)
    assert 0.1 < expected[0] < 0.9
    assert list(coco_ap(path, results).values()) == expected
    assert list(coco_ap(coco_val, results).values()) == expected


@pytest.mark.parametrize("seed", range(3))
def test_noisy_boxes_on_real_annotations_equal_pycocotools(real, coco_val, seed):
    path, ground_truth = real
    results = noisy_copies(ground_truth, seed)
    expected = pycocotools_stats(ground_truth, results, "bbox")
    assert 0.1 < expected[0] < 0.9
    assert list(box_ap(path, results).values()) == expected[:2]
    assert list(box_ap(coco_val, results).values()) == expected[:2]


@pytest.mark.parametrize(("detector", "ap50"), [("fastestdet", 0.51), ("centernet", 0.67)])
def test_real_detectors_equal_pycocotools(shared_data, real, detector, ap50):
    name = f"person_detections_val2017_{detector}.json"
    boxes = json.loads((shared_data / "coco/detections" / name).read_text())
    path, ground_truth = real
    found = box_ap(path, boxes)
    assert found["AP50"] == pytest.approx(ap50, abs=0.0075)
    assert list(found.values()) == pycocotools_stats(ground_truth, boxes, "bbox")[:2]


def people_of_all_sizes() -> dict:
    """Four people in two images: medium and large, one of them a crowd, one without joints."""
    rng = np.random.default_rng(0)
    annotations = []
    for number, (size, crowd) in enumerate([(60, 0), (200, 0), (150, 1), (80, 0)]):
        joints = np.c_[rng.uniform(0, size, (17, 2)).round(), np.full(17, 2)]
        joints *= number != 3
        annotations.append(
            {
                "id": number + 1,
                "image_id": number % 2 + 1,
                "category_id": 1,
                "iscrowd": crowd,
                "bbox": [0, 0, size, size],
                "area": 0.7 * size**2,
                "keypoints": joints.ravel().tolist(),
                "num_keypoints": 17 * (number != 3),
            }
        )
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)]
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO_SKELETON.joints)}]
    return {"images": images, "annotations": annotations, "categories": categories}


def perfect(ground_truth) -> list[dict]:
    """The labeled people of `people_of_all_sizes` as results on the images of `ground_truth`."""
    ids = [image["id"] for image in ground_truth["images"]]
    return [
        {**a, "image_id": ids[a["image_id"] - 1], "score": 1.0}
        for a in labeled_people(people_of_all_sizes())
    ]


def set_all(key, value):
    def change(document):
        for annotation in document["annotations"]:
            annotation[key] = value

    return change


def pop_all(key):
    def change(document):
        for annotation in document["annotations"]:
            del annotation[key]

    return change


def number_from_zero(document):
    for number, annotation in enumerate(document["annotations"]):
        annotation["id"] = number


def rename_images(first, second):
    def change(document):
        ids = {1: first, 2: second}
        for image in document["images"]:
            image["id"] = ids[image["id"]]
        for annotation in document["annotations"]:
            annotation["image_id"] = ids[annotation["image_id"]]

    return change


def reverse_joints(document):
    document["categories"][0]["keypoints"].reverse()
    for annotation in document["annotations"]:
        joints = np.reshape(annotation["keypoints"], (17, 3))[::-1]
        annotation["keypoints"] = joints.ravel().tolist()


def nest_joints(document):
    for annotation in document["annotations"]:
        annotation["keypoints"] = np.reshape(annotation["keypoints"], (17, 3)).tolist()


@pytest.mark.parametrize(
    "change",
    [
        number_from_zero,
        pop_all("num_keypoints"),
        set_all("num_keypoints", 3),
        set_all("num_keypoints", 0),
        set_all("num_keypoints", None),
        pop_all("area"),
        set_all("area", 0),
        set_all("area", -5),
        set_all("area", None),
        set_all("area", 1e30),
        set_all("area", float("nan")),
        pop_all("category_id"),
        set_all("category_id", 1.0),
        rename_images("a", "b"),
        rename_images("a", 1),  # numbers and names in one file
        rename_images(0, 1),
        rename_images(2.0, 1.0),
        rename_images(2**62 + 1, 2**62),  # floats could not tell them apart
        reverse_joints,
        nest_joints,
    ],
)
def test_odd_files_score_as_they_are_read(write, change):
    document = people_of_all_sizes()
    change(document)
    assert coco_ap(document, perfect(document)) == pytest.approx(dict.fromkeys(METRICS, 1.0))
    assert coco_ap(write(document), perfect(document))["AP"] == pytest.approx(1)
    assert box_ap(document, perfect(document))["AP50"] > 0


def test_one_person_with_id_zero(write):
    document = people_of_all_sizes()
    document["annotations"] = [document["annotations"][0] | {"id": 0}]
    results = perfect(document)[:1]
    assert coco_ap(document, results)["AP"] == pytest.approx(1)
    assert box_ap(write(document), results) == pytest.approx({"AP": 1, "AP50": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("iscrowd", "0"),
        ("keypoints", ["1"] * 51),
        ("bbox", ["0", "0", "9", "9"]),
        ("bbox", [0, 0, 1e30, 1e30]),
        ("area", "12.5"),
        ("id", "1"),
        ("id", 2**70),
        ("category_id", "1"),
    ],
)
def test_what_cannot_be_read_cannot_be_scored(key, value):
    document = people_of_all_sizes()
    document["annotations"][0][key] = value
    with pytest.raises(UserError, match=rf"^the ground truth: annotation .* {key}") as error:
        coco_ap(document, perfect(document))
    assert "\n" not in str(error.value)


def test_areas_decide_who_is_medium_to_the_last_digit():
    document = people_of_all_sizes()
    document["annotations"] = [document["annotations"][0] | {"area": 9215.9999}]
    metrics = coco_ap(document, perfect(document)[:1])
    assert (metrics["APM"], metrics["APL"]) == (pytest.approx(1), -1)


@pytest.mark.parametrize("change", [set_all("iscrowd", 1), set_all("keypoints", [0] * 51)])
def test_nobody_is_evaluated(caplog, change):
    document = people_of_all_sizes()
    results = perfect(document)
    change(document)
    for given in (results, []):
        caplog.clear()
        assert coco_ap(document, given) == dict.fromkeys(METRICS, -1)
        assert caplog.messages[-1] == (
            "the ground truth: nobody is evaluated (AP -1): the evaluated images have only crowds "
            "and people without labeled joints, or nobody"
        )


def test_without_results_the_sizes_that_nobody_has_stay_absent():
    document = people_of_all_sizes()
    document["annotations"] = document["annotations"][:1]
    metrics = coco_ap(document, [])
    assert {name for name, value in metrics.items() if value == -1} == {"APL", "ARL"}
    assert set(metrics.values()) == {0, -1}


def test_images_without_people_are_named_as_such(caplog):
    document = people_of_all_sizes()
    document["images"].append({"id": 77})
    assert coco_ap(document, perfect(document), image_ids=[77])["AP"] == -1
    assert "(AP -1): the evaluated images have only crowds and " in caplog.messages[-1]


def test_results_without_a_category_are_people(random_set):
    ground_truth, results = random_set(0)
    without = [{k: v for k, v in r.items() if k != "category_id"} for r in results]
    assert coco_ap(ground_truth, without) == coco_ap(ground_truth, results)


@pytest.mark.parametrize(("image_id", "shown"), [("1", r"'1'"), ([1], r"\[1\]"), (None, "None")])
def test_results_on_unknown_images(random_set, image_id, shown):
    ground_truth, results = random_set(0)
    results[0]["image_id"] = image_id
    with pytest.raises(UserError, match=rf"^1 images .* not in the ground truth \({shown}\): "):
        coco_ap(ground_truth, results)


def test_results_of_other_categories_are_counted(random_set, caplog):
    ground_truth, results = random_set(0)
    expected = coco_ap(ground_truth, results)
    others = [{**results[0], "category_id": 18}] * 3
    assert not caplog.messages
    assert coco_ap(ground_truth, [*others, *results]) == expected
    assert caplog.messages == ["results of other categories than 1, person, are left out: 3"]


def test_results_whose_categories_count_from_0(random_set, caplog):
    ground_truth, results = random_set(0)
    expected = coco_ap(ground_truth, results)
    from_zero = [{**result, "category_id": 0} for result in results]
    assert coco_ap(ground_truth, from_zero) == expected
    assert caplog.messages == [
        "the result list: category 0 is taken as person, because nothing has category 1"
    ]
    dogs = [{**result, "category_id": 18} for result in results]
    with pytest.raises(UserError, match="has nothing of category 1, which is person, only"):
        coco_ap(ground_truth, dogs)


def test_poses_with_and_without_boxes(random_set):
    """Of poses without a box, the extent of the joints counts as the box."""
    ground_truth, results = random_set(0)
    without = [{k: v for k, v in r.items() if k != "bbox"} for r in results]
    expected = pycocotools_stats(ground_truth, without)
    assert list(coco_ap(ground_truth, without).values()) == expected
    for index, result in enumerate(without[::3]):
        joints = np.reshape(result["keypoints"], (17, 3))[:, :2]
        without[3 * index] = {**result, "bbox": [*joints.min(0), *np.ptp(joints, 0)]}
    without[1] = {**without[1], "bbox": None}
    assert list(coco_ap(ground_truth, without).values()) == expected


def test_a_dataset_is_scored_by_its_own_sigmas(make_dataset, caplog):
    from rmpe_jax.skeletons import MPII

    dataset = make_dataset(MPII, [np.random.default_rng(0).uniform(0, 100, (2, 16, 2))])
    pose = np.c_[dataset.images[0].keypoints[0] + 8, np.ones(16)]
    result = {
        "image_id": "p0.jpg",
        "category_id": 1,
        "score": 1.0,
        "keypoints": pose.ravel().tolist(),
    }
    found = coco_ap(dataset, [result])
    assert (
        found
        == coco_ap(dataset, [result], MPII.oks_sigmas)
        != coco_ap(dataset, [result], [1.0] * 16)
    )
    with pytest.raises(UserError, match=r"^test/set has 16 joints, not 17: give the sigmas"):
        coco_ap(dataset, [result], COCO_SKELETON.oks_sigmas)


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
        ({"keypoints": ["1"] * 51}, r"^result 3 .* not a finite number"),
        ({"keypoints": [[0.0] * 3] * 17}, r"^result 3 .* shape \(17, 3\)"),
        ({"score": "0.5"}, r"^result 3 .* not a finite number"),
        ({"score": [0.5]}, r"^result 3 .* not a finite number"),
        ({"bbox": ["0", "0", "1", "1"]}, r"^result 3 .* bbox that is not four finite numbers"),
        ({"bbox": [0, 0, 1]}, r"^result 3 .* bbox that is not four finite numbers"),
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
    with pytest.raises(UserError, match=r"^(annotation file )?/.*file\.json (is|has)"):
        coco_ap(write(content), [])


def test_missing_ground_truth(tmp_path):
    with pytest.raises(UserError, match="no annotation file"):
        coco_ap(tmp_path / "none.json", [])


def test_ground_truth_of_another_joint_set(random_set):
    ground_truth, results = random_set(0, k=14)
    with pytest.raises(UserError, match="annotation 1 has 42 numbers in keypoints, not 51"):
        coco_ap(ground_truth, results)


def test_annotation_without_a_field(random_set):
    ground_truth, results = random_set(0)
    del ground_truth["annotations"][4]["bbox"]
    with pytest.raises(UserError, match="the ground truth: annotation 5 has no 'bbox'"):
        coco_ap(ground_truth, results)
