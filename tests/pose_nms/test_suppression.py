"""Pose NMS against NumPy written from the sources' rules, golden values, and its invariances."""

import functools

import jax
import jax.numpy as jnp
import nms_reference
import numpy as np
import pytest
from scenes import random_scenes

from rmpe_jax.errors import UserError
from rmpe_jax.pose_nms import PoseCandidates, PoseNmsParams, pose_nms, pose_nms_batch
from rmpe_jax.skeletons import COCO, COCO_WHOLEBODY, HALPE26, HALPE136

PRESETS = ("paper", "rmpe", "alphapose")
jitted = jax.jit(pose_nms, static_argnames="skeleton")
over_images = jax.jit(jax.vmap(pose_nms, (0, 0, 0, 0, 0, None)))


def compare(found, scene, reference):
    """Assert that one image's result is the reference's; False if the reference is undecided."""
    index = np.flatnonzero(scene.valid)
    values = [np.asarray(column, np.float64)[index] for column in scene[:4]]
    kept, clusters, margin = reference(*values)
    if margin < 1e-4:
        return False
    expected = np.full(len(scene.valid), -1)
    expected[index] = index[clusters]
    np.testing.assert_array_equal(found.cluster, expected)
    np.testing.assert_array_equal(np.flatnonzero(found.keep), sorted(index[i] for i in kept))
    for i, (keypoints, joint_scores, score) in kept.items():
        np.testing.assert_allclose(found.keypoints[index[i]], keypoints, atol=1e-3, rtol=0)
        np.testing.assert_allclose(found.keypoint_scores[index[i]], joint_scores, atol=1e-5)
        np.testing.assert_allclose(found.scores[index[i]], score, atol=1e-5)
    return True


@pytest.mark.parametrize("preset", PRESETS)
def test_equals_numpy_on_random_and_degenerate_scenes(preset):
    scenes = random_scenes(0, 400)
    found = jax.device_get(over_images(*scenes, PoseNmsParams.preset(preset)))
    reference = getattr(nms_reference, preset)
    decided = [
        compare(*(jax.tree.map(lambda v, i=i: v[i], tree) for tree in (found, scenes)), reference)
        for i in range(len(scenes.valid))
    ]
    assert np.mean(decided) > 0.995
    # Nothing in the test is trivial: poses are kept, eliminated, and absent.
    assert 0.2 < found.keep[scenes.valid].mean() < 0.9
    assert not scenes.valid.any(-1).all()


def candidates(keypoints, keypoint_scores, side=100.0):
    """Candidates in boxes of one size, with box scores .5."""
    n = len(keypoints)
    keypoints = np.asarray(keypoints, np.float32)
    scores = np.broadcast_to(np.asarray(keypoint_scores, np.float32), keypoints.shape[:2])
    bboxes = np.tile(np.float32([0, 0, side, side / 2]), (n, 1))
    return keypoints, scores, bboxes, np.full(n, 0.5, np.float32), np.ones(n, bool)


def two_poses(offset, k, num_moved=None, first=0.9, second=0.8, side=100.0):
    """A pose, and the same with its first `num_moved` joints `offset` pixels to the right."""
    pose = np.stack([np.arange(k) * 50.0, np.zeros(k)], -1)
    moved = pose.copy()
    moved[:num_moved, 0] += offset
    return candidates([pose, moved], [[first] * k, [second] * k], side)


def run(arguments, preset, skeleton=None):
    return jax.device_get(jitted(*arguments, PoseNmsParams.preset(preset), skeleton))


def test_the_release_cuts_at_one_reference():
    assert run(two_poses(10.0, 16), "rmpe").keep.tolist() == [True, False]
    assert run(two_poses(10.001, 16), "rmpe").keep.tolist() == [True, True]


@pytest.mark.parametrize(("coincident", "far", "kept"), [(8, 1e4, 1), (7, 1e4, 2), (6, 30, 1)])
def test_the_release_needs_eight_coincident_joints(coincident, far, kept):
    found = run(two_poses(far, 16, num_moved=16 - coincident), "rmpe")
    assert found.keep.sum() == kept


def test_alphapose_needs_five_joints():
    assert run(two_poses(500, 17, num_moved=13), "alphapose").keep.sum() == 2
    assert run(two_poses(500, 17, num_moved=12), "alphapose").keep.sum() == 1


def test_alphapose_cuts_at_seven_pixels():
    assert run(two_poses(7.0, 17), "alphapose").keep.sum() == 1
    assert run(two_poses(7.01, 17), "alphapose").keep.sum() == 2
    assert run(two_poses(6.0, 17, side=50.0), "alphapose").keep.sum() == 2  # beyond a reference


def test_alphapose_merges_by_score():
    arguments = two_poses(3.0, 17)
    found = run(arguments, "alphapose")
    shift = found.keypoints[0] - arguments[0][0]
    np.testing.assert_allclose(shift, np.tile([1.4118, 0], (17, 1)), atol=1e-4)
    np.testing.assert_allclose(found.keypoint_scores[0], 0.85294, atol=1e-5)
    np.testing.assert_allclose(found.scores[0], 0.85294 + 0.5 + 1.25 * 0.85294, atol=1e-4)
    assert found.cluster.tolist() == [0, 0]
    assert not found.keypoints[1].any()
    assert found.scores[1] == 0


def test_the_release_merges_by_score_and_keeps_the_greatest():
    arguments = two_poses(3.0, 16)
    found = run(arguments, "rmpe")
    np.testing.assert_allclose(found.keypoints[0, :, 0] - arguments[0][0, :, 0], 1.4118, atol=1e-4)
    np.testing.assert_allclose(found.keypoint_scores[0], 0.9, rtol=1e-6)
    np.testing.assert_allclose(found.scores[0], 0.9, rtol=1e-6)


def test_the_paper_merges_nothing():
    arguments = two_poses(1.0, 17)
    found = run(arguments, "paper")
    assert found.keep.tolist() == [True, False]
    np.testing.assert_array_equal(found.keypoints[0], arguments[0][0])
    np.testing.assert_allclose(found.scores[0], 0.9 * 0.5, rtol=1e-6)


def test_alphapose_drops_people_without_a_sure_joint():
    found = run(two_poses(500.0, 17, first=0.9, second=0.29), "alphapose")
    assert found.keep.tolist() == [True, False]
    assert found.cluster.tolist() == [0, 1]


def test_equal_confidence_goes_to_the_first():
    assert run(two_poses(1.0, 17, first=0.5, second=0.5), "rmpe").keep.tolist() == [True, False]


@pytest.mark.parametrize("preset", PRESETS)
def test_nobody(preset):
    empty = [np.full_like(column, np.nan) for column in two_poses(1.0, 17)[:4]]
    found = run((*empty, np.zeros(2, bool)), preset)
    assert not found.keep.any()
    assert found.cluster.tolist() == [-1, -1]
    assert all(np.isfinite(value).all() for value in found)


@pytest.mark.parametrize("preset", PRESETS)
def test_order_of_proposals_does_not_matter(preset):
    scenes = random_scenes(1, 1200)
    permutation = np.random.default_rng(0).permutation(scenes.valid.shape[1])
    permuted = type(scenes)(*(column[:, permutation] for column in scenes))
    params = PoseNmsParams.preset(preset)
    found, again = (jax.device_get(over_images(*s, params)) for s in (scenes, permuted))
    # Equal confidence is decided by order, so leave out images that have it.
    totals = np.where(scenes.valid, scenes.keypoint_scores.sum(-1), -1 - np.arange(10))
    distinct = np.array([len(np.unique(row)) == len(row) for row in totals])
    assert distinct.mean() > 0.3
    for before, after in zip(found[:4], again[:4], strict=True):
        np.testing.assert_allclose(before[:, permutation][distinct], after[distinct], atol=1e-4)


def test_gradients_reach_the_merged_joints_and_are_finite():
    arguments = [jnp.asarray(argument) for argument in two_poses(3.0, 17)]

    def total(keypoints):
        params = PoseNmsParams.preset("rmpe")
        return pose_nms(keypoints, *arguments[1:], params).keypoints.sum()

    gradient = jax.jit(jax.grad(total))(arguments[0])
    np.testing.assert_allclose(gradient[:, :, 0], [[0.9 / 1.7] * 17, [0.8 / 1.7] * 17], rtol=1e-5)


@pytest.mark.parametrize(
    ("preset", "skeleton"),
    [
        *(("rmpe_body", skeleton) for skeleton in (COCO, HALPE26, COCO_WHOLEBODY)),
        *(("alphapose_whole_body", skeleton) for skeleton in (COCO_WHOLEBODY, HALPE136)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_whole_bodies_are_eliminated_as_in_numpy(preset, skeleton):
    """Poses, some of them others moved by a little, or with other faces, hands or bodies."""
    k = skeleton.num_keypoints
    rng = np.random.default_rng(k)
    decided = kept = 0
    for _ in range(12):
        bases = rng.uniform(0, 300, (3, k, 2))
        poses = bases[rng.integers(0, 3, 8)] + rng.uniform(0, 6, (8, 1, 1)) * rng.normal(
            size=(8, k, 2)
        )
        elsewhere = rng.random((8, 3)) < 0.2
        sizes = [k - 110, 68, 42] if k > 110 else [17, 0, k - 17]
        poses[np.repeat(elsewhere, sizes, axis=1)] += 500
        scores = rng.uniform(0, 1, (8, k)) * (rng.random((8, k)) < 0.95)
        corner = rng.uniform(0, 50, (8, 2))
        bboxes = np.concatenate([corner, corner + rng.uniform(40, 300, (8, 2))], 1)
        columns = [np.float32(v) for v in (poses, scores, bboxes, rng.random(8))]
        found = run((*columns, np.ones(8, bool)), preset, skeleton)
        clusters, margin = getattr(nms_reference, preset)(*(v.astype(np.float64) for v in columns))
        if margin > 1e-4:
            np.testing.assert_array_equal(found.cluster, clusters)
            decided += 1
            kept += len(set(clusters))
    assert decided >= 11
    assert 1.2 < kept / decided < 7.8


def test_the_body_decides_and_all_joints_are_merged():
    """Hands far from each other neither save a pose from elimination nor are they merged."""
    (pose, moved), *rest = two_poses(4.0, 133, first=0.9, second=0.8)
    moved = moved.copy()
    moved[91:] += 1000
    found = run((np.stack([pose, moved]), *rest), "rmpe_body", COCO_WHOLEBODY)
    assert found.keep.tolist() == [True, False]
    np.testing.assert_allclose(found.keypoints[0, :91, 0] - pose[:91, 0], 4 * 0.8 / 1.7, atol=1e-3)
    np.testing.assert_allclose(found.keypoints[0, 91:], pose[91:])
    # With so many joints the release's threshold is too low: neighbors are eliminated too.
    apart = two_poses(30.0, 133)
    assert run(apart, "rmpe").keep.tolist() == [True, False]
    assert run(apart, "rmpe_body", COCO_WHOLEBODY).keep.tolist() == [True, True]


def test_parts_need_a_whole_body():
    with pytest.raises(UserError, match="a whole body, which skeleton 'coco' does not have"):
        run(two_poses(1.0, 17), "alphapose_whole_body", COCO)


@pytest.mark.parametrize("preset", ["rmpe_body", "alphapose_whole_body"])
def test_body_and_parts_need_a_skeleton_that_the_number_of_joints_may_tell(preset):
    with pytest.raises(UserError, match="needs to know the body parts: give the skeleton"):
        run(two_poses(1.0, 21), preset)
    found, expected = (run(two_poses(1.0, 133), preset, s) for s in (None, COCO_WHOLEBODY))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_skeleton_must_fit_the_poses():
    with pytest.raises(UserError, match="poses have 17 joints, skeleton 'halpe26' has 26"):
        run(two_poses(1.0, 17), "rmpe", HALPE26)


def test_batches_with_a_skeleton_are_each_image_alone():
    scenes = random_scenes(4, 3, k=133)
    params = PoseNmsParams.preset("alphapose_whole_body")
    found = pose_nms_batch(scenes, params, COCO_WHOLEBODY)
    one = jax.jit(jax.vmap(functools.partial(pose_nms, params=params, skeleton=COCO_WHOLEBODY)))
    for i in range(3):
        alone = one(*(column[i : i + 1] for column in PoseCandidates(*scenes)))
        for value, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(value[i], expected[0], atol=1e-4)


def test_by_default_the_body_decides_for_whole_bodies():
    """Five joints of the body within 7 pixels eliminate, whatever hands and face do."""
    assert PoseNmsParams.default(COCO) == PoseNmsParams.preset("alphapose")
    params = PoseNmsParams.default(COCO_WHOLEBODY)
    for num_moved, kept in ((13, 2), (12, 1)):
        scene = two_poses(500, 133, num_moved=num_moved)
        assert jax.device_get(jitted(*scene, params, COCO_WHOLEBODY)).keep.sum() == kept
        assert run(scene, "alphapose").keep.sum() == 1
