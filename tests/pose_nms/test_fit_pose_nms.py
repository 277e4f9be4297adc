"""Learning the parameters: the objective against NumPy and pycocotools, and the search."""

import jax
import jax.numpy as jnp
import nms_reference
import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.evaluation import coco_ap
from rmpe_jax.evaluation.arrays import ground_truth_arrays
from rmpe_jax.evaluation.nms import candidate_groups
from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.pose_nms import NmsResult, PoseNmsParams
from rmpe_jax.pose_nms.fit import (
    best_people,
    evaluate_params,
    fit_pose_nms,
    oks_ap,
)
from rmpe_jax.skeletons import COCO

K = 5  # joints, few to compile fast: shoulders, elbows, a wrist
SIGMAS = COCO.sigmas[5:10]
OBJECTIVE = oks_ap(SIGMAS)


def crowded_set(seed, num_images=24, most_boxes=6):
    """People who stand close together, each found by some boxes."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    shape = rng.uniform(0, 1, (K, 2))
    for image_id in range(num_images):
        for person in range(rng.integers(1, 3)):
            size = rng.uniform(80, 160)
            corner = np.array([100 + person * rng.uniform(10, 60), 100])
            pose = corner + size * shape * [0.5, 1]
            bbox = [*corner, 0.5 * size, size]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": bbox,
                    "area": 0.5 * size**2,
                    "iscrowd": 0,
                    "keypoints": np.c_[pose, np.full(K, 2)].ravel().tolist(),
                    "num_keypoints": K,
                }
            )
            n = rng.integers(1, most_boxes + 1)
            found = pose + rng.normal(0, 0.03 * size, (n, K, 2))
            scores = rng.uniform(0.4, 1, (n, K))
            box = np.tile([*corner, *(corner + np.array([0.5, 1]) * size)], (n, 1))
            results += coco_results(
                [image_id] * n, found, scores, scores.mean(-1), box, rng.uniform(0.5, 1, n)
            )
    images = [{"id": i} for i in range(num_images)]
    return {"images": images, "annotations": annotations}, results


def arrays(ground_truth, results):
    groups, names = candidate_groups(results, K, [image["id"] for image in ground_truth["images"]])
    order = [name for group in names for name in group]
    people = ground_truth_arrays(ground_truth, K, order)
    return jax.tree.map(jnp.asarray, (tuple(groups), people))


@pytest.fixture(scope="module")
def data():
    return crowded_set(0, most_boxes=4)


def numpy_ap(ground_truth, results, **params):
    """AP by pycocotools of what the NumPy rule leaves."""
    left = []
    for image in ground_truth["images"]:
        of_image = [r for r in results if r["image_id"] == image["id"]]
        joints = np.array([r["keypoints"] for r in of_image]).reshape(-1, K, 3)
        bboxes = np.array([r["bbox"] for r in of_image])
        bboxes[:, 2:] += bboxes[:, :2]
        box_scores = np.array([r["bbox_score"] for r in of_image])
        kept, _, _ = nms_reference.rmpe(
            joints[..., :2], joints[..., 2], bboxes, box_scores, **params
        )
        for i, (keypoints, scores, score) in kept.items():
            args = keypoints[None], scores[None], np.array([score]), bboxes[i : i + 1]
            left += coco_results([image["id"]], *args)
    return coco_ap(ground_truth, left, SIGMAS)["AP"]


def test_objective_equals_numpy_and_pycocotools():
    data = crowded_set(1)
    candidates, ground_truth = arrays(*data)
    assert [group.valid.shape[1] for group in candidates] == [8, 16]
    sets = [(0.01, 2.08, 2.08, 7.0), (0.3, 10.0, 3.0, 1.0), (0.05, 4.0, 0.3, 5.5)]
    start = PoseNmsParams.preset("rmpe")
    columns = [jnp.asarray(column, jnp.float32) for column in zip(*sets, strict=True)]
    params = PoseNmsParams(*columns, variant=start.variant)
    found = evaluate_params(
        params, candidates, ground_truth, objective=OBJECTIVE, max_people=20, batch_size=3
    )
    names = ("delta1", "delta2", "mu", "gamma")
    expected = [numpy_ap(*data, **dict(zip(names, s, strict=True))) for s in sets]
    assert len(set(expected)) == 3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fit_finds_better_parameters_and_says_how(data):
    candidates, ground_truth = arrays(*data)
    bad = PoseNmsParams.preset("rmpe").replace(eta=15.0)
    reported = []
    fit = fit_pose_nms(
        candidates, ground_truth, OBJECTIVE, bad, steps=5, max_sweeps=2, report=reported.append
    )
    before, after = (
        numpy_ap(*data, delta1=p.sigma1, delta2=p.sigma2, mu=p.lam, gamma=p.eta)
        for p in (bad, fit.params)
    )
    np.testing.assert_allclose([fit.start_score, fit.score], [before, after], atol=1e-5)
    assert after > before + 0.05
    assert fit.params.variant == bad.variant
    assert list(fit.searches) == reported
    scores = [fit.start_score, *(search.score for search in fit.searches)]
    assert scores == sorted(scores)
    for search in fit.searches:
        assert search.scores.shape == (5, 5)
        assert search.previous_score <= search.score == search.scores.max()
        assert search.best[0] in search.values[0]


def test_any_objective_of_arrays(data):
    candidates, ground_truth = arrays(*data)

    def right_number_of_people(poses, people):
        return -jnp.abs(poses.keep.sum(-1) - people.valid.sum(-1)).mean()

    start = PoseNmsParams.preset("rmpe").replace(eta=15.0)
    fit = fit_pose_nms(
        candidates, ground_truth, right_number_of_people, start, steps=5, max_sweeps=1
    )
    assert fit.start_score < -0.1 < fit.score <= 0
    assert {search.sweep for search in fit.searches} == {1}


def test_best_people():
    scores = jnp.array([[0.3, 0.9, 0.0, 0.5]])
    keep = jnp.array([[True, True, True, False]])
    keypoints = jnp.arange(8.0).reshape(1, 4, 1, 2)
    poses = NmsResult(keypoints, keypoints[..., 0], scores, keep, jnp.arange(4)[None])
    two, six = (jax.jit(best_people, static_argnums=1)(poses, number) for number in (2, 6))
    np.testing.assert_allclose(two.scores, [[0.9, 0.3]])
    np.testing.assert_array_equal(two.keypoints[0, :, 0], [[2, 3], [0, 1]])
    assert six.keep.tolist() == [[True, True, True, False, False, False]]
    assert six.keypoints.shape == (1, 6, 1, 2)


def test_ground_truth_of_another_joint_set(data):
    candidates, ground_truth = arrays(*data)
    fewer = ground_truth._replace(
        keypoints=ground_truth.keypoints[:, :, 1:], visibility=ground_truth.visibility[:, :, 1:]
    )
    with pytest.raises(UserError, match=f"{K} joints, the ground truth has {K - 1}: give both in"):
        fit_pose_nms(candidates, fewer, OBJECTIVE, PoseNmsParams.preset("rmpe"))
