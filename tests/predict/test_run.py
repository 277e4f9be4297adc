"""`rmpe predict` from files to files, with a network that points at bright spots."""

import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import bright
import cv2
import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.errors import UserError
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.predict import run
from rmpe_jax.predict.inputs import find_inputs
from rmpe_jax.predict.journal import read_journal
from rmpe_jax.predict.run import Summary, predict_files
from rmpe_jax.skeletons import COCO

SETTINGS = {"model": "bright", "detector": "spots"}


@pytest.fixture(scope="module")
def estimator():
    """Shared, so that what it has compiled is too; two pictures at a time."""
    with pytest.MonkeyPatch.context() as patch:
        bright.register(patch.setattr)
        return PoseEstimator(bright.pose_model(), detector=bright.find_spots, batch_size=2)


def spots_of(index: int) -> list[tuple[int, int]]:
    """Where the people of a picture are: none, one or two."""
    return [(40 + 3 * index, 40), (110, 60)][: index % 3]


@pytest.fixture
def pictures(tmp_path) -> pathlib.Path:
    """Eight pictures, the fourth damaged."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        cv2.imwrite(str(folder / f"{i}.png"), bright.spots((100, 150), spots_of(i) or [(-99, 0)]))
    (folder / "3.png").write_bytes(b"junk")
    return folder


@pytest.fixture
def out(tmp_path) -> pathlib.Path:
    return tmp_path / "out"


def predict(estimator, inputs, out, settings=SETTINGS, **options) -> Summary:
    found = find_inputs([str(inputs)])
    run.prepare_output_folder(out, settings, options.get("resume", False))
    return predict_files(found, out, estimator, **options)


def journal(out: pathlib.Path) -> dict:
    pictures = list(read_journal(out / run.JOURNAL, COCO))
    assert len({picture.name for picture in pictures}) == len(pictures)
    return {picture.name: picture for picture in pictures}


def test_pictures_one_of_them_damaged(estimator, pictures, out, caplog):
    with caplog.at_level(logging.WARNING, "rmpe_jax"):
        formats = ("coco", "alphapose", "openpose", "jsonl")
        summary = predict(estimator, pictures, out, formats=formats, draw=True, report=True)
    assert summary == Summary(pictures=7, people=7, unreadable=1)
    assert [record.message for record in caplog.records] == [
        f"left out: {pictures / '3.png'} is not an image or is damaged: fetch it again"
    ]
    found = journal(out)
    assert sorted(found) == [f"{i}.png" for i in (0, 1, 2, 4, 5, 6, 7)]
    for name, picture in found.items():
        centres = spots_of(int(name[0]))
        assert picture.size == (100, 150)
        near = picture.poses.keypoints[picture.poses.keypoints[:, 0, 0].argsort()]
        assert near.shape[0] == len(centres)
        if centres:
            assert np.abs(near - np.array(centres)[:, None]).max() < 1
    assert len(json.loads((out / "coco.json").read_text())) == 7
    assert len(json.loads((out / "alphapose-results.json").read_text())) == 7
    assert len(list((out / "openpose").iterdir())) == 7
    drawn = cv2.imread(str(out / "drawn" / "5.png"))
    assert (drawn != cv2.imread(str(pictures / "5.png"))).any()
    assert (out / "report.html").read_text().count("<article>") == 7


def test_resumed_after_a_kill_it_does_the_rest(estimator, pictures, out, tmp_path):
    """A kill leaves whole lines and a part of one."""
    predict(estimator, pictures, tmp_path / "whole", formats=("coco",))
    lines = (tmp_path / "whole" / run.JOURNAL).read_bytes().splitlines(keepends=True)
    out.mkdir()
    (out / run.JOURNAL).write_bytes(b"".join(lines[:3]) + lines[3][:50])
    (out / "settings.json").write_text(json.dumps(SETTINGS))
    seen = []
    detect = estimator.detect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "detect", lambda *a: seen.append(a[1]) or detect(*a))
        summary = predict(
            estimator, pictures, out, formats=("coco",), resume=True, report=True, draw=True
        )
    assert (summary.pictures, summary.unreadable, summary.done_before) == (4, 1, 3)
    assert seen == ["4.png", "5.png", "6.png", "7.png"]
    assert (out / run.JOURNAL).read_bytes() == b"".join(lines)
    assert (out / "coco.json").read_bytes() == (tmp_path / "whole" / "coco.json").read_bytes()
    assert (out / "report.html").read_text().count("<article>") == 7
    assert sorted(path.name for path in (out / "drawn").iterdir()) == sorted(journal(out))


def test_results_are_not_overwritten_or_mixed(estimator, pictures, out):
    predict(estimator, pictures, out)
    with pytest.raises(UserError, match="has results already: go on with --resume"):
        predict(estimator, pictures, out)
    with pytest.raises(UserError, match="with model 'bright', not 'dim'"):
        predict(estimator, pictures, out, {**SETTINGS, "model": "dim"}, resume=True)
    with pytest.raises(UserError, match="with inputs None, not"):
        predict(estimator, pictures, out, {**SETTINGS, "inputs": ["other"]}, resume=True)
    again = predict(estimator, pictures, out, resume=True)
    assert (again.pictures, again.done_before) == (0, 7)
    (out / "settings.json").write_text("[")
    with pytest.raises(UserError, match=r"settings\.json cannot be read"):
        predict(estimator, pictures, out, resume=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("disk full")])
def test_stopped_in_the_middle_it_writes_what_it_has(estimator, pictures, out, error, monkeypatch):
    def stop(items, total, what):
        for i, item in enumerate(items):
            if i == 2:
                raise error
            yield item

    monkeypatch.setattr(run, "progress", stop)
    threads = threading.active_count()
    with pytest.raises(type(error)):
        predict(estimator, pictures, out, formats=("coco", "openpose"))
    assert threading.active_count() == threads
    assert list(journal(out)) == ["0.png", "1.png"]
    assert len(json.loads((out / "coco.json").read_text())) == 1
    assert len(list((out / "openpose").iterdir())) == 2


def test_an_error_of_the_detector_stops_all_and_is_shown_once(estimator, pictures, out):
    def broken(image, name):
        if name == "2.png":
            raise UserError("the detector is broken")
        return bright.find_spots(image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "_detector", broken)
        threads = threading.active_count()
        with pytest.raises(UserError, match="the detector is broken"):
            predict(estimator, pictures, out)
    assert threading.active_count() == threads
    assert list(journal(out)) == ["0.png", "1.png"]  # the batch before it


def test_no_picture_can_be_read(estimator, tmp_path, out):
    (tmp_path / "a.jpg").write_bytes(b"junk")
    for _ in range(2):  # what it leaves is no results, so that it can be tried again
        with pytest.raises(UserError, match="none of the 1 pictures can be read"):
            predict(estimator, tmp_path / "a.jpg", out)


def test_boxes_on_request(estimator, pictures, out, tmp_path):
    predict(estimator, pictures / "1.png", out, draw=True)
    predict(estimator, pictures / "1.png", tmp_path / "boxes", draw=True, draw_boxes=True)
    without, boxes = (cv2.imread(str(f / "drawn/1.png")) for f in (out, tmp_path / "boxes"))
    x, y, right, bottom = journal(out)["1.png"].poses.bboxes[0].round().astype(int)
    different = np.argwhere((without != boxes).any(-1))
    assert np.abs(different.min(0) - [y, x]).max() <= 2
    assert np.abs(different.max(0) - [bottom, right]).max() <= 2


def write_video(path: pathlib.Path) -> pathlib.Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 2, (160, 96))
    for i in range(6):
        writer.write(bright.spots((96, 160), [(50 + 10 * i, 45)]))
    writer.release()
    return path


def test_a_video_is_read_drawn_and_resumed(estimator, tmp_path, out):
    video = write_video(tmp_path / "clip.mp4")
    summary = predict(estimator, video, out, draw=True, report=True)
    assert (summary.pictures, summary.people) == (6, 6)
    for i, picture in enumerate(journal(out).values()):
        assert picture.name == f"clip_{i:06}.jpg"
        assert np.abs(picture.poses.keypoints - np.array([50 + 10 * i, 45])).max() < 2
    capture = cv2.VideoCapture(str(out / "drawn" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert capture.get(cv2.CAP_PROP_FPS) == 2
    assert (out / "report.html").read_text().count("<article>") == 3  # one a second
    lines = (out / run.JOURNAL).read_bytes().splitlines(keepends=True)
    (out / run.JOURNAL).write_bytes(b"".join(lines[:4]))
    resumed = predict(estimator, video, out, draw=True, report=True, resume=True)
    assert resumed.pictures == 2
    assert (out / "report.html").read_text().count("<article>") == 3
    assert (out / run.JOURNAL).read_bytes() == b"".join(lines)
    rest = cv2.VideoCapture(str(out / "drawn" / "clip_000004.mp4"))
    assert rest.get(cv2.CAP_PROP_FRAME_COUNT) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing.jpg"], "rmpe: nothing.jpg: no such file or folder; check the path"),
        (["EMPTY"], "no pictures there"),
        (["VIDEO"], "cannot be read: check that it is there"),
        (["PICTURE", "--detector", "whole", "--model", "none"], "none: no model there; name"),
    ],
)
def test_what_the_command_cannot_use_is_one_line(
    arguments, expected, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "VIDEO").with_suffix(".avi").write_bytes(b"no video")
    cv2.imwrite(str(tmp_path / "PICTURE.png"), np.zeros((9, 9), np.uint8))
    places = {"EMPTY": "EMPTY", "VIDEO": "VIDEO.avi", "PICTURE": "PICTURE.png"}
    arguments = [str(tmp_path / places[a]) if a in places else a for a in arguments]
    assert cli.main(["predict", *arguments, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


COMMAND = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import bright, os, time
from rmpe_jax import cli
from rmpe_jax.inference import estimator
bright.register(setattr)
estimator.open_detector = lambda text: lambda image, name: (
    time.sleep(float(os.environ["WAIT"])) or bright.find_spots(image)
)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_command_terminated_and_resumed(bright_network, tmp_path, out):
    """By SIGTERM: the forms are written; by SIGKILL: the journal is there."""
    from rmpe_jax.model_io.pose_model import save_pose_model

    save_pose_model(tmp_path / "model", bright.pose_model())
    cv2.imwrite(str(tmp_path / "a.png"), bright.spots((96, 160), [(50, 45)]))
    (tmp_path / "many").mkdir()
    for i in range(100):
        os.link(tmp_path / "a.png", tmp_path / "many" / f"{i}.png")

    def start(wait: float) -> subprocess.Popen:
        arguments = [str(pathlib.Path(__file__).parents[1]), "predict", str(tmp_path / "many")]
        arguments += ["--out", str(out), "--model", str(tmp_path / "model"), "--format", "coco"]
        arguments += ["--resume", "--detector", "spots"]
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
                "WAIT": str(wait),
            },
            text=True,
        )

    def stop(process: subprocess.Popen, count: int, number: int) -> str:
        while not (out / run.JOURNAL).exists() or len(journal(out)) < count:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        return process.communicate()[1]

    process = start(0.2)
    assert stop(process, 3, signal.SIGTERM).endswith("rmpe: stopped\n")
    assert process.returncode == 130
    done = len(journal(out))
    assert len(json.loads((out / "coco.json").read_text())) == done < 100
    process = start(0.2)
    stop(process, done + 3, signal.SIGKILL)
    process = start(0)
    process.communicate()
    assert process.returncode == 0
    assert len(journal(out)) == 100
    assert len(json.loads((out / "coco.json").read_text())) == 100
