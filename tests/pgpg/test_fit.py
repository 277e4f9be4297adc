import sys

import numpy as np
import pytest
from boxed_people import people

from rmpe_jax.errors import UserError
from rmpe_jax.pgpg import fit as fit_module
from rmpe_jax.pgpg import fit_pgpg, sample_boxes
from rmpe_jax.pgpg.fit import (
    GLOBAL_WEIGHT,
    People,
    Samples,
    Selection,
    atomic_poses,
    fit_mixtures,
    match_detections,
    mirrored_offsets,
    select,
    split,
)
from rmpe_jax.pgpg.model import global_model, log_likelihood, mixture_rows, offsets_from_boxes
from rmpe_jax.skeletons import COCO, LSP


def samples_of(rng, n):
    poses, gt, det, _ = people(rng, n)
    return Samples(poses, offsets_from_boxes(det, gt), np.arange(n))


def people_of(samples):
    return People(samples.poses, samples.image_ids)


def test_each_box_goes_to_the_person_it_overlaps_most():
    gt = np.array([[0, 0, 10, 10], [8, 0, 18, 10], [0, 0, 10, 10]], np.float32)
    boxes = [[1, 0, 11, 10], [7, 0, 17, 10], [0, 1, 10, 11], [20, 0, 30, 10], [0, 0, 10, 30]]
    det = np.array(boxes, np.float32)
    person, box = match_detections(gt, det, np.array([4, 4, 7]), np.array([4, 4, 7, 4, 7]))
    assert list(zip(person, box, strict=True)) == [(0, 0), (1, 1), (2, 2), (2, 4)]
    person, box = match_detections(gt, det, np.array([4, 4, 7]), np.array([4, 4, 7, 4, 7]), 0.5)
    assert list(zip(person, box, strict=True)) == [(0, 0), (1, 1), (2, 2)]


def test_without_images_all_lie_in_one():
    gt = np.array([[0, 0, 10, 10], [30, 0, 40, 10]], np.float32)
    person, box = match_detections(gt, gt[::-1])
    assert list(zip(person, box, strict=True)) == [(1, 0), (0, 1)]
    person, _ = match_detections(gt, np.zeros((0, 4), np.float32))
    assert len(person) == 0
    with pytest.raises(ValueError, match="or neither"):
        match_detections(gt, gt, np.array([1, 1]))


def test_mirrored_offsets_are_those_of_mirrored_boxes():
    rng = np.random.default_rng(0)
    gt = np.array([[10.0, 20, 60, 140]])
    box = gt + rng.uniform(-9, 9, (5, 4))
    mirror = [-1, 1, -1, 1]
    mirrored = offsets_from_boxes((box * mirror)[:, [2, 1, 0, 3]], (gt * mirror)[:, [2, 1, 0, 3]])
    np.testing.assert_allclose(mirrored_offsets(offsets_from_boxes(box, gt)), mirrored)


def test_learns_what_the_detector_does_with_each_pose():
    rng = np.random.default_rng(0)
    poses, gt, det, _ = people(rng, 1500)
    model = fit_pgpg(poses, gt, det, skeleton=LSP, num_atoms=(0, 3, 5), num_components=(1, 2))
    assert len(model.atoms) >= 3
    assert model.joints == LSP.joints
    new, boxes, _, kinds = people(np.random.default_rng(1), 200)
    offsets = offsets_from_boxes(sample_boxes(model, rng, new, boxes, 300), boxes[:, None])
    # Medians, because a fifth of the boxes is drawn from the global mixture.
    expected = np.array([[-0.1, 0, 0.1, 0], [0, 0, -0.2, 0], [0.2, 0, 0, 0]])
    torso_known = mixture_rows(model, new) < len(model.atoms)
    for kind in range(3):
        drawn = offsets[(kinds == kind) & torso_known].reshape(-1, 4)
        np.testing.assert_allclose(np.median(drawn, 0), expected[kind], atol=0.04)


def test_beats_one_mixture_for_all_poses_where_poses_matter():
    train, test = split(samples_of(np.random.default_rng(0), 1500), 0.2, seed=3)
    models = {n: fit_mixtures(train, atomic_poses(train.poses, n), 2) for n in (0, 3)}
    logs = {n: log_likelihood(models[n], test.poses, test.offsets).mean() for n in models}
    authors = log_likelihood(global_model().for_skeleton(LSP), test.poses, test.offsets).mean()
    assert logs[3] > logs[0] + 0.3 > authors


def test_does_not_choose_atoms_where_poses_do_not_matter():
    rng = np.random.default_rng(0)
    samples = samples_of(rng, 400)
    noise = Samples(samples.poses, rng.normal(0, 0.1, (400, 4)), samples.image_ids)
    selection = select(noise, people_of(noise), (0, 3, 6), (1, 6))
    assert selection.best == (0, 1)
    assert selection.log_likelihood.shape == (3, 2)


def test_the_choice_does_not_see_poses_of_held_out_images(monkeypatch):
    """All three people of an image are used or none, also the one without a box."""
    seen = []

    def record(samples, atoms, num_components, seed):
        seen.append(atoms)
        return fit_mixtures(samples, atoms, num_components, seed)

    monkeypatch.setattr(fit_module, "fit_mixtures", record)
    samples = samples_of(np.random.default_rng(0), 600)
    image_ids = np.arange(600) // 3
    has_box = np.arange(600) % 3 > 0
    some = Samples(samples.poses[has_box], samples.offsets[has_box], image_ids[has_box])
    _, held_out = split(some, 0.2, seed=0)
    hidden = np.isin(image_ids, held_out.image_ids)
    assert hidden.sum() == 120
    for changed in (np.zeros(600, bool), hidden, ~hidden):
        poses = samples.poses.copy()
        poses[changed, :, 0] *= 4
        select(some, People(poses, image_ids), (3,), (1,))
    np.testing.assert_array_equal(seen[1], seen[0])
    assert np.abs(seen[2] - seen[0]).max() > 0.1


def test_poses_without_an_image_and_people_on_images_without_boxes_are_kept():
    samples = samples_of(np.random.default_rng(0), 4)
    others = People(samples.poses, np.array([-1, 0, 2, 7])).outside(samples[np.arange(4) < 2])
    assert others.image_ids.tolist() == [-1, 2, 7]
    np.testing.assert_array_equal(others.poses, samples.poses[[0, 2, 3]])


def test_the_best_choice():
    table = np.array([[1.0, 2.0, 3.0], [0.0, 4.0, 3.5]])
    assert Selection((0, 8), (1, 2, 4), table).best == (8, 2)


def test_models_are_symmetric():
    samples = samples_of(np.random.default_rng(0), 900)
    model = fit_mixtures(samples, atomic_poses(samples.poses, 3), 1)
    mirrored = samples.poses[:, LSP.flip_indices] * np.float32([-1, 1])
    there = log_likelihood(model, mirrored, mirrored_offsets(samples.offsets))
    here = log_likelihood(model, samples.poses, samples.offsets)
    np.testing.assert_allclose(there.mean(), here.mean(), atol=0.02)


def test_the_global_mixture_has_its_weight_and_replaces_that_of_atoms_with_few_boxes():
    samples = samples_of(np.random.default_rng(0), 300)
    atoms = atomic_poses(samples.poses, 3)
    far = np.concatenate([atoms, atoms[:1] + 50])  # nobody is near
    model = fit_mixtures(samples, far, 2)
    overall = fit_mixtures(samples, atoms[:0], 2)
    np.testing.assert_allclose(model.weights[:, :2], GLOBAL_WEIGHT * overall.weights.repeat(5, 0))
    np.testing.assert_allclose(model.weights.sum(-1), 1)
    np.testing.assert_allclose(model.means[3], np.tile(overall.means[0], (2, 1)))


def test_few_boxes_make_few_gaussians():
    samples = samples_of(np.random.default_rng(0), 60)
    model = fit_mixtures(samples, atomic_poses(samples.poses, 0), 8)
    assert (model.weights > 0).sum() == 3
    assert np.isfinite(log_likelihood(model, samples.poses, samples.offsets)).all()


def test_images_are_not_split():
    samples = samples_of(np.random.default_rng(0), 200)
    samples = Samples(samples.poses, samples.offsets, np.arange(200) // 4)
    train, test = split(samples, 0.3, seed=1)
    assert len(train) + len(test) == 200
    assert len(test) == 60
    assert not set(train.image_ids) & set(test.image_ids)


def test_keypoints_of_coco_with_visibility():
    rng = np.random.default_rng(0)
    poses, gt, det, kinds = people(rng, 900, missing=0)
    shared = [i for i, joint in enumerate(COCO.joints) if joint in LSP.joints]
    keypoints = np.full((900, 17, 2), 7, np.float32)
    keypoints[:, shared] = poses[:, [LSP.index(COCO.joints[i]) for i in shared]]
    visibility = np.tile(np.isin(np.arange(17), shared), (900, 1)).astype(np.uint8)
    model = fit_pgpg(keypoints, gt, det, visibility=visibility, num_atoms=(3,), num_components=(1,))
    rows = mixture_rows(model, keypoints, visibility)
    assert len({(row, kind) for row, kind in zip(rows, kinds, strict=True)}) == 3
    assert model.joints == COCO.joints


def test_too_few_boxes_and_no_scikit_learn(monkeypatch):
    poses, gt, det, _ = people(np.random.default_rng(0), 30)
    with pytest.raises(UserError, match="boxes of people are too few"):
        fit_pgpg(poses, gt, det, skeleton=LSP, num_atoms=(2,))
    with pytest.raises(UserError, match="boxes of people are too few"):
        fit_pgpg(poses, gt, det + 1000, skeleton=LSP, num_atoms=(2,))
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UserError, match=r"rmpe_jax\[fit\]"):
        fit_pgpg(poses, gt, det, skeleton=LSP, num_atoms=(2,))


def test_poses_of_another_skeleton():
    poses, gt, det, _ = people(np.random.default_rng(0), 30)
    with pytest.raises(UserError, match="PGPG: poses have 14 joints, skeleton 'coco' has 17: give"):
        fit_pgpg(poses, gt, det)
