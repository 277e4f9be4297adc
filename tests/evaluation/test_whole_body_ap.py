"""AP of whole bodies by part: against pycocotools on files of the parts, and limiting cases."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO as CocoApi
from pycocotools.cocoeval import COCOeval
from tiny_sets import coco_document, write_json

from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.evaluation.coco import coco_content
from rmpe_jax.evaluation.protocol import score_results
from rmpe_jax.evaluation.whole_body import whole_body_ap
from rmpe_jax.skeletons import COCO, COCO_WHOLEBODY, HALPE26, HALPE136


def scene(skeleton, seed=0):
    """Ground truth of six images with two people, some parts unlabeled, and noisy results."""
    rng = np.random.default_rng(seed)
    people, results = [], []
    for number in range(12):
        k = skeleton.num_keypoints
        joints = np.concatenate([rng.uniform(0, 200, (k, 2)), rng.integers(1, 3, (k, 1))], 1)
        for part in skeleton.parts.values():
            joints[part] *= rng.random() < 0.8
        joints[rng.random(k) < 0.1] = 0
        area = float(rng.uniform(2000, 30000))
        truth = {"id": number + 1, "image_id": number // 2, "category_id": 1, "iscrowd": 0}
        truth |= {"bbox": [0, 0, 200, 200], "area": area}
        label = joints[:, 2] > 0
        people.append(
            truth | {"keypoints": joints.ravel().tolist(), "num_keypoints": int(label.sum())}
        )
        spread = 2 * skeleton.sigmas[:, None] * area**0.5 * rng.choice([0.2, 1.0, 2.0])
        found = joints[:, :2] + spread * rng.normal(size=(k, 2))
        values = np.concatenate([found, np.ones((k, 1))], 1).ravel().tolist()
        result = {"image_id": number // 2, "category_id": 1, "score": float(rng.random())}
        results.append(result | {"keypoints": values})
    truth = {"images": [{"id": i} for i in range(6)], "annotations": people}
    return truth | {"categories": [{"id": 1, "name": "person"}]}, results


def reference(truth, results, part, sigmas):
    """pycocotools on records cut to a part, with `kpt_oks_sigmas` set."""

    def cut(record):
        values = np.reshape(record["keypoints"], (-1, 3))[part]
        joints = int((values[:, 2] > 0).sum())
        return record | {"keypoints": values.ravel().tolist(), "num_keypoints": joints}

    with contextlib.redirect_stdout(io.StringIO()):
        api = CocoApi()
        api.dataset = truth | {"annotations": [cut(a) for a in truth["annotations"]]}
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes([cut(r) for r in results]), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("skeleton", [COCO_WHOLEBODY, HALPE136, HALPE26], ids=lambda s: s.name)
def test_equals_pycocotools_part_by_part(skeleton):
    truth, results = scene(skeleton)
    metrics = whole_body_ap(truth, results, skeleton)
    whole = reference(truth, results, slice(None), skeleton.oks_sigmas)
    assert [metrics[name] for name in ("AP", "AP50", "AR")] == [whole[0], whole[1], whole[5]]
    assert 0.1 < metrics["AP"] < 0.9
    for name, part in skeleton.parts.items():
        stats = reference(truth, results, part, skeleton.oks_sigmas[part])
        assert metrics[f"{name}/AP"] == stats[0]
        assert metrics[f"{name}/AR"] == stats[5]
    assert set(metrics) >= {"body/AP", "foot/AR"}


def test_the_truth_scores_one_and_nothing_scores_zero():
    truth, _ = scene(COCO_WHOLEBODY)
    perfect = [{**person, "score": 1.0} for person in truth["annotations"]]
    metrics = whole_body_ap(truth, perfect, COCO_WHOLEBODY)
    assert all(value == 1 for name, value in metrics.items() if "/" in name)
    assert set(whole_body_ap(truth, [], COCO_WHOLEBODY).values()) == {0.0}


def test_a_wrong_hand_affects_only_its_part():
    truth, _ = scene(COCO_WHOLEBODY)
    moved = []
    for person in truth["annotations"]:
        joints = np.reshape(person["keypoints"], (133, 3)).copy()
        joints[COCO_WHOLEBODY.parts["left_hand"]] += 100
        moved.append({**person, "keypoints": joints.ravel().tolist(), "score": 1.0})
    metrics = whole_body_ap(truth, moved, COCO_WHOLEBODY)
    assert metrics["left_hand/AP"] == 0
    assert metrics["right_hand/AP"] == metrics["face/AP"] == metrics["body/AP"] == 1
    assert 0 < metrics["AP"] < 1


def test_bodies_have_one_part():
    truth, results = scene(COCO)
    metrics = whole_body_ap(truth, results, COCO)
    assert metrics["body/AP"] == metrics["AP"]


def test_halpe_counts_three_joints_everywhere(tmp_path, caplog):
    """The numbers of its file are not used, and its fractions are labels."""
    document = coco_document(HALPE136)
    for annotation in document["annotations"]:
        annotation["num_keypoints"] = 3
    document["annotations"][0]["keypoints"][2::3] = [0.3] * 136
    write_json(tmp_path / "annotations" / "halpe_val_v1.json", document)
    dataset = open_dataset(f"halpe136:{tmp_path}:val")
    people = coco_content(dataset)["annotations"]
    assert [person["num_keypoints"] for person in people] == [136, 136, 0, 0]
    metrics = score_results(dataset, [{**person, "score": 1.0} for person in people[:2]])
    assert {name: metrics[name] for name in ("AP", "face/AP", "right_hand/AR")} == pytest.approx(
        {"AP": 1, "face/AP": 1, "right_hand/AR": 1}
    )
    assert not caplog.messages


def test_a_part_that_nobody_has_is_minus_one():
    truth, results = scene(HALPE26)
    for person in truth["annotations"]:
        person["keypoints"][60:] = [0] * 18
        person["num_keypoints"] = int((np.reshape(person["keypoints"], (-1, 3))[:, 2] > 0).sum())
    for given in (results, []):
        metrics = whole_body_ap(truth, given, HALPE26)
        assert (metrics["foot/AP"], metrics["foot/AR"]) == (-1, -1)
        assert min(metrics["AP"], metrics["body/AP"]) >= 0
