"""`rmpe prepare --beam-options`: the same prepared folder as in one process."""

import sys

import numpy as np
import pytest
from beam_workers import TWO_WORKERS
from tiny_sets import write_coco, write_lsp

from rmpe_jax import cli
from rmpe_jax.data.prepared import open_prepared, read_people


@pytest.mark.slow
def test_two_workers(tmp_path, capfd):
    """Two datasets, two groups of images, of which one cannot be read; no TensorFlow."""
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    write_lsp(tmp_path / "lsp", people=70)
    write_coco(tmp_path / "coco")
    damaged = tmp_path / "lsp/images/im00011.jpg"
    damaged.write_bytes(b"junk")
    argv = ["prepare", f"coco:{tmp_path}/coco:mini", f"lsp:{tmp_path}/lsp", "--shards=3"]
    argv += ["--max-corrupt=0.05"]
    assert cli.main([*argv, "--out", str(tmp_path / "one")]) == 0
    printed = capfd.readouterr().out
    assert cli.main([*argv, "--out", str(tmp_path / "two"), f"--beam-options={TWO_WORKERS}"]) == 0
    assert capfd.readouterr().out.splitlines()[:-1] == printed.splitlines()[:-1]
    assert f"{damaged} is not an image" in printed
    one, two = (open_prepared(tmp_path / out) for out in ("one", "two"))
    assert len(one) == len(two) == 69 + 2
    assert len(two.shard_lengths) == 3
    for index in range(len(one)):
        a, b = one[index], two[index]
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    for a, b in zip(read_people(tmp_path / "one"), read_people(tmp_path / "two"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "lsp", "one", "two"]
    assert "tensorflow" not in sys.modules


@pytest.mark.slow
def test_too_many_unreadable_images(tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    write_lsp(tmp_path / "lsp", people=20)
    (tmp_path / "lsp/images/im00011.jpg").write_bytes(b"junk")
    argv = ["prepare", f"lsp:{tmp_path}/lsp", "--out", str(tmp_path / "out")]
    assert cli.main([*argv, "--beam-options=--runner=DirectRunner"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("rmpe: more than 1.00% of 20 images are unreadable: fix them or allow")
    assert [path.name for path in tmp_path.iterdir()] == ["lsp"]
