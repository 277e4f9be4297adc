import json
import struct
import sys

import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.training.metrics import MetricWriter


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_lines_are_flat_json_and_come_at_once(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(3, {"train/loss": 0.5, "train/accuracy": 0.25})
    assert lines(tmp_path) == [{"step": 3, "train/loss": 0.5, "train/accuracy": 0.25}]
    writer.write(6, {"eval/AP": float("nan"), "other": float("inf")})
    writer.close()
    assert lines(tmp_path)[1] == {"step": 6, "eval/AP": None, "other": None}


def test_after_a_resume_each_step_stands_there_once(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    for step in (1, 2, 3, 4):
        writer.write(step, {"x": float(step)})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "x": 5')  # killed in the middle of a line
    writer = MetricWriter(tmp_path, 2)
    writer.write(3, {"x": 30.0})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "x": 1.0}, {"step": 2, "x": 2.0}, {"step": 3, "x": 30.0}]
    assert {path.name for path in tmp_path.iterdir()} <= {"metrics.jsonl", "tensorboard"}


def test_lines_that_are_none_are_cut(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('[1]\n\n{"x": 1}\n{"step": 1, "x": 2}\nnull\n')
    MetricWriter(tmp_path, 1).close()
    assert lines(tmp_path) == [{"step": 1, "x": 2}]


def test_a_full_disk_is_one_line(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer._file.close()
    writer._file = open("/dev/full", "a", buffering=1)  # noqa: SIM115
    with pytest.raises(UserError, match=r"No space left on device\); make room") as error:
        writer.write(1, {"x": 1.0})
    assert "\n" not in str(error.value)
    writer.close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics cannot be written \(Is a directory\)"):
        MetricWriter(tmp_path, 0)


def test_it_works_without_tensorboardx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {"x": 1.0})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "x": 1.0}]
    assert not (tmp_path / "tensorboard").exists()


def events(path) -> list:
    """The records of an event file: length (8 bytes), its checksum, content, its checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_tensorboard_gets_the_same_numbers_and_where_it_starts_again(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = MetricWriter(tmp_path, 7)
    writer.write(8, {"train/loss": 0.5, "train/accuracy": 0.25})
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = events(path)  # before it is closed
    writer.close()
    assert found[0].file_version == "brain.Event:2"
    assert (found[1].step, found[1].session_log.status) == (8, 1)  # START
    assert found[2].step == 8
    values = {value.tag: value.simple_value for value in found[2].summary.value}
    assert values == {"train/loss": 0.5, "train/accuracy": 0.25}
    assert found[2].wall_time > 1e9
