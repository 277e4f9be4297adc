"""Learning curves: which values are read from the file."""

import json
import sys

import cv2
import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.visualize import curves


def rows_of_training():
    for step in range(0, 600, 10):
        yield {"step": step, "train/loss": 1 / (step + 10), "train/accuracy": step / 600}
        if step % 100 == 90:
            yield {"step": step, "eval/gt/AP": step / 1000, "eval/mpii/PCKh": step / 10}


def test_learning_curves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of_training()) + '{"step": 60')
    curves.learning_curves(path, tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).shape[1] > 2000  # four panels


def test_the_later_line_of_a_step_counts_and_nan_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1, "loss": 5}', '{"step": 2, "loss": NaN}', '{"step": 1, "loss": 3}']
    path.write_text("\n".join(lines))
    assert curves._read_series(path) == {"loss": {1: 3.0}}


def test_smoothing_keeps_constants_and_means():
    np.testing.assert_allclose(curves._smoothed(np.full(100, 3.0)), 3)
    values = np.arange(200.0)
    np.testing.assert_allclose(curves._smoothed(values)[10:-10], values[10:-10])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"step": 1, "lr": 2}\n', "nothing to plot"),
        ("", "nothing to plot"),
        ('nonsense\n{"step": 1, "loss": 2}\n', "line 1 is not JSON with a step"),
        ('{"loss": 1}\n{"step": 1, "loss": 2}\n', "line 1 is not JSON with a step"),
    ],
)
def test_bad_metrics(tmp_path, content, message):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        curves.learning_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_missing_metrics(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        curves.learning_curves(tmp_path / "none.jsonl", tmp_path / "curves.png")


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'rmpe_jax\[viz\]'"):
        curves.learning_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
