"""CrowdPose's protocol: against pycocotools with its area, and by hand."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO as CocoApi
from pycocotools.cocoeval import COCOeval
from tiny_sets import write_json

from rmpe_jax.data.readers.crowdpose import read_crowdpose
from rmpe_jax.evaluation.crowdpose import METRICS, crowdpose_ap
from rmpe_jax.evaluation.protocol import score_results
from rmpe_jax.skeletons import CROWDPOSE

CROWD_INDICES = (0.0, 0.19, 0.2, 0.5, 0.79, 0.8, 1.0)
LEVELS = ("easy", "easy", "medium", "medium", "medium", "hard", "hard")
K = 14


def scene(seed=0):
    """A document like CrowdPose's: no area, num_keypoints of visible joints; and noisy results."""
    rng = np.random.default_rng(seed)
    people, results = [], []
    for number in range(5 * len(CROWD_INDICES)):
        image_id = 100 + number // 5
        x, y, w, h = *rng.uniform(0, 300, 2), *rng.uniform(40, 200, 2)
        visibility = rng.integers(0, 3, K) if number % 4 else rng.integers(0, 2, K)
        joints = np.c_[rng.uniform(x, x + w, K), rng.uniform(y, y + h, K), visibility].round(2)
        person = {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0}
        person |= {"bbox": [x, y, w, h], "num_keypoints": int((visibility == 2).sum())}
        people.append(person | {"keypoints": joints.ravel().tolist()})
        found = joints + rng.normal(0, rng.choice([2, 6, 15]), joints.shape)
        result = {"image_id": image_id, "category_id": 1, "score": float(rng.uniform())}
        results.append(result | {"keypoints": found.ravel().tolist()})
    images = [
        {"id": 100 + i, "file_name": f"{100 + i}.jpg", "crowdIndex": crowd_index}
        for i, crowd_index in enumerate(CROWD_INDICES)
    ]
    names = [*CROWDPOSE.joints[:12], "head", "neck"]
    categories = [{"id": 1, "name": "person", "keypoints": names}]
    return {"images": images, "annotations": people, "categories": categories}, results


def read(folder, document):
    write_json(folder / "json" / "crowdpose_mini.json", document)
    return read_crowdpose(folder, "mini")


def reference(document, results, image_ids=None):
    """pycocotools with CrowdPose's area and numbers of keypoints."""
    people = [
        {**a, "id": a["id"] + 1, "area": 0.53 * a["bbox"][2] * a["bbox"][3]}
        for a in document["annotations"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        api = CocoApi()
        api.dataset = document | {"annotations": people}
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes([dict(r) for r in results]), "keypoints")
        evaluation.params.kpt_oks_sigmas = CROWDPOSE.sigmas
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools_on_all_images_and_by_level(tmp_path, caplog, seed):
    document, results = scene(seed)
    dataset = read(tmp_path, document)
    metrics = crowdpose_ap(dataset, results)
    assert tuple(metrics) == METRICS
    whole = reference(document, results)
    assert 0.1 < whole[0] < 0.9
    assert [metrics[name] for name in METRICS[:6]] == [*whole[:3], *whole[5:8]]
    for level in ("easy", "medium", "hard"):
        of_level = [100 + i for i, name in enumerate(LEVELS) if name == level]
        assert metrics[f"AP_{level}"] == reference(document, results, of_level)[0]
    assert not caplog.messages
    assert score_results(dataset, results) == metrics


def test_people_without_a_visible_joint_are_ignored(tmp_path):
    document, _ = scene()
    people = document["annotations"]
    unseen = [a for a in people if not a["num_keypoints"]]
    assert any(np.any(a["keypoints"][2::3]) for a in unseen)
    perfect = [{**a, "score": 1.0} for a in people if a["num_keypoints"]]
    dataset = read(tmp_path, document)
    assert crowdpose_ap(dataset, perfect) == pytest.approx(dict.fromkeys(METRICS, 1))


def test_images_without_a_crowd_index(tmp_path, caplog):
    document, results = scene()
    for image in document["images"][:2]:
        del image["crowdIndex"]
    metrics = crowdpose_ap(read(tmp_path, document), results)
    assert metrics["AP_easy"] == -1
    assert metrics["AP"] == reference(document, results)[0]
    assert caplog.messages == [
        "crowdpose/mini: images without crowdIndex, neither easy, medium nor hard: 2"
    ]
