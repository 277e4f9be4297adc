"""`rmpe predict` from files to files, with a network that finds bright spots."""

import contextlib
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import weakref

import bright
import cv2
import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.detectors import Boxes
from rmpe_jax.detectors.lookup import NO_BOXES, from_file
from rmpe_jax.errors import UserError
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.lock import FolderLock
from rmpe_jax.predict import inputs, run
from rmpe_jax.predict.inputs import find_inputs
from rmpe_jax.predict.journal import read_journal
from rmpe_jax.predict.run import Summary, predict_files
from rmpe_jax.skeletons import COCO

SETTINGS = {"model": "bright", "detector": "spots"}


@pytest.fixture(scope="module")
def estimator():
    """Shared by the tests, so that it compiles once; two images per batch."""
    with pytest.MonkeyPatch.context() as patch:
        bright.register(patch.setattr)
        return PoseEstimator(bright.pose_model(), detector=bright.find_spots, batch_size=2)


def spots_of(index: int) -> list[tuple[int, int]]:
    """The people of an image: none, one or two."""
    return [(40 + 3 * index, 40), (110, 60)][: index % 3]


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
    """A folder of eight images; the fourth is damaged."""
    folder = tmp_path / "images"
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
    results = list(read_journal(out / run.JOURNAL, COCO))
    assert len({result.name for result in results}) == len(results)
    return {result.name: result for result in results}


def test_images_of_which_one_is_damaged(estimator, images, out, caplog):
    with caplog.at_level(logging.WARNING, "rmpe_jax"):
        formats = ("coco", "alphapose", "openpose", "jsonl")
        summary = predict(estimator, images, out, formats=formats, draw=True, report=True)
    assert summary == Summary(images=7, people=7, unreadable=1)
    assert [record.message for record in caplog.records] == [
        f"skipped: {images / '3.png'} is not an image or is damaged: fetch it again"
    ]
    found = journal(out)
    assert sorted(found) == [f"{i}.png" for i in (0, 1, 2, 4, 5, 6, 7)]
    for name, result in found.items():
        centers = spots_of(int(name[0]))
        assert result.size == (100, 150)
        keypoints = result.poses.keypoints[result.poses.keypoints[:, 0, 0].argsort()]
        assert keypoints.shape[0] == len(centers)
        if centers:
            assert np.abs(keypoints - np.array(centers)[:, None]).max() < 1
    assert len(json.loads((out / "coco.json").read_text())) == 7
    assert len(json.loads((out / "alphapose-results.json").read_text())) == 7
    assert len(list((out / "openpose").iterdir())) == 7
    drawn = cv2.imread(str(out / "drawn" / "5.png"))
    assert (drawn != cv2.imread(str(images / "5.png"))).any()
    assert (out / "report.html").read_text().count("<article>") == 7


def test_a_killed_run_is_resumed(estimator, images, out, tmp_path):
    """A kill leaves complete lines and a part of one."""
    predict(estimator, images, tmp_path / "complete", formats=("coco",))
    lines = (tmp_path / "complete" / run.JOURNAL).read_bytes().splitlines(keepends=True)
    out.mkdir()
    (out / run.JOURNAL).write_bytes(b"".join(lines[:3]) + lines[3][:50])
    (out / "settings.json").write_text(json.dumps(SETTINGS))
    detected = []
    detect = estimator.detect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "detect", lambda *a: detected.append(a[1]) or detect(*a))
        summary = predict(
            estimator, images, out, formats=("coco",), resume=True, report=True, draw=True
        )
    assert (summary.images, summary.unreadable, summary.already_done) == (4, 1, 3)
    assert detected == ["4.png", "5.png", "6.png", "7.png"]
    assert (out / run.JOURNAL).read_bytes() == b"".join(lines)
    assert (out / "coco.json").read_bytes() == (tmp_path / "complete" / "coco.json").read_bytes()
    assert (out / "report.html").read_text().count("<article>") == 7
    assert sorted(path.name for path in (out / "drawn").iterdir()) == sorted(journal(out))


def test_earlier_results_whose_images_are_lost_are_counted(estimator, images, out, caplog):
    predict(estimator, images, out)
    (images / "5.png").write_bytes(b"")
    (images / "6.png").write_bytes(b"")
    caplog.clear()
    predict(estimator, images, out, resume=True, draw=True)
    assert caplog.messages[0] == (
        "images with earlier results that cannot be shown: 2, such as: "
        f"image {images / '5.png'} is empty (0 bytes): fetch it again"
    )
    drawn = [path.name for path in (out / "drawn").iterdir()]
    assert sorted(drawn) == [f"{i}.png" for i in (0, 1, 2, 4, 7)]


def test_results_are_not_overwritten_or_mixed(estimator, images, out):
    predict(estimator, images, out)
    with pytest.raises(UserError, match="has results already: continue with --resume"):
        predict(estimator, images, out)
    with pytest.raises(UserError, match="with model 'bright', not 'dim'"):
        predict(estimator, images, out, {**SETTINGS, "model": "dim"}, resume=True)
    with pytest.raises(UserError, match="with inputs None, not"):
        predict(estimator, images, out, {**SETTINGS, "inputs": ["other"]}, resume=True)
    again = predict(estimator, images, out, resume=True)
    assert (again.images, again.already_done) == (0, 7)
    (out / "settings.json").write_text("[")
    with pytest.raises(UserError, match=r"settings\.json cannot be read"):
        predict(estimator, images, out, resume=True)


def test_a_second_run_is_refused_and_the_first_goes_on(estimator, images, out, capsys, monkeypatch):
    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    arguments = ["predict", "--out", str(out), "--resume", str(images / "1.png")]
    settings = []

    def load(*_, **options):
        monkeypatch.setattr(PoseEstimator, "from_checkpoint", lambda *_, **__: estimator)
        settings.append(os.listdir(out))
        assert cli.main([*arguments, "--flip-test"]) == 1
        settings.append(os.listdir(out))
        return estimator

    monkeypatch.setattr(PoseEstimator, "from_checkpoint", load)
    assert cli.main(arguments) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "in use" in line]
    assert line.startswith(f"rmpe: {out} is in use by process {os.getpid()} on host ")
    assert settings == [[".lock"], [".lock"]]
    assert list(journal(out)) == ["1.png"]
    assert not (out / ".lock").exists()


@pytest.mark.parametrize("option", ["--model", "--detector"])
def test_a_refused_command_writes_nothing(images, out, capsys, monkeypatch, option):
    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    arguments = ["predict", "--out", str(out), str(images / "1.png"), option, "typo.onnx"]
    assert cli.main(arguments) == 1
    assert "typo.onnx" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    (out / "settings.json").write_text("of an earlier run")
    assert cli.main(arguments) == 1
    assert (out / "settings.json").read_text() == "of an earlier run"
    assert os.listdir(out) == ["settings.json"]


def test_a_run_that_lost_its_folder_stops(estimator, images, out, monkeypatch):
    def lose(items, total, noun):
        for i, item in enumerate(items):
            if i == 2:
                (out / ".lock").write_text("of another process")
            yield item

    monkeypatch.setattr(run, "progress", lose)
    with FolderLock(out) as lock, pytest.raises(UserError, match="belongs to another process now"):
        predict(estimator, images, out, lock=lock)
    assert list(journal(out)) == ["0.png", "1.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("disk full")])
def test_an_interrupted_run_writes_its_results(estimator, images, out, error, monkeypatch):
    def stop(items, total, noun):
        for i, item in enumerate(items):
            if i == 2:
                raise error
            yield item

    monkeypatch.setattr(run, "progress", stop)
    threads = threading.active_count()
    with pytest.raises(type(error)):
        predict(estimator, images, out, formats=("coco", "openpose"))
    assert threading.active_count() == threads
    assert list(journal(out)) == ["0.png", "1.png"]
    assert len(json.loads((out / "coco.json").read_text())) == 1
    assert len(list((out / "openpose").iterdir())) == 2


def test_an_error_of_the_detector_stops_all_stages(estimator, images, out):
    def broken(image, name):
        if name == "2.png":
            raise UserError("the detector is broken")
        return bright.find_spots(image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "_detector", broken)
        threads = threading.active_count()
        with pytest.raises(UserError, match="the detector is broken"):
            predict(estimator, images, out)
    assert threading.active_count() == threads
    assert list(journal(out)) == ["0.png", "1.png"]  # the batch before it


def failing(names, function):
    """`function`, of an image and its name or of images, which fails for some of them."""

    def call(image, name):
        if name in names:
            raise ValueError(f"broken\nby {name}")
        return function(image)

    return call


def test_an_error_of_the_detector_loses_one_image(estimator, images, out, caplog):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "_detector", failing(["2.png"], bright.find_spots))
        summary = predict(estimator, images, out, formats=("coco",))
    assert summary == Summary(images=6, people=5, unreadable=1, failed=1)
    assert sorted(journal(out)) == [f"{i}.png" for i in (0, 1, 4, 5, 6, 7)]
    line = "the detector failed on 2.png; this error and where it was raised:"
    assert caplog.messages[:2] == [
        line,
        "skipped: 2.png: the detector failed (ValueError: broken)",
    ]
    assert "in call\n    raise ValueError" in caplog.text  # the traceback
    assert run.closing_line(summary) == (
        "6 images, 5 people, 1 unreadable, 1 on which the detector or the network failed"
    )
    again = predict(estimator, images, out, resume=True)  # it is not done
    assert (again.images, again.already_done, again.failed) == (1, 6, 0)


def test_an_error_of_the_network_loses_one_image(estimator, images, out, caplog):
    """The other image of the batch is estimated alone."""
    cv2.imwrite(str(images / "4.png"), bright.spots((104, 150), spots_of(4)))
    estimate, batches = estimator.estimate_batch, []

    def estimate_batch(images, boxes):
        batches.append([image.shape[0] for image in images])
        if 104 in batches[-1]:
            raise RuntimeError("out of memory")
        return estimate(images, boxes)

    def estimate_alone(image, bboxes, scores):
        return estimate_batch([image], [Boxes(bboxes, scores)])[0]

    predict(estimator, images, out.with_name("complete"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "estimate_batch", estimate_batch)
        patch.setattr(estimator, "estimate", estimate_alone)
        summary = predict(estimator, images, out)
    assert summary == Summary(images=6, people=6, unreadable=1, failed=1)
    assert batches == [[100, 100], [100], [104, 100], [104], [100], [100, 100]]
    assert "skipped: 4.png: the network failed (RuntimeError: out of memory)" in caplog.messages
    complete = journal(out.with_name("complete"))
    for name, result in journal(out).items():
        np.testing.assert_allclose(
            result.poses.keypoints, complete[name].poses.keypoints, atol=1e-3
        )


def test_a_detector_that_always_fails_is_an_error(estimator, images, out):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "_detector", failing([f"{i}.png" for i in range(8)], None))
        with pytest.raises(UserError, match=r"none of the 8 images has a result: .* failed on 7"):
            predict(estimator, images, out)
    assert list(journal(out)) == []


def test_a_broken_detector_stops_the_run_early(estimator, images, out, caplog):
    """After 20 images; one traceback is logged."""
    for i in range(8, 60):
        os.link(images / "1.png", images / f"{i}.png")
    everything = [f"{i}.png" for i in range(60)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "_detector", failing(everything, None))
        with pytest.raises(UserError, match=r"^stopped: .* failed on 20 images, and no image"):
            predict(estimator, images, out)
        assert sum("the detector failed (Value" in line for line in caplog.messages) == 20
        assert caplog.text.count("Traceback") == 1
        patch.setattr(estimator, "_detector", failing(everything[1:], bright.find_spots))
        assert predict(estimator, images, out).failed == 58  # all others, after one success


def test_a_batch_that_succeeds_one_by_one_is_logged(estimator, images, out, caplog):
    def estimate_batch(images, boxes):
        raise RuntimeError("out of memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "estimate_batch", estimate_batch)
        assert predict(estimator, images, out).failed == 0
    (line,) = [line for line in caplog.messages if "failed" in line]
    assert line.startswith("the network failed on a batch of 2, the first is 0.png; it gets the")
    assert caplog.text.count("RuntimeError: out of memory") == 1


def test_a_batch_is_released_before_the_next_is_collected(estimator, monkeypatch):
    monkeypatch.setattr(estimator, "batch_size", 4)
    alive, counts = weakref.WeakSet(), []

    def detected():
        for i in range(12):
            counts.append(len(alive))
            image = np.zeros((9, 9, 3), np.uint8).view(Counted)
            alive.add(image)
            yield inputs.Frame(str(i), image), NO_BOXES
            del image

    for _ in run._estimate(detected(), estimator):
        pass
    # At the start of a batch the consumer has the last image of the batch before.
    assert counts == [0, 1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4]


class Counted(np.ndarray):
    """An array that can be in a `WeakSet`."""

    __hash__ = object.__hash__  # pyrefly: ignore
    __eq__ = object.__eq__  # pyrefly: ignore


def test_boxes_of_one_image_for_two(estimator, images, out, tmp_path):
    """An error before anything is computed or written."""
    (images / "more").mkdir()
    os.link(images / "5.png", images / "more" / "000005.png")
    boxes = [{"image_id": 5, "bbox": [1, 2, 30, 40], "score": 1}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "_detector", from_file(tmp_path / "boxes.json"))
        with pytest.raises(UserError, match=r"an image 5, which may be 5\.png or more/000005\.png"):
            predict(estimator, images, out)
    assert not (out / run.JOURNAL).exists()


def test_images_without_boxes_are_counted_in_one_line(estimator, images, out, tmp_path, caplog):
    boxes = [{"image_id": 5.0, "category_id": 0, "bbox": [30, 20, 50, 50], "score": 1}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "_detector", from_file(tmp_path / "boxes.json"))
        assert predict(estimator, images, out).people == 1
    about_boxes = [line for line in caplog.messages if "boxes.json" in line]
    assert about_boxes == [
        f"detections file {tmp_path}/boxes.json: category 0 is taken as person, because nothing "
        "has category 1",
        f"detections file {tmp_path}/boxes.json has no boxes of 7 of 8 images, such as 0.png",
    ]
    assert [name for name, result in journal(out).items() if len(result.poses.scores)] == ["5.png"]


def test_the_closing_line_says_what_was_not_read(estimator, images, out, capsys, monkeypatch):
    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    monkeypatch.setattr(PoseEstimator, "from_checkpoint", lambda *_, **__: estimator)
    (images / "bad.mp4").write_bytes(b"junk")
    for name in ("notes.txt", "list.json"):
        (images / name).write_text("no image")
    assert cli.main(["predict", str(images), "--out", str(out)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(
        "7 images, 7 people, 2 unreadable, passed over 2 files that are neither image nor video "
        f"(list.json, notes.txt); wrote {out} in "
    )
    (images / "3.png").unlink()
    assert cli.main(["predict", str(images), "--out", str(out), "--resume"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("0 images, 0 people, 1 unreadable, 7 images already done, passed over 2")


@pytest.mark.parametrize(("queue_bytes", "most_ahead"), [(10**9, 20), (1, 11)])
def test_images_in_memory_are_limited_in_bytes(estimator, queue_bytes, most_ahead, monkeypatch):
    """A batch of four, an image in each queue, and an image in the hands of each stage."""
    monkeypatch.setattr(run, "_QUEUE_BYTES", queue_bytes)
    monkeypatch.setattr(estimator, "batch_size", 4)
    monkeypatch.setattr(estimator, "_detector", lambda image, name: NO_BOXES)
    made = 0

    def frames():
        nonlocal made
        for i in range(60):
            made += 1
            yield inputs.Frame(str(i), np.zeros((9, 9, 3), np.uint8))

    ahead = []
    with contextlib.closing(run.estimate_frames(frames(), estimator)) as results:
        for taken, (frame, poses) in enumerate(results, 1):
            assert (frame.name, len(poses.scores)) == (str(taken - 1), 0)
            time.sleep(0.01)
            ahead.append(made - taken)
    assert len(ahead) == 60
    assert max(ahead) <= most_ahead
    assert max(ahead) > 11 or queue_bytes == 1


def test_no_image_can_be_read(estimator, tmp_path, out):
    (tmp_path / "a.jpg").write_bytes(b"junk")
    for _ in range(2):  # the first run leaves no results, so the second can start
        with pytest.raises(UserError, match="none of the 1 images can be read"):
            predict(estimator, tmp_path / "a.jpg", out)


def test_boxes_are_drawn_on_request(estimator, images, out, tmp_path):
    predict(estimator, images / "1.png", out, draw=True)
    predict(estimator, images / "1.png", tmp_path / "boxes", draw=True, draw_boxes=True)
    without, boxes = (cv2.imread(str(f / "drawn/1.png")) for f in (out, tmp_path / "boxes"))
    x, y, right, bottom = journal(out)["1.png"].poses.bboxes[0].round().astype(int)
    different = np.argwhere((without != boxes).any(-1))
    assert np.abs(different.min(0) - [y, x]).max() <= 2
    assert np.abs(different.max(0) - [bottom, right]).max() <= 2


@pytest.mark.parametrize("option", ["--draw", "--draw-boxes", "--boxes"])
def test_options_that_draw(estimator, images, out, tmp_path, capsys, monkeypatch, option):
    """`--boxes` is the old name of `--draw-boxes`."""
    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    monkeypatch.setattr(PoseEstimator, "from_checkpoint", lambda *_, **__: estimator)
    assert cli.main(["predict", str(images / "1.png"), "--out", str(out), option]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any("--draw-boxes" in line for line in lines) == (option == "--boxes")
    predict(
        estimator, images / "1.png", tmp_path / "expected", draw=True, draw_boxes="box" in option
    )
    drawn, expected = (cv2.imread(str(f / "drawn/1.png")) for f in (out, tmp_path / "expected"))
    assert drawn is not None
    np.testing.assert_array_equal(drawn, expected)


def write_video(path: pathlib.Path) -> pathlib.Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 2, (160, 96))
    for i in range(6):
        writer.write(bright.spots((96, 160), [(50 + 10 * i, 45)]))
    writer.release()
    return path


def test_a_video_is_read_drawn_and_resumed(estimator, tmp_path, out):
    video = write_video(tmp_path / "clip.mp4")
    summary = predict(estimator, video, out, draw=True, report=True)
    assert (summary.images, summary.people) == (6, 6)
    for i, result in enumerate(journal(out).values()):
        assert result.name == f"clip_{i:06}.jpg"
        assert np.abs(result.poses.keypoints - np.array([50 + 10 * i, 45])).max() < 2
    capture = cv2.VideoCapture(str(out / "drawn" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert capture.get(cv2.CAP_PROP_FPS) == 2
    assert (out / "report.html").read_text().count("<article>") == 3  # one per second
    lines = (out / run.JOURNAL).read_bytes().splitlines(keepends=True)
    (out / run.JOURNAL).write_bytes(b"".join(lines[:4]))
    resumed = predict(estimator, video, out, draw=True, report=True, resume=True)
    assert resumed.images == 2
    assert (out / "report.html").read_text().count("<article>") == 3
    assert (out / run.JOURNAL).read_bytes() == b"".join(lines)
    rest = cv2.VideoCapture(str(out / "drawn" / "clip_000004.mp4"))
    assert rest.get(cv2.CAP_PROP_FRAME_COUNT) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing.jpg"], "rmpe: nothing.jpg: no such file or folder; check the path"),
        (["EMPTY"], "no images or videos there"),
        (["VIDEO"], "cannot be read: check that it is there"),
        (["IMAGE", "--detector", "whole", "--model", "none"], "none: no model there; name"),
    ],
)
def test_invalid_arguments_give_one_line(arguments, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "VIDEO").with_suffix(".avi").write_bytes(b"no video")
    cv2.imwrite(str(tmp_path / "IMAGE.png"), np.zeros((9, 9), np.uint8))
    places = {"EMPTY": "EMPTY", "VIDEO": "VIDEO.avi", "IMAGE": "IMAGE.png"}
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
    """After SIGTERM the formats are written; after SIGKILL there is only the journal."""
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
