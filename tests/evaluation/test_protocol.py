"""Which boxes are evaluated on, and which metric fits the dataset."""

import dataclasses

import numpy as np
import pytest

from rmpe_jax.data.readers.mpii import read_mpii
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation import coco_ap, pckh
from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.evaluation.coco import METRICS
from rmpe_jax.evaluation.nms import open_nms
from rmpe_jax.evaluation.pckh import COLUMNS
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.evaluation.protocol import evaluate, person_scores
from rmpe_jax.skeletons import COCO, LSP, MPII, UNION


def scored(dataset, boxes, keypoints, keypoint_scores, skeleton, nms=None):
    return evaluate(PosePredictions(dataset, boxes, keypoints, keypoint_scores, skeleton), nms)


def annotated_poses(dataset, boxes):
    return np.array(
        [
            dataset.images[i].keypoints[person]
            for i, person in zip(boxes.image_index, boxes.person_index, strict=True)
        ],
        np.float64,
    )


def test_person_scores_by_hand():
    joints = np.array([[0.9, 0.5, 0.1], [0.2, 0.1, 0.0], [0.3, 0.3, 0.3]])
    np.testing.assert_allclose(person_scores(joints, np.array([0.5, 1, 1])), [0.35, 0, 0.3])


def test_ground_truth_boxes_are_of_people_with_joints_and_no_crowds(coco_val):
    boxes = load_boxes(coco_val, "gt")
    assert len(boxes) == 400
    assert (boxes.scores == 1).all()
    for i, person, bbox in zip(boxes.image_index, boxes.person_index, boxes.bboxes, strict=True):
        record = coco_val.images[i]
        assert not record.iscrowd[person]
        assert record.visibility[person].any()
        np.testing.assert_array_equal(bbox, np.float32(record.bboxes[person]))


def test_detector_boxes_belong_to_nobody(shared_data, coco_val):
    path = shared_data / "coco/detections/person_detections_val2017_centernet.json"
    boxes = load_boxes(coco_val, path)
    assert len(boxes) == 2038
    assert (boxes.person_index == -1).all()


def test_perfect_poses_on_coco(coco_val, union_pose):
    boxes = load_boxes(coco_val, "gt")
    poses = union_pose(COCO, annotated_poses(coco_val, boxes))
    metrics, results = evaluate(
        PosePredictions(coco_val, boxes, poses, np.ones(poses.shape[:2]), UNION)
    )
    assert metrics == dict.fromkeys(METRICS, 1.0)
    assert len(results) == 400
    assert all(result["score"] == 1 for result in results)


def test_noisy_poses_on_coco_score_as_the_result_file(coco_val):
    rng = np.random.default_rng(0)
    boxes = load_boxes(coco_val, "gt")
    poses = annotated_poses(coco_val, boxes) + rng.normal(0, 5, (400, 17, 2))
    scores = rng.uniform(size=(400, 17))
    metrics, results = scored(coco_val, boxes, poses, scores, COCO)
    assert 0.1 < metrics["AP"] < 0.9
    assert metrics == coco_ap(coco_val.annotations, results)
    expected = [s[s > 0.2].mean() for s in scores]
    np.testing.assert_allclose([r["score"] for r in results], expected, atol=1e-6)


def test_a_part_of_a_dataset(coco_val):
    part = dataclasses.replace(coco_val, images=coco_val.images[:20])
    boxes = load_boxes(part, "gt")
    metrics, _ = evaluate(
        PosePredictions(part, boxes, annotated_poses(part, boxes), np.ones((len(boxes), 17)), COCO)
    )
    assert metrics["AP"] == metrics["AR"] == 1


def test_a_pose_that_is_all_nan_is_a_miss(coco_val, caplog):
    boxes = load_boxes(coco_val, "gt")
    poses = annotated_poses(coco_val, boxes)
    poses[:100] = np.nan
    metrics, results = scored(coco_val, boxes, poses, np.ones((400, 17)), COCO)
    assert len(results) == 300
    assert metrics["AR"] == pytest.approx(0.75)
    assert "100 boxes have no pose" in caplog.text
    poses[200, 3] = np.nan
    with pytest.raises(UserError, match="not a finite number"):
        scored(coco_val, boxes, poses, np.ones((400, 17)), COCO)


def test_nothing_found_is_zero(coco_val, write):
    boxes = load_boxes(coco_val, write([]))
    metrics, results = evaluate(
        PosePredictions(coco_val, boxes, np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO)
    )
    assert metrics == dict.fromkeys(METRICS, 0.0)
    assert results == []


def test_mpii_is_scored_by_pckh(shared_data, union_pose):
    dataset = read_mpii(shared_data / "mpii", "valid")
    boxes = load_boxes(dataset, "gt")
    rng = np.random.default_rng(0)
    gt = annotated_poses(dataset, boxes)
    poses = gt + rng.normal(0, 10, gt.shape)
    metrics, results = evaluate(
        PosePredictions(dataset, boxes, union_pose(MPII, poses), np.ones((len(boxes), 21)), UNION)
    )
    visibility = np.concatenate([p.visibility for p in dataset.images])
    head_sizes = np.concatenate([p.head_sizes for p in dataset.images])
    labeled = visibility.any(-1)
    expected = pckh(poses, gt, visibility[labeled] > 0, head_sizes[labeled])
    assert metrics == expected
    assert 5 < metrics["PCKh"] < 95
    assert results[0]["image_id"] == dataset.images[0].image_id
    assert len(results[0]["keypoints"]) == 48


def test_lsp_measures_heads_itself(make_dataset):
    people = np.zeros((1, 14, 2))
    people[0, LSP.index("head_top")] = (0, 40)
    dataset = make_dataset(LSP, [people])
    boxes = load_boxes(dataset, "gt")
    poses = people + np.array([19.9, 0])
    assert scored(dataset, boxes, poses, np.ones((1, 14)), LSP)[0]["PCKh"] == 100
    assert scored(dataset, boxes, poses + 1, np.ones((1, 14)), LSP)[0]["PCKh"] == 0


def test_mpii_on_a_detectors_boxes_is_scored_by_map(make_dataset, write):
    """Two people. The first is found twice, which NMS fixes; the second is not found."""
    rng = np.random.default_rng(0)
    people = rng.uniform(0, 100, (2, 16, 2)) + np.array([[[0, 0]], [[300, 0]]])
    dataset = make_dataset(MPII, [people], head_size=20)
    box = {"image_id": "p0.jpg", "category_id": 1, "bbox": [0, 0, 100, 100]}
    boxes = load_boxes(dataset, write([box | {"score": s} for s in (0.9, 0.8)]))
    poses, scores = np.repeat(people[:1], 2, 0), np.repeat([[0.9], [0.8]], 16, 1)
    before, both = scored(dataset, boxes, poses, scores, MPII)
    after, one = evaluate(
        PosePredictions(dataset, boxes, poses, scores, MPII), open_nms("oks", MPII)
    )
    assert list(before) == ["mAP", "mAP_strict", *COLUMNS]
    assert (
        before["mAP"] == after["mAP"] == 50
    )  # a duplicate ranked below the correct pose costs nothing
    assert (len(both), len(one)) == (2, 1)
    scores[1] = 0.95
    poses[1] += 1000
    assert scored(dataset, boxes, poses, scores, MPII)[0]["mAP"] == 25


def test_both_counts_of_people_in_images_without_poses(make_dataset, write):
    people = np.random.default_rng(0).uniform(0, 100, (1, 16, 2))
    dataset = make_dataset(MPII, [people, people], head_size=20)
    box = {"image_id": "p0.jpg", "category_id": 1, "bbox": [0, 0, 100, 100], "score": 0.9}
    metrics, _ = scored(dataset, load_boxes(dataset, write([box])), people, np.ones((1, 16)), MPII)
    assert (metrics["mAP"], metrics["mAP_strict"]) == (100, 50)


def test_pckh_needs_the_person_of_each_box(make_dataset, write):
    dataset = make_dataset(LSP, [np.zeros((1, 14, 2))])
    box = {"image_id": "p0.jpg", "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}
    boxes = load_boxes(dataset, write([box]))
    with pytest.raises(UserError, match=r"^test/set: PCKh needs .* ground-truth boxes"):
        scored(dataset, boxes, np.zeros((1, 14, 2)), np.ones((1, 14)), LSP)


def test_a_network_without_the_joints(make_dataset):
    dataset = make_dataset(LSP, [np.zeros((1, 14, 2))])
    with pytest.raises(UserError, match=r"^a network with coco joints has no upper_neck, head_top"):
        evaluate(
            PosePredictions(
                dataset, load_boxes(dataset, "gt"), np.zeros((1, 17, 2)), np.ones((1, 17)), COCO
            )
        )


def test_a_joint_set_without_protocol(make_dataset):
    dataset = make_dataset(UNION, [np.zeros((1, 21, 2))])
    with pytest.raises(UserError, match="no metric for union joints"):
        evaluate(
            PosePredictions(
                dataset,
                load_boxes(dataset, "gt"),
                np.zeros((1, 21, 2)),
                np.ones((1, 21)),
                UNION,
            )
        )
