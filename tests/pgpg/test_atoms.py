import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.errors import UserError
from rmpe_jax.pgpg.atoms import (
    ATOMS,
    MIN_TORSO_FRACTION,
    align,
    fit_atoms,
    mask_with_nan,
    nearest_atoms,
    to_atom_joints,
)
from rmpe_jax.skeletons import COCO, MPII, UNION

K = ATOMS.num_keypoints
J = {joint: i for i, joint in enumerate(ATOMS.joints)}


def random_poses(seed, n, missing=0.0):
    rng = np.random.default_rng(seed)
    poses = rng.uniform(0, 200, (n, K, 2))
    poses[rng.random((n, K)) < missing] = np.nan
    return poses


def torso(pose):
    """(middle of shoulders, middle of hips), as the definition has it."""
    pairs = [
        [pose[J[f"{side}_{part}"]] for side in ("left", "right")] for part in ("shoulder", "hip")
    ]
    return [np.nanmean(pair, axis=0) for pair in pairs]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.05, 50), x=st.floats(-500, 500))
def test_position_and_size_do_not_matter(seed, scale, x):
    poses = random_poses(seed, 4, missing=0.2)
    moved = align(scale * poses + np.array([x, -x]), ATOMS.joints)
    np.testing.assert_allclose(moved, align(poses, ATOMS.joints), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_torso_is_in_the_middle_and_of_length_one(seed):
    poses = random_poses(seed, 6, missing=0.15)
    for pose, aligned in zip(poses, align(poses, ATOMS.joints), strict=True):
        pairs = [
            [J[f"{side}_{part}"] for side in ("left", "right")] for part in ("shoulder", "hip")
        ]
        if any(np.isnan(pose[pair]).all() for pair in pairs):
            assert np.isnan(aligned).all()
            continue
        np.testing.assert_array_equal(np.isnan(aligned), np.isnan(pose))
        shoulders, hips = torso(aligned)
        np.testing.assert_allclose((shoulders + hips) / 2, 0, atol=1e-9)
        farthest = np.nanmax(np.linalg.norm(aligned, axis=-1))
        length = np.linalg.norm(shoulders - hips)
        assert length == pytest.approx(1) or MIN_TORSO_FRACTION * farthest == pytest.approx(1)
        assert length <= 1 + 1e-9


def test_one_shoulder_stands_for_both():
    pose = random_poses(0, 1)
    pose[0, J["left_shoulder"]] = np.nan
    both = pose.copy()
    both[0, J["left_shoulder"]] = both[0, J["right_shoulder"]]
    seen = ~np.isnan(pose)
    np.testing.assert_allclose(align(pose, ATOMS.joints)[seen], align(both, ATOMS.joints)[seen])


def test_a_torso_seen_from_its_end_is_not_blown_up():
    pose = np.zeros((1, K, 2))
    pose[0, J["left_ankle"]] = 30, 40
    aligned = align(pose, ATOMS.joints)
    np.testing.assert_allclose(
        aligned[0, J["left_ankle"]], np.array([0.6, 0.8]) / MIN_TORSO_FRACTION
    )


def test_poses_without_any_extent_have_no_frame():
    nothing = np.full((1, K, 2), np.nan)
    assert np.isnan(align(nothing, ATOMS.joints)).all()
    assert np.isnan(align(np.ones((1, K, 2)), ATOMS.joints)).all()


@pytest.mark.parametrize("skeleton", [COCO, MPII, UNION])
def test_joints_go_by_name(skeleton):
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, 9, (2, skeleton.num_keypoints, 2))
    visibility = rng.integers(0, 3, (2, skeleton.num_keypoints))
    poses = to_atom_joints(mask_with_nan(keypoints, visibility), skeleton)
    for joint, index in J.items():
        for person in range(2):
            known = joint in skeleton.joints and visibility[person, skeleton.index(joint)] > 0
            expected = keypoints[person, skeleton.index(joint)] if known else [np.nan] * 2
            np.testing.assert_array_equal(poses[person, index], expected)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 5), a=st.integers(0, 6))
def test_nearest_atom_by_loops(seed, n, a):
    poses, atoms = random_poses(seed, n, missing=0.3), random_poses(seed + 1, a)
    atoms[:, 3] = np.nan  # a joint that the atoms do not have
    found = nearest_atoms(poses, atoms)
    for pose, index in zip(poses, found, strict=True):
        distances = [np.nansum((pose - atom) ** 2) for atom in atoms]
        if not a or np.isnan(np.delete(pose, 3, axis=0)).all():
            assert index == a
        else:
            assert distances[index] == pytest.approx(min(distances))


def planted(seed=0, counts=(200, 100, 50), noise=0.05, missing=0.2):
    """Aligned poses about three centers, with joints missing; and the centers."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-2, 2, (3, K, 2))
    poses = np.concatenate(
        [
            center + rng.normal(0, noise, (n, K, 2))
            for center, n in zip(centers, counts, strict=True)
        ]
    )
    poses[rng.random(poses.shape[:2]) < missing] = np.nan
    return rng.permutation(poses), centers


def test_finds_planted_poses_the_commonest_first():
    poses, centers = planted()
    np.testing.assert_allclose(fit_atoms(poses, 3), centers, atol=0.05)


def test_atoms_are_the_means_of_the_joints_that_are_there():
    poses, _ = planted(noise=0.8)
    atoms = fit_atoms(poses, 3)
    label = nearest_atoms(poses, atoms)
    means = [np.nanmean(poses[label == i], axis=0) for i in range(3)]
    np.testing.assert_allclose(atoms, means, atol=1e-9)


def test_joints_that_nobody_has_stay_unknown():
    poses, centers = planted()
    poses[:, 5] = np.nan
    atoms = fit_atoms(poses, 3)
    assert np.isnan(atoms[:, 5]).all()
    np.testing.assert_allclose(np.delete(atoms, 5, 1), np.delete(centers, 5, 1), atol=0.05)


def test_poses_without_frame_do_not_count_and_the_seed_decides():
    poses, _ = planted()
    with_blank = np.concatenate([poses, np.full((40, K, 2), np.nan)])
    np.testing.assert_array_equal(fit_atoms(with_blank, 3, seed=4), fit_atoms(poses, 3, seed=4))


def test_too_few_poses():
    with pytest.raises(UserError, match="2 poses do not make 3 atoms"):
        fit_atoms(random_poses(0, 2), 3)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UserError, match=r"pip install 'rmpe_jax\[fit\]'"):
        fit_atoms(random_poses(0, 5), 3)
