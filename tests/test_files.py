"""Files are written completely or not at all, and contain no NaN."""

import json
import os

import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.files import atomic_write, read_json, write_json, write_json_list


def test_json_is_written_into_new_folders(tmp_path):
    write_json(tmp_path / "new" / "metrics.json", {"AP": 0.5})
    assert json.loads((tmp_path / "new" / "metrics.json").read_text()) == {"AP": 0.5}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_json(path, {"AP": 0.5})
    with pytest.raises(UserError, match="not a finite number"):
        write_json(path, {"AP": float("nan")})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"metrics\.json cannot be written \(No space left"):
        write_json(path, {"AP": 0.6})
    assert json.loads(path.read_text()) == {"AP": 0.5}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "file" / "results.json", [])


@pytest.mark.parametrize("items", [[], [1], [{"a": [1, 2]}, None, "ñ\udce9"]])
def test_lists_hold_an_item_a_line(tmp_path, items):
    path = tmp_path / "list.json"
    write_json_list(path, iter(items))
    assert json.loads(path.read_text()) == items
    assert len(path.read_text().splitlines()) == (len(items) + 2 if items else 1)


def test_a_list_with_nan_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r"list\.json is not written"):
        write_json_list(tmp_path / "list.json", [1, float("inf")])
    assert os.listdir(tmp_path) == []


def test_the_old_file_stays_until_the_end(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, r"^no list of boxes .*a\.json: check the path$"),
        (b"[1, 2", r"^list of boxes .*a\.json is not JSON \(.*\): give a complete file$"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 9\n",
            r"^list of boxes .*a\.json is a Git LFS pointer, .* git lfs pull$",
        ),
        (
            b"[" * 100_000,
            r"^list of boxes .*a\.json is not JSON \(.*recursion.*\): give a complete",
        ),
        (b"\n<html><body>404", r"^list of boxes .*a\.json is a web page, not the file itself: "),
        (b"\xff\xd8\xff", r"^list of boxes .*a\.json is not JSON \(.*\): give a complete file$"),
    ],
)
def test_what_cannot_be_read(tmp_path, content, line):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=line):
        read_json(path, "list of boxes")
    with pytest.raises(UserError, match=r"^list of boxes .* cannot be opened \(.*check the file$"):
        read_json(tmp_path, "list of boxes")


def test_names_as_long_as_the_system_takes(tmp_path):
    write_json(tmp_path / (250 * "a" + ".json"), {"AP": 0.5})
    with atomic_write(tmp_path / "a.txt") as first, atomic_write(tmp_path / "b.txt") as second:
        first.write("a")
        second.write("b")
    assert (tmp_path / "a.txt").read_text() + (tmp_path / "b.txt").read_text() == "ab"
    assert len(list(tmp_path.iterdir())) == 3


def test_reading_json(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Ωμ", "boxes": [1.5]})
    assert read_json(tmp_path / "a.json", "file") == {"name": "Ωμ", "boxes": [1.5]}
