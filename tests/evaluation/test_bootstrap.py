"""AP of resampled images against pycocotools on copies of the images, and the intervals."""

import numpy as np
import pytest

from rmpe_jax.evaluation.bootstrap import image_resamples, interval, resampled_ap
from rmpe_jax.evaluation.coco import coco_ap, load_ground_truth, ranked_poses
from rmpe_jax.skeletons import COCO


@pytest.fixture
def scored(random_set):
    """Ground truth, results with scores that differ, and how they match."""
    truth, results = random_set(3)
    order = np.random.default_rng(0).permutation(len(results))
    results = [r | {"score": float(n + 1)} for r, n in zip(results, order, strict=True)]
    return truth, results, ranked_poses(load_ground_truth(truth, COCO), results)


def copies(truth, results, counts):
    """Each image as often as `counts` says, under ids of their own."""
    new_truth, new_results = truth | {"images": [], "annotations": []}, []
    for image, count in zip(truth["images"], counts, strict=True):
        for _ in range(count):
            number = len(new_truth["images"]) + 1
            new = {"image_id": number}
            new_truth["images"].append({"id": number, "file_name": f"{number}.jpg"})
            for old in truth["annotations"]:
                if old["image_id"] == image["id"]:
                    identity = {"id": len(new_truth["annotations"]) + 1}
                    new_truth["annotations"].append(old | new | identity)
            new_results += [r | new for r in results if r["image_id"] == image["id"]]
    return new_truth, new_results


def test_every_image_once_is_the_ap(scored):
    truth, results, poses = scored
    once = np.ones((1, len(truth["images"])), int)
    expected = coco_ap(truth, results)["AP"]
    assert 0.1 < expected < 0.9
    np.testing.assert_allclose(resampled_ap(poses, once), [expected], atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_images_drawn_twice_count_as_two(scored, seed):
    truth, results, poses = scored
    counts = image_resamples(len(truth["images"]), 1, seed)
    assert counts.sum() == len(truth["images"])
    assert counts.max() > 1
    expected = coco_ap(*copies(truth, results, counts[0]))["AP"]
    np.testing.assert_allclose(resampled_ap(poses, counts), [expected], atol=1e-9)


def test_without_people_there_is_no_ap(scored):
    truth, _, poses = scored
    assert np.isnan(resampled_ap(poses, np.zeros((1, len(truth["images"])), int)))


def test_the_interval_of_one_training_is_that_of_the_images():
    values = np.random.default_rng(0).permutation(np.linspace(-1, 1, 2001))[None]
    assert interval(values, 0) == pytest.approx((-0.95, 0.95), abs=1e-3)
    assert interval(values, 0, level=0.5) == pytest.approx((-0.5, 0.5), abs=1e-3)


def test_seeds_widen_the_interval():
    """Two trainings that differ by 2: their mean is 0, 1 or 2 in a quarter, half and quarter."""
    values = np.array([[0.0], [2.0]]) + np.zeros((2, 4000))
    assert interval(values, 0) == (0.0, 2.0)
    assert interval(values, 0, level=0.4) == (1.0, 1.0)
