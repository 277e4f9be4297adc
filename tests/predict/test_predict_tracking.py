"""`rmpe predict --track`: identities in all outputs, resuming, smoothing."""

import json
import logging
import pathlib

import bright
import cv2
import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.detectors import Boxes
from rmpe_jax.errors import UserError
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.predict import run, videos
from rmpe_jax.predict.inputs import find_inputs
from rmpe_jax.predict.journal import read_journal
from rmpe_jax.predict.run import closing_line, predict_files
from rmpe_jax.predict.sequences import Sequences
from rmpe_jax.predict.smoothed import smoothed as smoothed_poses
from rmpe_jax.predict.tracks import describe_lengths
from rmpe_jax.predict.videos import VideoInput
from rmpe_jax.skeletons import COCO

SIZE = (160, 200)
RATE = 10
FRAMES = 16


@pytest.fixture(scope="module")
def estimator():
    """Shared by the tests, so that it compiles once."""
    with pytest.MonkeyPatch.context() as patch:
        bright.register(patch.setattr)
        return PoseEstimator(bright.pose_model(), detector=find_spots, batch_size=2)


def find_spots(image: np.ndarray, name: str = "") -> Boxes:
    """Boxes around spots, but not around the specks that compression makes."""
    spots = cv2.GaussianBlur(image, (0, 0), 3)
    return bright.find_spots(np.minimum(spots.astype(int) * 3 // 2, 255).astype(np.uint8))


def spots_of(frame: int) -> dict[str, tuple[float, float]]:
    """Where people are: two pass each other, one of them is out of sight for two frames.

    A third one comes later. All of them tremble.
    """
    dx, dy = np.random.default_rng(frame).normal(size=2)
    people = {"right": (40 + 8 * frame + dx, 40 + dy), "late": (100 + dy, 80 + dx)}
    people["left"] = (160 - 8 * frame + dx, 125 + dy)
    if frame < 10:
        del people["late"]
    if frame in (6, 7):
        del people["left"]
    return people


def image_of(frame: int) -> np.ndarray:
    return bright.spots(SIZE, list(spots_of(frame).values()))


@pytest.fixture
def clip(tmp_path) -> pathlib.Path:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, SIZE[::-1])
    for frame in range(FRAMES):
        writer.write(image_of(frame))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Frames whose names are in another order as texts than as numbers."""
    path = tmp_path / "frames"
    path.mkdir()
    for frame in range(FRAMES):
        cv2.imwrite(str(path / f"f{frame}.png"), image_of(frame))
    return path


@pytest.fixture
def out(tmp_path) -> pathlib.Path:
    return tmp_path / "out"


def predict(estimator, inputs, out, **options):
    options = {"track": True, **options}
    run.prepare_output_folder(out, {}, options.get("resume", False))
    if not isinstance(inputs, list):
        inputs = find_inputs([str(inputs)])
    return predict_files(inputs, out, estimator, **options)


def results(out: pathlib.Path, name: str = run.JOURNAL):
    return list(read_journal(out / name, COCO))


def ids_by_person(out: pathlib.Path, frame_of) -> dict[str, list[int]]:
    """The ids that each person of `spots_of` has, in the order of the frames."""
    ids: dict[str, list[int]] = {}
    for result in sorted(results(out), key=lambda result: frame_of(result.name)):
        for name, spot in spots_of(frame_of(result.name)).items():
            near = np.abs(result.poses.keypoints[:, 0] - spot).max(-1) < 5
            assert near.sum() == 1
            ids.setdefault(name, []).append(int(result.track_ids[near][0]))
    return ids


def frame_of(name: str) -> int:
    return int("".join(c for c in pathlib.Path(name).stem if c.isdigit()))


def test_people_of_a_video_keep_their_ids_in_all_outputs(estimator, clip, out):
    formats = ("coco", "alphapose", "openpose")
    summary = predict(estimator, clip, out, formats=formats, report=True, draw=True)
    assert ids_by_person(out, frame_of) == {"right": [1] * 16, "left": [2] * 14, "late": [3] * 6}
    assert sorted(summary.track_lengths) == [6, 14, 16]
    assert closing_line(summary) == (
        "16 images, 36 people, 0 unreadable, 3 tracks of 6 to 16 frames, median 14"
    )
    expected = [int(i) for result in results(out) for i in result.track_ids]
    assert set(expected) == {1, 2, 3}
    lines = [json.loads(line) for line in (out / run.JOURNAL).read_text().splitlines()]
    assert [p["track_id"] for line in lines for p in line["people"]] == expected
    coco = json.loads((out / "coco.json").read_text())
    assert [record["track_id"] for record in coco] == expected
    alphapose = json.loads((out / "alphapose-results.json").read_text())
    assert [record["idx"] for record in alphapose] == expected
    openpose = [json.loads(path.read_text()) for path in sorted((out / "openpose").iterdir())]
    assert [p["person_id"] for d in openpose for p in d["people"]] == [[i] for i in expected]
    page = (out / "report.html").read_text()
    assert page.count("<article>") == 2  # one per second
    assert page.count('data-track="1"') == 2
    assert page.count('data-track="3"') == 1
    assert page.count("<aside>") == 1
    assert "<summary>3 tracks of 6 to 16 frames, median 14</summary>" in page
    assert "2</td><td>0</td><td>15</td><td>14</td><td>1.4</td>" in page
    assert not (out / run.SMOOTHED).exists()


def test_without_tracking_nothing_has_ids(estimator, clip, out):
    options = {"formats": ("coco", "alphapose", "openpose"), "report": True, "draw": True}
    summary = predict(estimator, clip, out, track=False, **options)
    assert summary.track_lengths is None
    assert "track" not in closing_line(summary)
    assert all(result.track_ids is None for result in results(out))
    assert "track_id" not in (out / run.JOURNAL).read_text() + (out / "coco.json").read_text()
    records = json.loads((out / "alphapose-results.json").read_text())
    assert {json.dumps(record["idx"]) for record in records} == {"[0.0]"}
    assert "data-track=" not in (out / "report.html").read_text()
    assert "<aside>" not in (out / "report.html").read_text()


def test_drawings_have_the_colors_of_identities(estimator, folder, out, tmp_path):
    predict(estimator, folder, out, draw=True)
    predict(estimator, folder, tmp_path / "plain", draw=True, track=False)
    for frame in (0, 9, 15):
        tracked, plain = (
            cv2.imread(str(place / "drawn" / f"f{frame}.png")).astype(int)
            for place in (out, tmp_path / "plain")
        )
        for name, (x, y) in spots_of(frame).items():
            around = np.s_[max(round(y) - 8, 0) : round(y) + 8, round(x) - 8 : round(x) + 8]
            differs = np.abs(tracked[around] - plain[around]).max(-1) > 50
            assert differs.sum() > 10, name


def test_a_folder_of_frames_is_a_video(estimator, folder, out):
    predict(estimator, folder, out)
    assert ids_by_person(out, frame_of) == {"right": [1] * 16, "left": [2] * 14, "late": [3] * 6}
    assert [result.name for result in results(out)] == [f"f{i}.png" for i in range(FRAMES)]


def test_each_video_has_ids_of_its_own(estimator, folder, clip, out):
    inputs = find_inputs([str(clip), str(folder)])
    summary = predict(estimator, inputs, out)
    assert sorted(summary.track_lengths) == [6, 6, 14, 14, 16, 16]
    both = results(out)
    for video in (both[:FRAMES], both[FRAMES:]):
        assert [result.track_ids.tolist() for result in video[:1]] == [[1, 2]]
        assert {int(i) for result in video for i in result.track_ids} == {1, 2, 3}


def cut(out: pathlib.Path, lines: int) -> None:
    """As a kill leaves the folder after some images."""
    whole = (out / run.JOURNAL).read_bytes().splitlines(keepends=True)
    (out / run.JOURNAL).write_bytes(b"".join(whole[:lines]))


@pytest.mark.parametrize("smooth", ["none", "one-euro", "offline"])
def test_a_resumed_run_continues_the_tracks(estimator, clip, out, tmp_path, smooth):
    """While the person to the left is out of sight. All files are those of a run at once."""
    options = {"formats": ("coco",), "report": True, "smooth": smooth}
    at_once = predict(estimator, clip, tmp_path / "whole", **options)
    predict(estimator, clip, out, **options)
    cut(out, 7)
    resumed = predict(estimator, clip, out, resume=True, **options)
    assert (resumed.images, resumed.already_done) == (9, 7)
    assert resumed.track_lengths == at_once.track_lengths
    names = [run.JOURNAL, "coco.json", *([run.SMOOTHED] if smooth != "none" else [])]
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    page = (out / "report.html").read_text()
    assert (page.count("<article>"), page.count("<aside>")) == (2, 1)
    assert page.index("<aside>") > page.rindex("</article>")


def test_a_frame_that_is_done_again_later_has_no_ids(estimator, folder, out):
    """And the ids of the others do not change by that, nor are they given to others."""
    predict(estimator, folder, out)
    lines = (out / run.JOURNAL).read_bytes().splitlines(keepends=True)
    (out / run.JOURNAL).write_bytes(b"".join(lines[:4] + lines[5:9]))
    predict(estimator, folder, out, resume=True)
    found = ids_by_person(out, frame_of)
    assert found["right"] == [1] * 4 + [-1] + [1] * 11
    assert found["late"] == [3] * 6
    assert found["left"] == [2] * 4 + [-1] + [2] * 9
    written = [line for line in (out / run.JOURNAL).read_text().splitlines() if '"f4.png"' in line]
    assert [person["track_id"] for person in json.loads(written[0])["people"]] == [None, None]


def test_ids_of_a_journal_are_kept_if_the_tracker_gives_others(estimator, folder, out):
    """The person to the left is not in the journal's first frames."""
    predict(estimator, folder, out)
    lines = [json.loads(line) for line in (out / run.JOURNAL).read_text().splitlines()[:9]]
    for line in lines:
        for person in line["people"]:
            person["track_id"] = {1: 7, 2: 5}[person["track_id"]]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / run.JOURNAL).write_text(text)
    predict(estimator, folder, out, resume=True)
    found = ids_by_person(out, frame_of)
    assert found == {"right": [7] * 16, "left": [5] * 14, "late": [8] * 6}


def test_unreadable_frames_are_frames_in_which_everybody_is_missed(estimator, folder, out):
    for frame in (3, 4):
        (folder / f"f{frame}.png").write_bytes(b"junk")
    summary = predict(estimator, folder, out)
    assert (summary.images, summary.unreadable) == (14, 2)
    assert ids_by_person(out, frame_of) == {"right": [1] * 14, "left": [2] * 12, "late": [3] * 6}


def test_people_before_a_webcam_get_new_ids_after_a_pause(estimator, clip, out, monkeypatch):
    webcam = VideoInput("webcam0", 0, float(RATE), None)
    capture = videos._capture
    monkeypatch.setattr(videos, "_capture", lambda source: capture(str(clip)))
    for resume in (False, True):
        summary = predict(estimator, [webcam], out, resume=resume, smooth="one-euro", draw=True)
    assert [result.name[-10:-4] for result in results(out)] == [f"{i:06}" for i in range(32)]
    first, second = results(out)[:16], results(out)[16:]
    assert {int(i) for result in first for i in result.track_ids} == {1, 2, 3}
    assert {int(i) for result in second for i in result.track_ids} == {4, 5, 6}
    assert len(summary.track_lengths) == 6
    times = [result.time for result in results(out)]
    assert times[0] < 60
    assert (np.diff(times[:16]) >= 0).all()
    assert (np.diff(times[16:]) >= 0).all()
    for smooth in ("none", "one-euro"):
        run.check_tracking([webcam], True, smooth, shows_images=True)
    run.check_tracking([webcam], True, "offline", shows_images=False)
    with pytest.raises(UserError, match=r"webcam0: --smooth offline .* cannot be read again: use"):
        predict(estimator, [webcam], out, resume=True, smooth="offline", draw=True)


def trembling(results) -> float:
    """The mean acceleration of the person to the right."""
    path = [result.poses.keypoints[result.track_ids == 1][0, 0] for result in results]
    return float(np.abs(np.diff(path, 2, axis=0)).mean())


@pytest.mark.parametrize("smooth", ["one-euro", "offline"])
def test_smoothed_poses(estimator, clip, out, tmp_path, smooth):
    """poses.jsonl has the poses as found; smoothed.jsonl, formats and drawings the others."""
    options = {"formats": ("coco",), "draw": True, "report": True}
    predict(estimator, clip, tmp_path / "plain", **options)
    predict(estimator, clip, out, smooth=smooth, **options)
    assert (out / run.JOURNAL).read_bytes() == (tmp_path / "plain" / run.JOURNAL).read_bytes()
    found, smoothed = results(out), results(out, run.SMOOTHED)
    assert trembling(smoothed) < {"one-euro": 0.8, "offline": 0.6}[smooth] * trembling(found)
    for a, b in zip(found, smoothed, strict=True):
        assert (a.name, a.size, a.track_ids.tolist()) == (b.name, b.size, b.track_ids.tolist())
        assert 0 < np.abs(a.poses.keypoints - b.poses.keypoints).max() < 12 or a == found[0]
        for ours, theirs in zip(a.poses[1:], b.poses[1:], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    records = json.loads((out / "coco.json").read_text())
    keypoints = [np.array(r["keypoints"]).reshape(17, 3)[:, :2] for r in records]
    expected = np.concatenate([result.poses.keypoints for result in smoothed])
    np.testing.assert_allclose(keypoints, expected, atol=1e-3)
    drawn = [list(frames(place / "drawn" / "clip.mp4")) for place in (out, tmp_path / "plain")]
    assert [len(each) for each in drawn] == [FRAMES, FRAMES]
    assert (drawn[0][9] != drawn[1][9]).any()
    page = (out / "report.html").read_text()
    assert (page.count("<article>"), page.count("<aside>")) == (2, 1)


@pytest.mark.parametrize("smooth", ["one-euro", "offline"])
def test_a_webcam_is_smoothed_by_its_own_time(estimator, clip, out, smooth):
    """Ten times slower than its rate: nothing is smoothed over gaps of a second."""
    webcam = VideoInput("clip", 0, float(RATE), None)
    predict(estimator, clip, out)
    found = results(out)
    for seconds, is_smoothed in ((1 / RATE, True), (1.0, False)):
        timed = [result._replace(time=i * seconds) for i, result in enumerate(found)]
        changed = list(smoothed_poses(timed, Sequences([webcam]), smooth))
        assert (trembling(changed) < 0.8 * trembling(found)) == is_smoothed
        equal = [np.allclose(a.poses.keypoints, b.poses.keypoints, atol=2e-3)
                 for a, b in zip(found, changed, strict=True)]  # fmt: skip
        assert all(equal) != is_smoothed


def frames(path: pathlib.Path):
    capture = cv2.VideoCapture(str(path))
    while (read := capture.read())[0]:
        yield read[1]


def test_drawings_of_offline_smoothing_are_made_at_the_end(estimator, clip, out, monkeypatch):
    """An interrupted run has none; a resumed one draws the whole video."""
    real = run.progress

    def stop(items, total, noun):
        for i, item in enumerate(items):
            if i == 5:
                raise KeyboardInterrupt
            yield item

    options = {"smooth": "offline", "draw": True, "formats": ("coco",)}
    monkeypatch.setattr(run, "progress", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(estimator, clip, out, **options)
    assert len(results(out, run.SMOOTHED)) == 5
    assert json.loads((out / "coco.json").read_text())
    assert not (out / "drawn").exists()
    monkeypatch.setattr(run, "progress", real)
    predict(estimator, clip, out, resume=True, **options)
    assert [path.name for path in (out / "drawn").iterdir()] == ["clip.mp4"]
    assert len(list(frames(out / "drawn" / "clip.mp4"))) == FRAMES


def test_people_without_room_are_counted(estimator, clip, out, caplog, monkeypatch):
    def crowded(state, detections, sigmas, params):
        state = state._replace(num_without_room=state.num_without_room + 2)
        return state, np.full(len(detections.valid), -1, np.int32)

    monkeypatch.setattr("rmpe_jax.predict.tracks.track_frame", crowded)
    with caplog.at_level(logging.WARNING, "rmpe_jax"):
        summary = predict(estimator, clip, out)
    line = "people without a track, because there were 64 already in their frame: 32"
    assert caplog.messages == [line]
    assert closing_line(summary).endswith("no tracks")


def test_the_command(estimator, clip, out, capsys, monkeypatch):
    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    monkeypatch.setattr(PoseEstimator, "from_checkpoint", lambda *_, **__: estimator)
    command = ["predict", str(clip), "--out", str(out)]
    assert cli.main([*command, "--smooth", "one-euro"]) == 1
    assert capsys.readouterr().err == "rmpe: --smooth needs to know who is who: add --track\n"
    assert not out.exists()
    tracked = [*command, "--track", "--smooth", "one-euro"]
    assert cli.main(tracked) == 0
    assert "3 tracks of 6 to 16 frames, median 14; wrote" in capsys.readouterr().out
    assert len(results(out, run.SMOOTHED)) == FRAMES
    for other, message in (
        (command, "with track True, not False"),
        ([*command, "--track"], "with smooth 'one-euro', not None"),
        ([*command, "--track", "--smooth", "offline"], "with smooth 'one-euro', not 'offline'"),
    ):
        assert cli.main([*other, "--resume"]) == 1
        assert message in capsys.readouterr().err
    assert cli.main([*tracked, "--resume"]) == 0
    assert "16 images already done" in capsys.readouterr().out


def test_parameters_of_the_tracker_from_a_file(estimator, clip, out, tmp_path, capsys, monkeypatch):
    """A track ends with the first miss, so the person who is missed begins another one."""
    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    monkeypatch.setattr(PoseEstimator, "from_checkpoint", lambda *_, **__: estimator)
    params = tmp_path / "params.json"
    params.write_text('{"max_missed": 0}')
    command = ["predict", str(clip), "--out", str(out), "--tracker-params", str(params)]
    assert cli.main(command) == 1
    line = "rmpe: --tracker-params is for the tracker: add --track\n"
    assert capsys.readouterr().err == line
    assert cli.main([*command, "--track"]) == 0
    assert ids_by_person(out, frame_of)["left"] == [2] * 6 + [3] * 8
    assert cli.main([*command[:-2], "--track", "--resume"]) == 1
    assert "has results with tracker_params" in capsys.readouterr().err
    params.write_text('{"max_missed": 7}')
    assert cli.main([*command, "--track", "--resume"]) == 1
    assert "has results with tracker_params" in capsys.readouterr().err
    params.write_text('{"max_lost": 0}')
    assert cli.main([*command, "--track", "--resume"]) == 1
    assert f"{params}: tracking has no parameter 'max_lost'" in capsys.readouterr().err


def test_results_of_a_run_without_these_settings_are_resumed(out):
    """Folders of earlier versions do not have them."""
    run.prepare_output_folder(out, {"model": "m"})
    (out / run.JOURNAL).write_text("{}\n")
    settings = {"model": "m", "track": False, "smooth": None}
    run.check_output_folder(out, settings, resume=True)
    with pytest.raises(UserError, match="has results with track None, not True"):
        run.check_output_folder(out, {**settings, "track": True}, resume=True)


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        ([], "no tracks"),
        ([1], "1 track of 1 frame"),
        ([5, 5], "2 tracks of 5 frames"),
        ([1500, 2, 30], "3 tracks of 2 to 1,500 frames, median 30"),
    ],
)
def test_lengths_in_words(lengths, text):
    assert describe_lengths(lengths) == text
