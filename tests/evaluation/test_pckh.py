"""PCKh by hand, and against the formula written as loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.pckh import head_sizes_from_keypoints, pckh
from rmpe_jax.skeletons import COCO, LSP, MPII


def loops(keypoints, gt, annotated, head_sizes, skeleton, threshold):
    """MPII's single-person evaluation, joint by joint."""
    correct, count = {}, {}
    for i, head_size in enumerate(head_sizes):
        if not head_size > 0:
            continue
        for j, joint in enumerate(skeleton.joints):
            if annotated[i, j] and joint not in ("pelvis", "thorax"):
                distance = np.hypot(*(keypoints[i, j] - gt[i, j])) / head_size
                correct[joint] = correct.get(joint, 0) + (distance <= threshold)
                count[joint] = count.get(joint, 0) + 1
    columns = {}
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        columns[part.capitalize()] = [f"left_{part}", f"right_{part}"]
    values = {}
    for name, joints in {"Head": ["upper_neck", "head_top"], **columns}.items():
        known = [100 * correct[j] / count[j] for j in joints if j in count]
        values[name] = np.mean(known) if known else np.nan
    total = 100 * sum(correct.values()) / sum(count.values()) if count else np.nan
    return {**values, "PCKh": total}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 8),
    skeleton=st.sampled_from([MPII, LSP]),
    threshold=st.sampled_from([0.1, 0.5]),
)
def test_equals_loops(seed, n, skeleton, threshold):
    rng = np.random.default_rng(seed)
    k = skeleton.num_keypoints
    gt = rng.uniform(0, 300, (n, k, 2))
    keypoints = gt + rng.normal(0, 12, (n, k, 2))
    keypoints[rng.uniform(size=(n, k)) < 0.1] = np.nan
    annotated = rng.uniform(size=(n, k)) < 0.7
    head_sizes = rng.choice([20.0, 35.0, 0.0, np.nan], n)
    ours = pckh(keypoints, gt, annotated, head_sizes, threshold, skeleton)
    expected = loops(keypoints, gt, annotated, head_sizes, skeleton, threshold)
    assert list(ours) == list(expected)
    np.testing.assert_allclose(list(ours.values()), list(expected.values()))


def one_person(misses):
    """All joints correct except `misses`; head size 20."""
    gt = np.zeros((1, 16, 2))
    keypoints = gt.copy()
    for joint in misses:
        keypoints[0, MPII.index(joint)] = (10.01, 0)
    return keypoints, gt, np.ones((1, 16), bool), np.array([20.0])


def test_by_hand():
    values = pckh(*one_person(["left_wrist", "head_top", "pelvis", "thorax"]))
    expected = dict.fromkeys(("Shoulder", "Elbow", "Hip", "Knee", "Ankle"), 100.0)
    # 12 of 14 joints: pelvis and thorax do not count.
    assert values == {"Head": 50.0, **expected, "Wrist": 50.0, "PCKh": pytest.approx(100 * 12 / 14)}


def test_a_column_is_the_mean_over_its_joints_not_over_annotations():
    # Left wrist: annotated twice, correct once. Right wrist: annotated once, correct.
    keypoints, gt, annotated, heads = (np.repeat(a, 2, 0) for a in one_person(["left_wrist"]))
    keypoints[1] = 0
    annotated[0, MPII.index("right_wrist")] = False
    values = pckh(keypoints, gt, annotated, heads)
    assert values["Wrist"] == 75.0
    assert values["PCKh"] == pytest.approx(100 * 26 / 27)


def test_exactly_half_a_head_is_correct():
    keypoints, gt, annotated, heads = one_person([])
    keypoints[:, :, 0] = 10.0
    assert pckh(keypoints, gt, annotated, heads)["PCKh"] == 100
    keypoints[:, :, 0] = 10.001
    assert pckh(keypoints, gt, annotated, heads)["PCKh"] == 0
    assert pckh(keypoints, gt, annotated, heads, threshold=0.6)["PCKh"] == 100


def test_nan_is_a_miss():
    keypoints, gt, annotated, heads = one_person([])
    keypoints[0, MPII.index("left_knee")] = np.nan
    values = pckh(keypoints, gt, annotated, heads)
    assert values["Knee"] == 50
    assert values["PCKh"] == pytest.approx(100 * 13 / 14)


def test_people_without_head_size_are_skipped_and_counted(caplog):
    one = one_person([])
    keypoints, gt, annotated, heads = (np.repeat(a, 4, 0) for a in one)
    keypoints[1:] = 1e6
    heads[1:] = [np.nan, 0, -3]
    assert pckh(keypoints, gt, annotated, heads) == pckh(*one)
    assert "3 people have no head size" in caplog.text


def test_nothing_annotated_is_nan():
    keypoints, gt, annotated, heads = one_person([])
    annotated[:, [MPII.index("left_hip"), MPII.index("right_hip")]] = False
    values = pckh(keypoints, gt, annotated, heads)
    assert np.isnan(values["Hip"])
    assert values["PCKh"] == 100
    assert all(np.isnan(v) for v in pckh(keypoints, gt, annotated & False, heads).values())


def test_head_sizes_from_keypoints():
    keypoints = np.zeros((2, 14, 2))
    keypoints[:, LSP.index("head_top")] = (3, 4)
    annotated = np.ones((2, 14), bool)
    annotated[1, LSP.index("upper_neck")] = False
    np.testing.assert_array_equal(
        head_sizes_from_keypoints(keypoints, annotated, LSP), [5.0, np.nan]
    )


def test_poses_of_another_skeleton_are_refused():
    people = np.zeros((2, 17, 2)), np.zeros((2, 17, 2)), np.ones((2, 17), bool), np.ones(2)
    with pytest.raises(UserError, match="PCKh: predictions have 17 joints, skeleton 'mpii' has 16"):
        pckh(*people)
    with pytest.raises(UserError, match="'coco' has no joint 'upper_neck'"):
        pckh(*people, skeleton=COCO)
    with pytest.raises(UserError, match="poses have 17 joints, skeleton 'lsp' has 14"):
        head_sizes_from_keypoints(people[0], people[2], LSP)
