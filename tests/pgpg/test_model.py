import dataclasses

import numpy as np
import pytest
import scipy.stats

from rmpe_jax.errors import UserError
from rmpe_jax.pgpg.model import (
    PgpgModel,
    boxes_from_offsets,
    global_model,
    load_pgpg,
    log_likelihood,
    mixture_rows,
    offsets_from_boxes,
    save_pgpg,
)
from rmpe_jax.skeletons import COCO, LSP, UNION


@pytest.fixture
def model():
    """Two atoms, three Gaussians, the last of which the second row does not have."""
    rng = np.random.default_rng(0)
    root = rng.normal(0, 0.1, (3, 3, 4, 4))
    return PgpgModel(
        joints=LSP.joints,
        atoms=rng.uniform(-2, 2, (2, 14, 2)),
        weights=np.array([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]]),
        means=rng.normal(0, 0.1, (3, 3, 4)),
        covariances=root @ root.swapaxes(-1, -2) + 1e-3 * np.eye(4),
    )


def people(model, rng, n):
    """People whose poses are the atoms of their row, blown up; the last row's have no torso."""
    rows = rng.integers(0, 3, n)
    atoms = np.concatenate([model.atoms, model.atoms[:1]])
    poses = atoms[rows] * rng.uniform(20, 90, (n, 1, 1)) + rng.uniform(0, 300, (n, 1, 2))
    hips = [LSP.index("left_hip"), LSP.index("right_hip")]
    poses[np.ix_(np.flatnonzero(rows == 2), hips)] = np.nan
    return rows, poses


def test_offsets_by_hand():
    gt, box = np.array([[100.0, 200, 150, 400]]), np.array([[90.0, 210, 160, 380]])
    np.testing.assert_allclose(offsets_from_boxes(box, gt), [[-0.2, 0.05, 0.2, -0.1]])
    np.testing.assert_allclose(boxes_from_offsets(offsets_from_boxes(box, gt), gt), box)


def test_rows_are_those_of_the_nearest_atom(model):
    # Aligned atoms: what the poses made of them come back to.
    rng = np.random.default_rng(1)
    from rmpe_jax.pgpg.atoms import align

    model = dataclasses.replace(model, atoms=align(model.atoms, model.joints))
    rows, poses = people(model, rng, 50)
    np.testing.assert_array_equal(mixture_rows(model, poses), rows)


def test_invisible_joints_count_as_unknown(model):
    poses = np.random.default_rng(0).uniform(0, 99, (5, 14, 2))
    visibility = np.full((5, 14), 2)
    visibility[:, [LSP.index("left_shoulder"), LSP.index("right_shoulder")]] = 0
    np.testing.assert_array_equal(mixture_rows(model, poses, visibility), 2)
    assert (mixture_rows(model, poses) < 2).all()


@pytest.mark.parametrize("skeleton", [COCO, UNION])
def test_other_skeletons_have_the_same_rows(model, skeleton):
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, 99, (30, skeleton.num_keypoints, 2))
    shared = [skeleton.joints.index(j) if j in skeleton.joints else -1 for j in LSP.joints]
    poses = np.where((np.array(shared) >= 0)[:, None], keypoints[:, shared], np.nan)
    there = model.for_skeleton(skeleton)
    assert there.joints == skeleton.joints
    np.testing.assert_array_equal(mixture_rows(there, keypoints), mixture_rows(model, poses))
    back = there.for_skeleton(LSP)
    known = np.array(shared) >= 0
    np.testing.assert_array_equal(back.atoms[:, known], model.atoms[:, known])


def test_likelihood_is_that_of_the_mixtures(model):
    rng = np.random.default_rng(2)
    poses = rng.uniform(0, 99, (40, 14, 2))
    poses[::3, [2, 3]] = np.nan
    offsets = rng.normal(0, 0.2, (40, 4))
    expected = []
    for row, offset in zip(mixture_rows(model, poses), offsets, strict=True):
        parts = zip(model.weights[row], model.means[row], model.covariances[row], strict=True)
        density = sum(w * scipy.stats.multivariate_normal(m, c).pdf(offset) for w, m, c in parts)
        expected.append(np.log(density))
    np.testing.assert_allclose(log_likelihood(model, poses, offsets), expected, atol=1e-9)


def test_the_global_model_is_one_gaussian_for_every_pose():
    model = global_model()
    offsets = np.random.default_rng(0).normal(0, 0.1, (9, 4))
    expected = scipy.stats.norm(model.means[0, 0], [0.1158, 0.0680, 0.1337, 0.0711]).logpdf(offsets)
    poses = np.full((9, 17, 2), np.nan)
    np.testing.assert_allclose(log_likelihood(model, poses, offsets), expected.sum(-1))


def test_saves_and_loads(model, tmp_path):
    path = tmp_path / "new" / "model.npz"
    save_pgpg(path, model)
    loaded = load_pgpg(path)
    assert loaded.joints == model.joints
    for field in dataclasses.fields(model)[1:]:
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(model, field.name))
    assert [file.name for file in path.parent.iterdir()] == ["model.npz"]
    save_pgpg(path, global_model())
    assert len(load_pgpg(path).atoms) == 0


def test_a_place_that_cannot_be_written(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_pgpg(tmp_path / "file" / "model.npz", model)


def test_files_that_are_no_model(model, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_pgpg(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not a model")
    with pytest.raises(UserError, match="not a PGPG model"):
        load_pgpg(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", joints=np.zeros(3))
    with pytest.raises(UserError, match="not a PGPG model"):
        load_pgpg(tmp_path / "other.npz")
    save_pgpg(tmp_path / "whole.npz", model)
    half = (tmp_path / "whole.npz").read_bytes()[:900]
    (tmp_path / "half.npz").write_bytes(half)
    with pytest.raises(UserError, match="not a PGPG model"):
        load_pgpg(tmp_path / "half.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.ones((3, 3))},
        {"weights": np.ones((2, 1))},
        {"means": np.zeros((3, 2, 4))},
        {"means": np.full((3, 3, 4), np.nan)},
        {"joints": COCO.joints},
        {"covariances": -np.tile(np.eye(4), (3, 3, 1, 1))},
    ],
)
def test_models_that_do_not_hold_together(model, change, tmp_path):
    np.savez(tmp_path / "model.npz", **(dataclasses.asdict(model) | change))
    with pytest.raises(UserError, match="write it again"):
        load_pgpg(tmp_path / "model.npz")


def test_poses_of_another_skeleton(model):
    with pytest.raises(UserError, match="poses have 17 joints, the model has 14: call for_"):
        mixture_rows(model, np.zeros((1, 17, 2)))
