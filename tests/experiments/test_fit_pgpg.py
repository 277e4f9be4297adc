"""`rmpe fit-pgpg` from files to files, and its error messages."""

import json

import numpy as np
import pytest
from boxed_people import people

from rmpe_jax import cli
from rmpe_jax.experiments import fit_pgpg
from rmpe_jax.pgpg import load_pgpg
from rmpe_jax.pgpg.fit import People, split
from rmpe_jax.pgpg.model import mixture_rows
from rmpe_jax.skeletons import LSP, MPII


def write_mpii(folder, rng, num_images):
    """Writes an MPII dataset with two people per image, and a detector's boxes on them.

    A box on the first person has an IoU of 0.4.
    """
    entries, boxes = [], []
    for i in range(num_images):
        poses, gt, det, _ = people(rng, 2)
        joints = np.full((2, 16, 2), np.nan)
        joints[:, [MPII.index(joint) for joint in LSP.joints]] = poses
        for person in range(2):
            known = ~np.isnan(joints[person]).any(-1)
            entry = {"image": f"{i}.jpg", "bbox": gt[person].tolist()}
            entry["joints"] = np.nan_to_num(joints[person], nan=-1).tolist()
            entries.append(entry | {"joints_vis": known.astype(int).tolist()})
            box = np.concatenate([det[person, :2], det[person, 2:] - det[person, :2]])
            boxes.append({"image_id": f"{i}.jpg", "bbox": box.tolist(), "score": 0.5})
    x, y, right, bottom = entries[0]["bbox"]
    loose = [x, y, 0.4 * (right - x), bottom - y]
    boxes.append({"image_id": "0.jpg", "bbox": loose, "score": 0.5})
    boxes.append({"image_id": "elsewhere.jpg", "bbox": [0, 0, 9, 9], "score": 0.9})
    boxes += [{**box, "score": 0.05} for box in boxes]
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "train.json").write_text(json.dumps(entries))
    (folder / "boxes.json").write_text(json.dumps(boxes))


@pytest.fixture
def mpii(tmp_path):
    write_mpii(tmp_path / "mpii", np.random.default_rng(0), 200)
    return f"mpii:{tmp_path / 'mpii'}:train", str(tmp_path / "mpii" / "boxes.json")


def run(*arguments):
    return cli.main(["fit-pgpg", *map(str, arguments)])


def test_from_files_to_files(mpii, tmp_path, capsys):
    joints = np.full((30, 16, 2), -1.0)
    joints[:, :, 0] = np.random.default_rng(0).uniform(0, 99, (30, 16))
    np.savez(tmp_path / "poses.npz", joints=joints)
    out = tmp_path / "out"
    few = ["--atoms", 0, 3, "--gaussians", 1, 2]
    assert run("--out", out, "--data", *mpii, "--poses", tmp_path / "poses.npz", *few) == 0
    printed = capsys.readouterr().out
    report = (out / "report.md").read_text()
    assert report in printed
    assert "| mpii/train | 400 | 401 | 1 |" in report  # boxes with low scores are not used
    assert "| only poses | 30 | | |" in report
    assert "| 3 atoms, " in report
    model = load_pgpg(out / "pgpg.npz")
    assert model.joints == LSP.joints
    assert len(model.atoms) == 3
    poses, _, _, kinds = people(np.random.default_rng(1), 50, missing=0)
    assert len(set(zip(mixture_rows(model, poses), kinds, strict=True))) == 3
    pytest.importorskip("matplotlib")
    assert {file.name for file in out.iterdir()} == {
        "pgpg.npz",
        "report.md",
        "atoms.png",
        "offsets.png",
    }


def test_the_report_gives_the_gain_of_atoms(mpii):
    options = fit_pgpg.Options((0, 3), (1, 2), 0.3, 0.09, 0)
    of = fit_pgpg.read_set(mpii[0], mpii[1:], options)
    selection, lines = fit_pgpg._compare(of.samples, of.people, [of], options)
    assert selection.best[0] == 3
    rows = [line.split("|") for line in lines if "±" in line]
    gains = {row[1].strip(): float(row[-2].split("±")[0]) for row in rows}
    assert len(gains) == 4
    assert all(gain > 0.3 for gain in gains.values())


def test_the_comparison_does_not_see_poses_of_test_images(mpii, monkeypatch):
    """Those of people change no model and no score; those of samples are what is scored."""
    seen = []

    def record(samples, atoms, num_components, seed):
        seen.append(atoms)
        return fit_mixtures(samples, atoms, num_components, seed)

    fit_mixtures = fit_pgpg.fit_mixtures
    monkeypatch.setattr(fit_pgpg, "fit_mixtures", record)
    options = fit_pgpg.Options((3,), (1,), 0.3, 0.09, 0)
    of = fit_pgpg.read_set(mpii[0], mpii[1:], options)
    _, test = split(of.samples, fit_pgpg.TEST_FRACTION, options.seed)
    hidden = np.isin(of.people.image_ids, test.image_ids)
    assert hidden.sum() == 80
    results = []
    for changed in (np.zeros(400, bool), hidden, ~hidden):
        poses = of.people.poses.copy()
        poses[changed, :, 0] *= 4
        people = People(poses, of.people.image_ids)
        selection, lines = fit_pgpg._compare(of.samples, people, [of], options)
        results.append((seen[-1].tolist(), selection.log_likelihood.tolist(), lines))
    assert len(seen[-1]) == 3
    assert results[1] == results[0]
    assert results[2] != results[0]


def test_standard_error_counts_images_not_boxes():
    values = np.array([1.0, 1.0, 3.0, 3.0])
    mean, error = fit_pgpg.mean_and_error(values, np.array([5, 5, 9, 9]))
    assert (mean, error) == pytest.approx((2, 2 * np.sqrt(2) / 4))
    _, alone = fit_pgpg.mean_and_error(values, np.arange(4))
    assert alone == pytest.approx(2 / 4)


def test_images_of_several_sets_stay_apart(mpii, tmp_path):
    options = fit_pgpg.Options((0,), (1,), 0.3, 0.09, 0)
    of = fit_pgpg.read_set(mpii[0], mpii[1:], options)
    samples, joined = fit_pgpg._join([of, of], [of.people.poses[:3]])
    assert len(np.unique(samples.image_ids)) == 400
    assert len(joined.poses) == len(joined.image_ids) == 803
    for box_pose, image_id in zip(samples.poses, samples.image_ids, strict=True):
        there = joined.poses[joined.image_ids == image_id]
        assert any(np.array_equal(box_pose, pose, equal_nan=True) for pose in there)
    assert (joined.image_ids[-3:] == -1).all()
    assert (joined.image_ids[:800] >= 0).all()
    twice = fit_pgpg.read_set(mpii[0], (mpii[1], mpii[1]), options)
    assert len(np.unique(twice.samples.image_ids)) == 200
    assert len(twice.samples) == 802


def test_error_messages(mpii, tmp_path, capsys):
    spec, boxes = mpii
    np.savez(tmp_path / "wrong.npz", joints=np.zeros((3, 14, 2)))
    out = ("--out", tmp_path / "out")
    for arguments, message in (
        (("--data", spec), "has no detections"),
        (("--data", spec, tmp_path / "none.json"), "no detections file"),
        (("--data", "mpii:x", boxes), "is not a dataset"),
        (("--data", spec, boxes, "--poses", tmp_path / "none.npz"), "cannot be read"),
        (("--data", spec, boxes, "--poses", tmp_path / "wrong.npz"), "of shape (n, 16, 2)"),
        (("--data", spec, boxes, "--min-score", 0.9), "too few"),
    ):
        assert run(*out, *arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_real_boxes_are_likelier_under_the_fitted_model(shared_data):
    """MPII's training people and CenterNet's boxes; a fifth of the images is the test set."""
    files = [str(shared_data / "mpii" / "detections" / "person_detections_centernet.json")]
    options = fit_pgpg.Options((8,), (4,), 0.3, 0.09, 0)
    of = fit_pgpg.read_set(f"mpii:{shared_data / 'mpii'}:train", files, options)
    _, lines = fit_pgpg._compare(of.samples, of.people, [of], options)
    gains = [float(line.split("|")[-2].split("±")[0]) for line in lines if "±" in line]
    authors, diagonal, gaussian, mixture = gains
    assert authors > 1
    assert diagonal > 0.5
    assert gaussian > 0.5
    assert mixture > 0.05
