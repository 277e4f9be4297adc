"""`rmpe fit-nms` from files to files, and its error messages."""

import functools
import json

import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.evaluation import coco_ap
from rmpe_jax.evaluation.nms import apply_nms
from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.pose_nms import load_params, pose_nms_batch


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
