"""Commands with `--beam-options` where Apache Beam is not installed."""

import sys

import pytest

from rmpe_jax import cli


@pytest.mark.parametrize(
    ("command", "data"), [("predict", "."), ("label", "coco:x"), ("prepare", "lsp:x")]
)
def test_without_apache_beam(monkeypatch, tmp_path, capsys, command, data):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.chdir(tmp_path)
    argv = [command, data, "--out", str(tmp_path / "out"), "--beam-options=--runner=x"]
    assert cli.main(argv) == 1
    line = "rmpe: --beam-options needs Apache Beam: pip install 'rmpe_jax[beam]'\n"
    assert capsys.readouterr().err == line
    assert not (tmp_path / "out").exists()
