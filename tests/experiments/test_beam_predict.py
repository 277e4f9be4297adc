"""`rmpe predict --beam-options`: the same poses as in one process, on workers of Apache Beam."""

import json
import os
import pathlib
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from beam_workers import TWO_WORKERS

from rmpe_jax import cli
from rmpe_jax.errors import UserError
from rmpe_jax.experiments.beam_predict import EstimatorSettings, predict_with_beam
from rmpe_jax.predict.addresses import find_images

WHOLE = EstimatorSettings(detector="whole")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    """A folder of 20 images, two groups, of which two are damaged; and a note."""
    folder = tmp_path_factory.mktemp("data") / "images"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(20):
        pixels = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (64, 48 + i))
        cv2.imwrite(str(folder / "sub" / f"{i:02}.png"), pixels)
    (folder / "sub" / "05.png").write_bytes(b"junk")
    (folder / "sub" / "18.png").write_bytes(b"")
    (folder / "note.md").write_text("text")
    return folder


def lines(out: pathlib.Path, pattern: str) -> list[str]:
    return sorted(
        line for path in out.glob(pattern) for line in path.read_text().splitlines() if line
    )


def count_people(one: pathlib.Path) -> int:
    return sum(len(json.loads(line)["people"]) for line in lines(one, "poses.jsonl"))


def assert_same(out: pathlib.Path, one: pathlib.Path) -> None:
    """Each image once, with the same poses to the last digit."""
    found = lines(out, "poses-*.jsonl")
    assert len({json.loads(line)["name"] for line in found}) == len(found) == 18
    assert found == lines(one, "poses.jsonl")
    records = map(json.loads, lines(out, "skipped-*.jsonl"))
    skipped = {record["name"]: record["error"] for record in records}
    assert list(skipped) == ["sub/05.png", "sub/18.png"]
    assert skipped["sub/18.png"].endswith("18.png is empty (0 bytes): fetch it again")
    assert not list(out.glob("beam-temp-*"))


@pytest.fixture(scope="module")
def one(images, tmp_path_factory) -> pathlib.Path:
    """The results of one process without Beam."""
    out = tmp_path_factory.mktemp("results") / "one"
    assert cli.main(["predict", str(images), "--out", str(out), "--detector", "whole"]) == 0
    return out


@pytest.mark.parametrize(
    "option", ["--draw", "--report", "--track", "--resume", "--format=coco", "--smooth=none"]
)
def test_options_that_need_one_process(option, tmp_path, capsys):
    assert cli.main(["predict", str(tmp_path), option, "--beam-options", "--a b"]) == 1
    error = capsys.readouterr().err
    assert f"{option.partition('=')[0]} does not go with --beam-options" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--runner='Direct", "No closing quotation; check the quotes"),
        ("--direct_num_workers=many", "argument --direct_num_workers: invalid int value: 'many'"),
    ],
)
def test_options_that_beam_does_not_take(options, says, tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    argv = ["predict", str(tmp_path), "--out", str(tmp_path / "out"), f"--beam-options={options}"]
    assert cli.main(argv) == 1
    assert capsys.readouterr().err == f"rmpe: --beam-options={options}: {says}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["run [1]", "run*", "run?"])
def test_a_folder_whose_name_is_a_pattern(images, tmp_path, capsys, name):
    out = tmp_path / name
    assert cli.main(["predict", str(images), "--out", str(out), "--beam-options="]) == 1
    says = "Beam takes *, ? and [ for patterns; choose another output folder"
    assert capsys.readouterr().err == f"rmpe: {out}: {says}\n"
    assert not out.exists()


def test_videos_are_refused(tmp_path):
    path = tmp_path / "clip.gif"
    frames = [np.full((8, 8, 3), value, np.uint8) for value in (0, 250)]
    animation = cv2.Animation()
    animation.frames, animation.durations = frames, [100, 100]
    assert cv2.imwriteanimation(str(path), animation)
    with pytest.raises(UserError, match=r"clip is a video .* --beam-options is for images"):
        find_images([str(path)], str(tmp_path / "out"))


@pytest.mark.slow
def test_one_worker(images, one, tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    out, options = tmp_path / "out", "--beam-options=--runner=DirectRunner"
    argv = ["predict", str(images), "--out", str(out), "--detector=whole", options]
    assert cli.main(argv) == 0
    counts = f"18 images, {count_people(one)} people, 2 unreadable, passed over 1 file"
    assert capsys.readouterr().out.startswith(counts)
    assert_same(out, one)
    assert cli.main(argv) == 1
    assert "has results already: name another folder" in capsys.readouterr().err


def test_a_model_that_a_worker_cannot_load(images, tmp_path, caplog):
    """The worker's line is the error, and nothing runs again."""
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    settings = EstimatorSettings(model="missing.safetensors", detector="whole")
    with pytest.raises(UserError, match=r"^missing.safetensors: no model there; name a model"):
        predict_with_beam([str(images)], str(tmp_path / "out"), settings, "")
    assert not list((tmp_path / "out").glob("*poses*"))
    assert "it runs again" not in caplog.text


@pytest.mark.slow
def test_addresses(images, one, tmp_path):
    """A folder of an object store, here a scheme of Beam that leads to files."""
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    from apache_beam.io import filesystems, localfilesystem

    class Store(localfilesystem.LocalFileSystem):
        @classmethod
        def scheme(cls):
            return "store"

        def match(self, patterns, limits=None):
            found = super().match([self.path(pattern) for pattern in patterns], limits)
            for result in found:
                for metadata in result.metadata_list:
                    metadata.path = f"store://{metadata.path}"
            return found

        def open(self, path, *args, **kwargs):
            return super().open(self.path(path), *args, **kwargs)

        @staticmethod
        def path(address):
            return address.removeprefix("store://")

    assert filesystems.FileSystems.get_scheme("store:///a") == "store"
    out = tmp_path / "out"
    found = find_images([f"store://{images}"], str(out))
    assert len(found.images) == 20
    assert found.images[0] == ("sub/00.png", f"store://{images}/sub/00.png")
    line = predict_with_beam([f"store://{images}"], str(out), WHOLE, "")
    assert line == f"18 images, {count_people(one)} people, 2 unreadable"
    assert_same(out, one)
    with pytest.raises(UserError, match=r"^inputs are files and addresses: give one kind"):
        find_images([str(images), f"store://{images}"], str(out))
    listed = tmp_path / "list.txt"
    listed.write_text(f"store://{images}/sub/00.png\nstore://{images}/sub/01.png\n")
    names = [name for name, _ in find_images([str(listed)], str(out)).images]
    assert names == ["00.png", "01.png"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    two = [f"store://{tmp_path}/{name}" for name in ("a/1.png", "b/1.png")]
    assert [name for name, _ in find_images(two, str(out)).images] == ["a/1.png", "b/1.png"]


def workers_of(process: int) -> list[int]:
    """The worker processes of Beam that a process has started."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            status, command = (entry / "stat").read_text(), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        parent = int(status.rpartition(")")[2].split()[1])
        if b"sdk_worker_main" in command:
            found.append((int(entry.name), parent, command))
    ours = {number for number, parent, _ in found if parent == process}
    ours |= {number for number, parent, _ in found if parent in ours}
    return sorted(n for n, _, command in found if n in ours and not command.startswith(b"/bin/sh"))


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["", "before its work", "at its work"])
def test_two_workers(images, one, tmp_path, killed):
    """Also if a worker is killed: before it connects, or when poses have been found."""
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    if killed and not pathlib.Path("/proc/self/stat").exists():
        pytest.skip("finds the worker processes in /proc")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rmpe_jax.cli", "predict", str(images), "--out", str(out)]
    command += ["--detector=whole", f"--beam-options={TWO_WORKERS}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if killed:
        deadline = time.monotonic() + 300
        while len(workers := workers_of(process.pid)) < 2 or not (
            killed == "before its work" or list(out.glob("beam-temp-poses*/*"))
        ):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(workers[0], 9)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert output.startswith(f"18 images, {count_people(one)} people, 2 unreadable")
    assert ("it runs again" in errors) == bool(killed)
    assert_same(out, one)
