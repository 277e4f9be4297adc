"""`rmpe label --beam-options`: the same labels as in one process."""

import json

import pytest
from beam_workers import TWO_WORKERS

from rmpe_jax import cli
from rmpe_jax.data import synthetic


@pytest.mark.slow
def test_two_workers(tmp_path, capfd):
    """Two groups of images, of which one cannot be read; few people are annotated."""
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    synthetic.write_coco_folder(tmp_path, range(66))
    path = tmp_path / "annotations/person_keypoints.json"
    document = json.loads(path.read_text())
    document["annotations"] = document["annotations"][::10]
    path.write_text(json.dumps(document))
    damaged = sorted((tmp_path / "images").iterdir())[65]
    damaged.write_bytes(b"junk")
    argv = ["label", f"coco:{tmp_path}", "--detector=whole", "--min-score=0.1", "--name=new"]
    assert cli.main([*argv, "--out", str(tmp_path / "one")]) == 0
    printed = capfd.readouterr().out
    assert cli.main([*argv, "--out", str(tmp_path / "two"), f"--beam-options={TWO_WORKERS}"]) == 0
    assert capfd.readouterr().out.splitlines()[1:-2] == printed.splitlines()[1:-2]
    assert f"{damaged} is not an image" in printed
    for name in ("annotations/person_keypoints_new.json", "detections/new.json"):
        one, two = (json.loads((tmp_path / out / name).read_text()) for out in ("one", "two"))
        assert one == two
    assert len(one) == 65  # boxes
    assert not (tmp_path / "two/.found").exists()
