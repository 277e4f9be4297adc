import functools
import json

import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.nms import apply_nms, candidate_groups, open_nms
from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.pose_nms import PoseNmsParams, params_to_dict, pose_nms_batch
from rmpe_jax.skeletons import COCO


@pytest.fixture
def results():
    """Image 1: ten times one person. Image 2: two people. Image 3: none."""
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 100, (2, 17, 2))
    keypoints = np.stack([first] * 10 + [first, second + 500])
    scores = np.linspace(0.9, 0.5, 12)
    joint_scores = np.repeat(scores[:, None], 17, 1)
    bboxes = np.tile([0.0, 0, 100, 100], (12, 1))
    ids = [1] * 10 + [2, 2]
    return coco_results(ids, keypoints, joint_scores, scores**2, bboxes, scores)


def test_groups_of_images(results):
    groups, names = candidate_groups(results, 17, [3, 2, 1])
    assert names == [[3, 2], [1]]
    assert [group.valid.sum(-1).tolist() for group in groups] == [[0, 2], [10]]
    assert [group.keypoints.shape for group in groups] == [(2, 8, 17, 2), (1, 16, 17, 2)]
    np.testing.assert_allclose(
        groups[0].bbox_scores[1, :2], [r["bbox_score"] for r in results[10:]]
    )
    np.testing.assert_allclose(groups[1].bboxes[0, 0], [0, 0, 100, 100])


def test_results_after_nms(results):
    nms = functools.partial(pose_nms_batch, params=PoseNmsParams.preset("rmpe"))
    left = apply_nms(results, 17, [1, 2, 3], nms)
    assert [r["image_id"] for r in left] == [2, 2, 1]
    np.testing.assert_allclose(left[2]["keypoints"], results[0]["keypoints"], atol=2e-3)
    assert left[2]["score"] == 0.9
    assert left[0].keys() == results[0].keys()


@pytest.mark.parametrize(
    ("name", "left"),
    [("box", 2), ("oks", 3), ("soft_oks", 12), ("paper", 3), ("rmpe", 3), ("alphapose", 3)],
)
def test_nms_by_name(results, name, left):
    assert len(apply_nms(results, 17, [1, 2, 3], open_nms(name, COCO))) == left


def test_none_is_not_an_nms():
    assert open_nms("none", COCO) is None


def test_nms_of_a_file(results, tmp_path):
    params = PoseNmsParams.preset("rmpe").replace(eta=1e3)  # no pair is this similar
    (tmp_path / "params.json").write_text(json.dumps(params_to_dict(params)))
    nms = open_nms(str(tmp_path / "params.json"), COCO)
    assert len(apply_nms(results, 17, [1, 2, 3], nms)) == 12


def test_unknown_nms():
    with pytest.raises(UserError, match="pose NMS parameters boxes cannot be read"):
        open_nms("boxes", COCO)


def test_results_of_another_joint_set(results):
    with pytest.raises(UserError, match="image 2 has 17 keypoints instead of 16: give results"):
        apply_nms(results, 16, [2], open_nms("box", COCO))
