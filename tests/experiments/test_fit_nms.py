"""`rmpe fit-nms` from files to files, and its error messages."""

import functools
import json

import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.evaluation import coco_ap
from rmpe_jax.evaluation.nms import apply_nms
from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.experiments import fit_nms
from rmpe_jax.pose_nms import load_params, pose_nms_batch
from rmpe_jax.skeletons import COCO


@pytest.fixture
def files(tmp_path):
    """Results and annotations: pairs of people a step apart, each found two or three times."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image_id in range(8):
        for person in range(2):
            pose = rng.uniform(0, 100, (17, 2)) + np.array([80 * person, 0])
            box = [80.0 * person, 0, 100, 100]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": box,
                    "area": 5000.0,
                    "iscrowd": 0,
                    "num_keypoints": 17,
                    "keypoints": np.c_[pose, np.full(17, 2)].ravel().tolist(),
                }
            )
            n = 2 + person
            scores = rng.uniform(0.4, 1, (n, 17))
            results += coco_results(
                [image_id] * n,
                pose + rng.normal(0, 5, (n, 17, 2)),
                scores,
                scores.mean(-1),
                np.tile([box[0], 0, box[0] + 100, 100], (n, 1)),
                rng.uniform(size=n),
            )
    ground_truth = {"images": [{"id": i} for i in range(8)], "annotations": annotations}
    paths = tmp_path / "results.json", tmp_path / "annotations.json"
    for path, content in zip(paths, (results, ground_truth), strict=True):
        path.write_text(json.dumps(content))
    return paths


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))


def test_from_files_to_files(files, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    results, annotations = map(str, files)
    out = tmp_path / "nms"
    assert cli.main(["fit-nms", results, annotations, "--out", str(out), "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    params = load_params(out / "params.json")
    content = json.loads(files[0].read_text())
    left = apply_nms(content, 17, range(8), functools.partial(pose_nms_batch, params=params))
    learned = coco_ap(str(files[1]), left)["AP"]
    assert learned > coco_ap(str(files[1]), content)["AP"]
    searches = json.loads((out / "searches.json").read_text())
    assert searches[-1]["score"] == pytest.approx(learned, abs=1e-5)
    assert np.shape(searches[0]["scores"]) == (3, 3)
    assert printed.count("sweep ") == len(searches)
    assert f"| learned | {learned:.3f} |" in printed
    assert (out / "heat_maps.png").read_bytes().startswith(b"\x89PNG")


def test_folds_are_scored_with_parameters_of_the_others(files, monkeypatch):
    """Annotations of a fold do not change the parameters that it is scored with."""
    content = json.loads(files[1].read_text())
    learned = []
    fit = fit_nms.fit_pose_nms

    def recorded(groups, ground_truth, objective, start, **options):
        found = fit(groups, ground_truth, objective, start, **options)
        learned.append((sum(len(group.valid) for group in groups), found.params))
        return found

    monkeypatch.setattr(fit_nms, "fit_pose_nms", recorded)
    found = fit_nms.cross_fit_nms(files[0], content, load_params("rmpe"), COCO, 4, steps=3)
    assert [count for count, _ in learned] == [6] * 4
    results = json.loads(files[0].read_text())
    parts = np.array_split(np.random.default_rng(0).permutation(8), 4)
    expected = []
    for part, (_, params) in zip(parts, learned, strict=True):
        nms = functools.partial(pose_nms_batch, params=params, skeleton=COCO)
        expected += apply_nms(results, 17, part.tolist(), nms)
    assert found.ap[fit_nms.LEARNED] == pytest.approx(coco_ap(content, expected)["AP"])
    assert found.ap["no NMS"] == pytest.approx(coco_ap(content, results)["AP"])
    assert found.gain == found.ap[fit_nms.LEARNED] - found.ap["rmpe"]
    assert found.interval[0] <= found.gain <= found.interval[1]

    first = parts[0].tolist()
    for annotation in content["annotations"]:
        if annotation["image_id"] in first:
            annotation["keypoints"][::3] = [0.0] * 17

    class FirstFoldError(Exception):
        """Ends the search after the first fold."""

    def only_one(*arguments, **options):
        raise FirstFoldError(fit(*arguments, **options).params)

    monkeypatch.setattr(fit_nms, "fit_pose_nms", only_one)
    with pytest.raises(FirstFoldError) as caught:
        fit_nms.cross_fit_nms(files[0], content, load_params("rmpe"), COCO, 4, steps=3)
    assert caught.value.args == (learned[0][1],)


def test_more_folds_than_images(files, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["fit-nms", *map(str, files), "--out", str(tmp_path), "--steps", "2"]
    assert cli.main([*arguments, "--folds", "9"]) == 1
    assert "has 8 images: use at most as many folds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("bbox_score"), "entry 0 has no bbox_score: give the results.json of"),
        (lambda r: r.pop("score"), "entry 0 needs image_id, bbox and score"),
        (lambda r: r.update(keypoints=[0.0] * 42), "entry 0 is not a pose of 17 joints and a box"),
        (lambda r: r.update(bbox_score=float("nan")), "entry 0 is not a pose of 17 joints"),
        (lambda r: r.update(keypoints=["a"] * 51), "entry 0 is not a pose of 17 joints"),
        (lambda r: r.update(image_id=99), "1 images of the results are not in the ground truth"),
    ],
)
def test_invalid_results(files, tmp_path, change, message, capsys):
    content = json.loads(files[0].read_text())
    change(content[0])
    files[0].write_text(json.dumps(content))
    assert cli.main(["fit-nms", *map(str, files), "--out", str(tmp_path / "nms")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "nms").exists()


def test_no_poses_to_learn_from(files, tmp_path, capsys):
    files[0].write_text("[]")
    assert cli.main(["fit-nms", *map(str, files), "--out", str(tmp_path / "nms")]) == 1
    assert "has no poses to learn from" in capsys.readouterr().err
    assert not (tmp_path / "nms").exists()


def test_an_invalid_start(files, tmp_path, capsys):
    arguments = ["fit-nms", *map(str, files), "--out", str(tmp_path), "--start", "mmpose"]
    assert cli.main(arguments) == 1
    assert "mmpose cannot be read" in capsys.readouterr().err
