"""OKS average precision on arrays against pycocotools, rule by rule and on real images."""

import contextlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from noisy_poses import noisy_results
from pycocotools.coco import COCO as PyCoco
from pycocotools.cocoeval import COCOeval

from rmpe_jax.evaluation.arrays import detection_arrays, ground_truth_arrays
from rmpe_jax.ops.average_precision import COCO_SIZES, _people_for_recall, average_precision
from rmpe_jax.skeletons import COCO

SIZES = (*COCO_SIZES, (0.0, 32.0**2), (5000.0, 40000.0))
K = 17


def random_set(seed, num_images=25):
    """Images with crowds, people to ignore, twins, ties of score, and too many poses."""
    rng = np.random.default_rng(seed)
    people, results = [], []
    for image_id in range(num_images):
        # The first has most of both, so that all seeds have one shape.
        num_people = 12 if image_id == 0 else rng.integers(0, 7)
        first = len(people)
        for _ in range(num_people):
            people.append(_person(rng, image_id, len(people) + 1))
            if rng.uniform() < 0.1:  # a twin: equal OKS with every pose
                twin = people[max(len(people) - 2, 0)]
                people[-1] |= {key: twin[key] for key in ("keypoints", "num_keypoints")}
        num_poses = 30 if image_id == 0 else rng.integers(0, 12)
        for _ in range(num_poses if num_people else rng.integers(0, 3)):
            near = people[rng.integers(first, len(people))] if num_people else _person(rng, 0, 0)
            results.append(_result(rng, image_id, near))
    images = [{"id": i} for i in range(num_images)]
    return {"images": images, "annotations": people, "categories": [{"id": 1}]}, results


def _person(rng, image_id, annotation_id):
    x, y = rng.uniform(0, 400, 2)
    w, h = np.exp(rng.uniform(np.log(15), np.log(300), 2))
    visibility = rng.integers(0, 3, K) * (rng.uniform() > 0.2)
    joints = np.c_[rng.uniform([x, y], [x + w, y + h], (K, 2)), visibility]
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [x, y, w, h],
        "area": 0.6 * w * h,
        "iscrowd": int(rng.uniform() < 0.15),
        "keypoints": joints.ravel().tolist(),
        "num_keypoints": int((visibility > 0).sum()),
    }


def _result(rng, image_id, person):
    joints = np.reshape(person["keypoints"], (K, 3)).copy()
    # Some are exact, so that OKS is 1 and several poses tie.
    noise = 0.1 * np.sqrt(person["area"]) * rng.choice([0, rng.exponential()], p=[0.2, 0.8])
    joints[:, :2] += rng.normal(0, noise, (K, 2))
    return {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": joints.ravel().tolist(),
        "bbox": person["bbox"],
        "score": float(rng.choice([0.1, 0.5, 0.9, rng.uniform()])),
    }


def pycocotools(ground_truth, results, sizes):
    """AP and recall (sizes, thresholds)."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = PyCoco()
        coco.dataset = ground_truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(r) for r in results]), "keypoints")
        evaluation.params.areaRng = [list(size) for size in sizes]
        evaluation.params.areaRngLbl = [str(size) for size in sizes]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return precision[:, :, 0, :, 0].mean(1).T, recall[:, 0, :, 0].T


def arrays(ground_truth, results):
    image_ids = sorted(image["id"] for image in ground_truth["images"])
    found = detection_arrays(results, K, image_ids), ground_truth_arrays(ground_truth, K, image_ids)
    return jax.tree.map(jnp.asarray, found)


@jax.jit
def jitted(detections, ground_truth):
    return average_precision(detections, ground_truth, COCO.sigmas, SIZES)


def test_equals_pycocotools_and_maps_over_sets():
    sets = [random_set(seed) for seed in range(16)]
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *(arrays(*s) for s in sets))
    found = jax.jit(jax.vmap(jitted))(*stacked)
    for i, (ground_truth, results) in enumerate(sets):
        precision, recall = pycocotools(ground_truth, results, SIZES)
        assert 0.02 < precision.mean() < 0.98
        np.testing.assert_allclose(found.precision[i], precision, atol=1e-6, rtol=0)
        np.testing.assert_allclose(found.recall[i], recall, atol=1e-6, rtol=0)


@pytest.mark.parametrize("detector", ["centernet", "fastestdet"])
def test_equals_pycocotools_on_real_images(shared_data, detector):
    folder = shared_data / "coco"
    path = folder / "annotations/person_keypoints_val2017.json"
    ground_truth = json.loads(path.read_text())
    path = folder / f"detections/person_detections_val2017_{detector}.json"
    results = noisy_results(ground_truth, json.loads(path.read_text()), seed=0)
    for result in results:
        result["score"] = round(result["score"], 2)  # many ties, also across images
    found = jitted(*arrays(ground_truth, results))
    precision, recall = pycocotools(ground_truth, results, SIZES)
    assert 0.2 < precision[0].mean() < 0.9
    np.testing.assert_allclose(found.precision, precision, atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.recall, recall, atol=1e-6, rtol=0)


def one_image(people, poses):
    """Ours and pycocotools' (precision, recall) at `SIZES`, equal.

    People are lists of joints with visibility and an area. Poses are lists of joints, the area of
    the box, and a score.
    """
    truth = [
        {"id": n + 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "area": area}
        | {"iscrowd": 0, "keypoints": joints.ravel().tolist()}
        | {"num_keypoints": np.count_nonzero(joints[:, 2])}
        for n, (joints, area) in enumerate(people)
    ]
    ground_truth = {"images": [{"id": 0}], "annotations": truth, "categories": [{"id": 1}]}
    results = [
        {"image_id": 0, "category_id": 1, "keypoints": joints.ravel().tolist()}
        | {"bbox": [0, 0, 1, area], "score": score}
        for joints, area, score in poses
    ]
    detections, annotated = arrays(ground_truth, results)
    # The reader replaces areas above all ranges.
    area = annotated.area.at[0, : len(people)].set(jnp.array([area for _, area in people]))
    found = jitted(detections, annotated._replace(area=area))
    expected = pycocotools(ground_truth, results, SIZES)
    np.testing.assert_allclose(found.precision, expected[0], atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.recall, expected[1], atol=1e-6, rtol=0)
    return found


def joints_at(x, labeled=K):
    return np.stack([np.full(K, float(x)), np.arange(K, dtype=float), np.arange(K) < labeled], -1)


@pytest.mark.parametrize(
    ("exact", "labeled", "reached"),
    [(1, 2, 1), (3, 5, 3), (7, 10, 5), (3, 4, 6), (4, 5, 7), (9, 10, 9)],
)
def test_an_oks_at_a_threshold_reaches_it(exact, labeled, reached):
    # Joints that are exact add 1 / labeled to the OKS, all others are so far away that they add 0.
    pose = joints_at(0)
    pose[exact:, 0] = 1e6
    found = one_image([(joints_at(0, labeled), 1e4)], [(pose, 1e4, 0.5)])
    np.testing.assert_array_equal(found.recall[0], np.arange(10) < reached)


@pytest.mark.parametrize(
    ("area", "in_range"),  # of medium and of large people
    [
        (32.0**2 - 1, (False, False)),
        (32.0**2, (True, False)),
        (96.0**2 - 1, (True, False)),
        (96.0**2, (True, True)),
        (96.0**2 + 1, (False, True)),
        (1e10, (False, True)),
        (1e10 + 2.0**11, (False, False)),
    ],
)
def test_limits_of_a_size_range_belong_to_it(area, in_range):
    medium_and_large = [(joints_at(x), a) for x, a in ((0, 5e3), (1e6, 2e4))]
    theirs = [(joints, area, 0.5) for joints, area in medium_and_large]
    # A person of this area is to be found if they are in the range.
    missed = one_image([*medium_and_large, (joints_at(2e6), area)], theirs)
    np.testing.assert_array_equal(missed.recall[1:3, 0], [0.5 if i else 1 for i in in_range])
    # A pose of this area on nobody is a false positive if it is in the range.
    extra = one_image(medium_and_large, [(joints_at(3e6), area, 0.9), *theirs])
    np.testing.assert_allclose(extra.precision[1:3, 0], [0.5 if i else 1 for i in in_range])


def test_padding_may_be_anything():
    detections, ground_truth = arrays(*random_set(3))

    def spoiled(values, valid):
        if not jnp.issubdtype(values.dtype, jnp.floating):
            return values
        return jnp.where(valid.reshape(valid.shape + (1,) * (values.ndim - 2)), values, jnp.nan)

    dirty = [
        jax.tree.map(lambda v, valid=part.valid: spoiled(v, valid), part)
        for part in (detections, ground_truth)
    ]
    for clean, again in zip(jitted(detections, ground_truth), jitted(*dirty), strict=True):
        np.testing.assert_array_equal(clean, again)


def test_nothing_found_is_zero_and_nobody_to_find_is_minus_one():
    detections, ground_truth = arrays(*random_set(4))
    empty = detections._replace(valid=jnp.zeros_like(detections.valid))
    for value in jitted(empty, ground_truth):
        assert (value == 0).all()
    nobody = ground_truth._replace(ignore=jnp.ones_like(ground_truth.ignore))
    for value in jitted(detections, nobody):
        assert (value == -1).all()


def test_recalls_are_reached_as_in_float64():
    counts = np.arange(1, 1500)
    required = np.asarray(_people_for_recall(jnp.asarray(counts)))
    recalls = np.linspace(0.0, 1.00, int(np.round((1.00 - 0.0) / 0.01)) + 1, endpoint=True)
    for count, row in zip(counts, required, strict=True):
        reached = np.searchsorted(np.arange(count + 1) / count, recalls, side="left")
        np.testing.assert_array_equal(row, reached)
