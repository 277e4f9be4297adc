import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_sets import (
    coco_annotation,
    coco_document,
    encode,
    raster,
    write_coco,
    write_lsp,
    write_mpii,
)

from rmpe_jax import cli
from rmpe_jax.data import prepared
from rmpe_jax.data.prepare import prepare
from rmpe_jax.data.prepared import open_prepared
from rmpe_jax.data.sources import open_source
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import UNION

PEOPLE = 60  # in the LSP dataset


@pytest.fixture
def spec(tmp_path):
    write_lsp(tmp_path / "lsp", people=PEOPLE)
    return f"lsp:{tmp_path}/lsp"


def spoil(tmp_path: pathlib.Path) -> None:
    """Make three of the images unreadable."""
    images = tmp_path / "lsp" / "images"
    (images / "im00002.jpg").unlink()
    (images / "im00011.jpg").write_bytes((images / "im00011.jpg").read_bytes()[:-9])
    (images / "im00012.jpg").write_bytes(b"not an image")


def assert_only_the_sources_are_left(tmp_path: pathlib.Path) -> None:
    assert [path.name for path in tmp_path.iterdir()] == ["lsp"]


def test_a_mixture_is_counted(tmp_path, capsys):
    write_coco(tmp_path / "coco")
    write_mpii(tmp_path / "mpii")
    specs = (f"coco:{tmp_path}/coco:mini", f"mpii:{tmp_path}/mpii:mini")
    coco, mpii = prepare(tmp_path / "deep" / "out", specs)
    assert (coco.name, coco.images, coco.no_people, coco.people) == ("coco/mini", 2, 1, 2)
    assert coco.joints == 2 * 17
    assert (coco.unlabeled, coco.crowds, coco.no_area) == (1, 1, 0)
    assert (coco.labels.inspected, coco.sizes.inspected) == (2, 2)
    assert coco.labels.suspicious == coco.sizes.suspicious == 0
    assert (mpii.name, mpii.images, mpii.no_people, mpii.people) == ("mpii/mini", 2, 0, 3)
    assert mpii.joints == 3 * 16
    assert len(open_source((f"prepared:{tmp_path}/deep/out",), UNION)) == 5
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("4/4 images, ")


def test_unreadable_images_are_left_out_and_named(tmp_path, spec):
    spoil(tmp_path)
    (count,) = prepare(tmp_path / "out", [spec], max_corrupt=0.05)
    assert count.images == count.people == PEOPLE - 3
    images = tmp_path / "lsp" / "images"
    missing, truncated, other = count.unreadable
    assert missing.startswith(f"image {images / 'im00002.jpg'} is missing")
    assert truncated.startswith(f"image {images / 'im00011.jpg'} is truncated")
    assert other.startswith(f"{images / 'im00012.jpg'} is not an image")
    assert len(open_prepared(tmp_path / "out")) == PEOPLE - 3


def test_too_many_unreadable_images_fail(tmp_path, spec):
    spoil(tmp_path)
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "out", [spec], max_corrupt=0.04)
    assert str(error.value) == (
        "more than 4.00% of 60 images are unreadable: fix them or allow a larger fraction; the "
        f"first: image {tmp_path}/lsp/images/im00002.jpg is missing: add the file or remove its "
        "entry"
    )
    assert_only_the_sources_are_left(tmp_path)


def test_no_readable_image_at_all(tmp_path, spec):
    for path in (tmp_path / "lsp" / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"^none of 60 images can be read; the first: image .*0001"):
        prepare(tmp_path / "out", [spec], max_corrupt=1.0)
    assert_only_the_sources_are_left(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keypoints": [5.0, 5.0, 0] * 17}, "4 people without labeled joints"),
        ({"iscrowd": 1}, "4 crowds"),
    ],
)
def test_one_of_two_datasets_has_nobody_to_train_on(tmp_path, spec, changes, says):
    document = coco_document()
    document["annotations"] = [coco_annotation(i, 7, **changes) for i in range(4)]
    write_coco(tmp_path / "coco", document=document)
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "out", [spec, f"coco:{tmp_path}/coco:mini"])
    assert str(error.value) == (
        f"coco/mini has no people to train on: {says}; use another dataset or skeleton"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "lsp"]


def fractions_in(tmp_path: pathlib.Path, count: int) -> str:
    """A COCO dataset of 40 people on one image; the joints of the first `count` are fractions."""
    document = coco_document()
    document["annotations"] = [coco_annotation(i, 7) for i in range(40)]
    for annotation in document["annotations"][:count]:
        joints = np.reshape(annotation["keypoints"], (17, 3)) / (80, 60, 1)
        annotation["keypoints"] = joints.ravel().tolist()
    return f"coco:{write_coco(tmp_path / 'coco', document=document)}:mini"


def test_many_suspicious_labels_fail(tmp_path):
    spec = fractions_in(tmp_path, 9)
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "out", [spec])
    assert str(error.value) == (
        "coco/mini: 9 of 40 people have labels that do not fit their image: joints in fractions of "
        "the image instead of pixels (9); the first: annotation 0 of 7.png; give joints and boxes "
        "(COCO: x, y, width, height) in pixels of the stored image, or go on with --max-suspicious "
        "1"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


def test_some_suspicious_labels_are_written_with_a_warning(tmp_path, caplog, capsys):
    command = ["prepare", fractions_in(tmp_path, 9), "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--max-suspicious", "0.25"]) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "coco/mini: 9 of 40 people have labels that do not fit their image: joints in fractions of "
        "the image instead of pixels (9); the first: annotation 0 of 7.png"
    ]
    assert "suspicious people" in capsys.readouterr().out
    assert len(open_source((f"prepared:{tmp_path}/out",), UNION)) == 40


def test_labels_that_only_the_whole_dataset_shows_fail_at_the_end(tmp_path, monkeypatch):
    """No image is looked at before; one has half of the declared size."""
    spec = fractions_in(tmp_path, 0)
    image = tmp_path / "coco" / "mini" / "7.png"
    image.write_bytes(encode(raster(0, (30, 40))))
    monkeypatch.setattr("rmpe_jax.data.prepare.sample_sizes", lambda dataset: {})
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "out", [spec])
    assert str(error.value) == (
        "coco/mini: 1 of 1 images do not have the width and height that the annotation file "
        f"declares: another size, as in resized copies (1); the first: {image} is 40x30 instead of "
        "80x60; use the image files that were annotated (EXIF orientation is not applied), or go "
        "on with --max-suspicious 1"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


def test_an_existing_folder_is_not_touched(tmp_path, spec):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(UserError, match=r"out exists: remove it or choose another folder$"):
        prepare(tmp_path / "out", [spec])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written(tmp_path, spec):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "file" / "out", [spec])
    assert str(error.value) == (
        f"{tmp_path}/file/out cannot be written (Not a directory): make room or choose another "
        "place"
    )


def test_a_second_call_does_not_touch_what_the_first_writes(tmp_path, spec, monkeypatch):
    write_people, lines = prepared.write_people, []

    def try_again(folder):
        with pytest.raises(UserError) as error:
            prepare(tmp_path / "out", [spec])
        lines.append(str(error.value))
        write_people(folder)

    monkeypatch.setattr(prepared, "write_people", try_again)
    (count,) = prepare(tmp_path / "out", [spec])
    assert len(open_prepared(tmp_path / "out")) == count.images
    (line,) = lines
    assert line.startswith(f"{tmp_path}/out is in use by process {os.getpid()} on host ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lsp", "out"]


# Errors of the array_record writer, and of Python's own writing.
DISK_FULL = {
    "records": RuntimeError(
        'Failed to finalize writing of split "train": write() failed: No space left on device; '
        "writing somewhere; at byte 5242880; Failed to close chunk_writer"
    ),
    "index": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
}


@pytest.mark.parametrize("place", DISK_FULL)
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path, spec, monkeypatch, place):
    def fail(folder):
        raise DISK_FULL[place]

    monkeypatch.setattr(prepared, "write_people", fail)
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "out", [spec])
    assert str(error.value) == (
        f"cannot write {tmp_path}/out (No space left on device: free some space); "
        "partial output was removed"
    )
    assert_only_the_sources_are_left(tmp_path)


@pytest.mark.parametrize("error", [None, FileNotFoundError(errno.ENOENT, "No such file")])
def test_a_folder_that_another_process_took_over_is_left_alone(tmp_path, spec, monkeypatch, error):
    """The files at the usual places are those of the other process then."""

    def lose(folder):
        (tmp_path / "out.lock").write_text("of another process")
        (tmp_path / "out.incomplete" / "theirs").write_text("")
        if error:
            raise error

    monkeypatch.setattr(prepared, "write_people", lose)
    with pytest.raises(UserError, match="out belongs to another process now"):
        prepare(tmp_path / "out", [spec])
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.incomplete" / "theirs").exists()
    assert (tmp_path / "out.lock").read_text() == "of another process"


def test_a_folder_that_was_lost_while_images_were_read(tmp_path, spec, monkeypatch):
    def lose(*arguments):
        (tmp_path / "out.lock").write_text("of another process")
        return make_record(*arguments)

    make_record = prepared.make_record
    monkeypatch.setattr(prepared, "make_record", lose)
    monkeypatch.setattr(prepared, "write_people", lambda _: pytest.fail("files were written"))
    with pytest.raises(UserError, match="out belongs to another process now"):
        prepare(tmp_path / "out", [spec])


def test_other_errors_stay_what_they_are(tmp_path, spec, monkeypatch):
    def fail(folder):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(prepared, "write_people", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        prepare(tmp_path / "out", [spec])
    assert_only_the_sources_are_left(tmp_path)


def test_the_command_tells_what_is_in_the_folder(tmp_path, capsys):
    write_coco(tmp_path / "coco")
    write_lsp(tmp_path / "lsp", people=40)
    (tmp_path / "lsp" / "images" / "im00007.jpg").write_bytes(b"")
    specs = [f"coco:{tmp_path}/coco:mini", f"lsp:{tmp_path}/lsp"]
    options = ["--shards", "2", "--max-corrupt", "0.1"]
    assert cli.main(["prepare", *specs, "--out", str(tmp_path / "out"), *options]) == 0
    assert len(list((tmp_path / "out").glob("*array_record*"))) == 2
    lines = capsys.readouterr().out.splitlines()
    *table, unreadable, name, wrote = lines
    assert [line.split() for line in table[:3]] == [
        ["coco/mini", "lsp/lsp"],
        ["images", "2", "39"],
        ["people", "2", "39"],
    ]
    assert [re.split(r" {2,}", line) for line in table[4:]] == [
        ["skipped: people without labeled joints", "1", "0"],
        ["skipped: crowds", "1", "0"],
        ["skipped: images without people to train on", "1", "0"],
        ["skipped: unreadable images", "0", "1"],
    ]
    assert unreadable == "unreadable:"
    assert name == f"  image {tmp_path}/lsp/images/im00007.jpg is empty (0 bytes): fetch it again"
    assert wrote.startswith(f"wrote {tmp_path}/out in ")


def start(tmp_path: pathlib.Path, spec: str, *setup: str) -> subprocess.Popen:
    """Run `rmpe prepare` of `spec` in a process, after the Python lines of `setup`."""
    lines = (
        "import sys, time, resource",
        "from rmpe_jax import cli",
        "from rmpe_jax.data import prepare, prepared",
        *setup,
        f"sys.exit(cli.main(['prepare', {spec!r}, '--out', {str(tmp_path / 'out')!r}]))",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes)


def test_a_write_that_really_fails_is_one_clear_line(tmp_path, spec):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    process = start(tmp_path, spec, limit)
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert err.splitlines()[-1] == (
        f"rmpe: cannot write {tmp_path}/out (File too large: check the path and its permissions); "
        "partial output was removed"
    )
    assert "Traceback" not in err
    assert_only_the_sources_are_left(tmp_path)


# Where to stop: after some images were read, and after all records were written.
MOMENTS = {
    "reading": "prepared.make_record = lambda *_: time.sleep(60)",
    "index": "prepared.write_people = lambda *_: time.sleep(60)",
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_stopped_on_the_way_nothing_is_there_to_be_read(tmp_path, spec, moment, how):
    process = start(tmp_path, spec, MOMENTS[moment])
    incomplete = tmp_path / "out.incomplete"
    wanted = "*/1.0.0/dataset_info.json" if moment == "index" else "*/*1.0.0"
    deadline = time.monotonic() + 60
    while not list(incomplete.glob(wanted)) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(how)
    _, err = process.communicate()
    assert not (tmp_path / "out").exists()
    if how == signal.SIGTERM:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "rmpe: stopped"
        assert_only_the_sources_are_left(tmp_path)
        return
    assert process.returncode == -signal.SIGKILL
    assert incomplete.exists()
    for folder in (incomplete, *incomplete.rglob("*/")):
        with pytest.raises(UserError, match="create it with `rmpe prepare`"):
            open_prepared(folder)
    prepare(tmp_path / "out", [spec])  # the next one cleans up
    assert len(open_prepared(tmp_path / "out")) == PEOPLE
    assert not incomplete.exists()
