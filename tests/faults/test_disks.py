"""Disks that are full or read-only, and damaged files of the compilation cache."""

import os
import pathlib
import resource

import pytest
from programs import PROGRAMS, finish

pytestmark = pytest.mark.faults


def size_of(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def one_line(lines: list[str], folder: pathlib.Path) -> str:
    """The line that a failed program ends with, which must name the folder.

    Lines of progress may be before it, and what was skipped; no other line names an error.
    """
    assert not any(line.startswith("Traceback") for line in lines), lines
    assert sum(str(folder) in line and "cannot" in line for line in lines) <= 1, lines
    assert str(folder) in lines[-1], lines
    return lines[-1]


@pytest.mark.parametrize("part", [0.2, 0.7])
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "save"])
def test_a_full_disk_is_one_line_and_with_room_the_program_ends_well(
    tmp_path, name, part, disk, tell
):
    """The disk has room for a part of what the program writes."""
    program = PROGRAMS[name](tmp_path / "data")
    (tmp_path / "whole").mkdir()
    status, lines = finish(program.start(tmp_path / "whole"))
    assert status == 0, lines
    expected = program.result(tmp_path / "whole")
    room = int(part * size_of(tmp_path / "whole"))
    disk.change(f"size={room}")
    status, lines = finish(program.start(disk.folder))
    line = one_line(lines, disk.folder)
    assert status == 1
    program.check(disk.folder, expected)
    disk.change(f"size={2**26}")
    status, lines = finish(program.start(disk.folder))
    assert status == 0, lines
    assert program.result(disk.folder) == expected
    tell(f"{name}: room for {room:,} bytes: {line}")


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "save"])
def test_a_read_only_disk_is_one_line(tmp_path, name, disk, tell):
    program = PROGRAMS[name](tmp_path / "data")
    disk.change("ro")
    status, lines = finish(program.start(disk.folder))
    line = one_line(lines, disk.folder)
    assert status == 1
    assert os.listdir(disk.folder) == []
    tell(f"{name}: {line}")


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_files_that_cannot_grow_are_one_line(tmp_path, name, tell):
    """A limit on the size of files stands for a full disk, where none can be mounted."""
    program = PROGRAMS[name](tmp_path / "data")
    environment = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = program.start(tmp_path / "out", environment, preexec_fn=_limit_file_size)
    status, lines = finish(process)
    line = one_line(lines, tmp_path)
    assert status == 1
    tell(f"{name}: files of 2,000 bytes at most: {line}")


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


@pytest.mark.parametrize("length", [0, 100])
def test_cut_files_of_the_compilation_cache_change_nothing(tmp_path, length, tell):
    """As a kill in the middle of a write leaves them."""
    program = PROGRAMS["train"](tmp_path / "data")
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    status, lines = finish(program.start(tmp_path / "whole", environment))
    assert status == 0, lines
    cached = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert cached
    for path in cached:
        os.truncate(path, min(length, path.stat().st_size))
    status, lines = finish(program.start(tmp_path / "cut", environment))
    assert status == 0, lines
    assert program.result(tmp_path / "cut") == program.result(tmp_path / "whole")
    tell(f"train: {len(cached)} files of the cache cut to {length} bytes: same result")
