"""Mean signed errors in crop pixels, which show a wrong alignment of heatmaps."""

import dataclasses
import json

import bright
import numpy as np
import pytest
from tiny_sets import write_coco

from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.evaluation.offsets import joint_offsets, warn_of_offset
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.experiments.evaluate import evaluate_pose_model, metrics_table
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import COCO

CROP = CropSpec((64, 48), padding=1.25)
# Boxes of `make_dataset` are 100 x 100: the short side is the crop's width.
PIXEL = 1.25 * 100 / 48  # image pixels per crop pixel


@pytest.fixture
def predictions(make_dataset):
    rng = np.random.default_rng(0)
    people = [rng.uniform(0, 100, (3, 17, 2)), rng.uniform(0, 100, (2, 17, 2))]
    dataset = make_dataset(COCO, people)
    boxes = load_boxes(dataset, "gt")
    keypoints = np.concatenate(people).astype(np.float32)
    return PosePredictions(dataset, boxes, keypoints, np.ones((5, 17), np.float32), COCO)


def moved(predictions, offsets):
    return dataclasses.replace(predictions, keypoints=predictions.keypoints + np.float32(offsets))


def test_an_offset_is_found_in_crop_pixels(predictions):
    found = joint_offsets(moved(predictions, PIXEL * np.array([0.5, -0.25])), CROP)
    np.testing.assert_allclose(found.mean, [0.5, -0.25], atol=1e-4)
    np.testing.assert_allclose(found.by_joint, np.tile([0.5, -0.25], (17, 1)), atol=1e-4)
    np.testing.assert_array_equal(found.counts, 5)


def test_mistakes_do_not_count(predictions):
    """Farther than 3 % of 64 crop pixels, not predicted, or not labeled."""
    offsets = np.tile(PIXEL * np.array([1.0, 0.0]), (5, 17, 1))
    offsets[0, :, 0] = 2.0 * PIXEL
    offsets[1, 4] = np.nan
    predictions.dataset.images[1].visibility[0, 7] = 0
    offsets[3, 7, 0] = -1.9 * PIXEL
    found = joint_offsets(moved(predictions, offsets), CROP)
    np.testing.assert_allclose(found.mean, [1, 0], atol=1e-4)
    expected = np.full(17, 4)
    expected[[4, 7]] = 3
    np.testing.assert_array_equal(found.counts, expected)


def test_nobody_near_gives_nan_and_no_warning(predictions, caplog):
    found = joint_offsets(moved(predictions, 50.0), CROP)
    assert np.isnan(found.mean).all()
    assert np.isnan(found.by_joint).all()
    warn_of_offset("set", found)
    assert not caplog.messages


def test_boxes_of_a_detector_are_left_out(predictions):
    boxes = dataclasses.replace(predictions.boxes, person_index=np.array([-1, 1, -1, -1, 1]))
    found = joint_offsets(dataclasses.replace(predictions, boxes=boxes), CROP)
    np.testing.assert_array_equal(found.counts, 2)


@pytest.mark.parametrize(("offset", "warns"), [(0.24, False), (-0.26, True)])
def test_the_warning(predictions, caplog, offset, warns):
    found = joint_offsets(moved(predictions, PIXEL * np.array([0.0, offset])), CROP)
    warn_of_offset("set", found)
    assert ["lie +0.00 crop pixels aside in x and -0.26 in y" in m for m in caplog.messages] == (
        [True] * warns
    )


@pytest.mark.usefixtures("bright_network")
def test_rmpe_eval_reports_it(tmp_path):
    data = f"coco:{write_coco(tmp_path / 'data')}:mini"
    metrics = evaluate_pose_model(bright.pose_model(), data, "gt", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(written["offsets"]) == list(COCO.joints)
    assert ("offset_x" in metrics) == ("offset_x" in written)
    rows = {"a": {"AP": 0.5}, "b": {"AP": 0.25, "offset_x": 0.249}}
    assert metrics_table(rows).splitlines()[2:] == ["| a | 0.500 | - |", "| b | 0.250 | +0.25 |"]
