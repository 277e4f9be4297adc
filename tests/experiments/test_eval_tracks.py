"""`rmpe eval-tracks`: poses of files belong to the right frames, and errors are one line."""

import json

import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.data.posetrack import write_posetrack
from rmpe_jax.data.synthetic.clip_files import clip_video, write_clips
from rmpe_jax.data.synthetic.motion import make_clip
from rmpe_jax.data.tracks import TrackedFrame, TrackedVideo
from rmpe_jax.experiments.eval_tracks import ALL, evaluate_tracks, tracks_table
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.formats import ImagePoses
from rmpe_jax.predict.journal import Journal
from rmpe_jax.skeletons import COCO


@pytest.fixture(scope="module")
def videos() -> list[TrackedVideo]:
    """Two clips of which COCO's joints are known."""
    clips = [make_clip(seed, 6, (128, 228), num_people=3) for seed in (0, 1)]
    return [clip_video(clip, f"clip_{name}") for name, clip in zip("ab", clips, strict=True)]


@pytest.fixture
def truth(videos, tmp_path):
    path = tmp_path / "truth.json"
    write_posetrack(path, videos)
    return path


def write_journal(path, videos, name=lambda frame: frame.name, ids=lambda ids: ids + 10):
    """The annotated people as if `rmpe predict --track` had found them."""
    with Journal(path, COCO) as journal:
        for video in videos:
            for frame in video.frames:
                people = frame.people
                n = len(people.ids)
                scores = np.ones(n, np.float32)
                poses = Poses(
                    people.keypoints.astype(np.float32),
                    people.keypoint_scores.astype(np.float32),
                    scores,
                    people.bboxes.astype(np.float32),
                    scores,
                )
                tracks = ids(people.ids)
                tracks = None if tracks is None else tracks.astype(np.int32)
                journal.add(ImagePoses(name(frame), (128, 228), poses, tracks))
    return path


def test_perfect_tracks_of_all_videos(videos, truth, tmp_path, capsys):
    poses = write_journal(tmp_path / "poses.jsonl", videos)
    out = tmp_path / "scores.json"
    arguments = ["--truth", str(truth), "--poses", str(poses), "--out", str(out)]
    assert cli.main(["eval-tracks", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| people | MOTA | IDF1 | HOTA | DetA | AssA | switches |"
    assert lines[2:5] == [
        f"| {name} | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 0 |"
        for name in ("000001", "000002", ALL)
    ]
    assert lines[6].startswith("| MOTA of joints | Head | Shoulder |")
    assert lines[-1] == f"| {ALL} | {' | '.join(['100.0'] * 8)} |"
    written = json.loads(out.read_text())
    assert written["similarity"] == "oks"
    assert written["videos"][ALL]["IDF1"] == 100
    assert written["videos"]["000001"]["pose"]["Total"] == 100


@pytest.mark.parametrize(
    "name",
    [
        lambda frame: f"images/val/{frame.name}",  # the poses' names have more folders
        lambda frame: frame.name.replace("/", "\\"),
        lambda frame: frame.name.replace(".jpg", ".png"),
    ],
    ids=["folders", "windows", "extension"],
)
def test_names_of_frames(videos, truth, tmp_path, name):
    poses = write_journal(tmp_path / "poses.jsonl", videos, name)
    assert evaluate_tracks(truth, poses)[ALL][0]["IDF1"] == 100


def test_names_of_frames_in_more_folders(videos, tmp_path):
    """The annotations' names have more folders; those of one video may be left out."""
    longer = [
        TrackedVideo(v.name, COCO, tuple(f._replace(name=f"images/val/{f.name}") for f in v.frames))
        for v in videos
    ]
    write_posetrack(tmp_path / "truth.json", longer)
    poses = write_journal(tmp_path / "poses.jsonl", videos)
    assert evaluate_tracks(tmp_path / "truth.json", poses)[ALL][0]["IDF1"] == 100
    write_posetrack(tmp_path / "one.json", longer[:1])
    short = lambda frame: frame.name.rpartition("/")[2]  # noqa: E731
    poses = write_journal(tmp_path / "short.jsonl", videos[:1], short)
    assert evaluate_tracks(tmp_path / "one.json", poses)[ALL][0]["IDF1"] == 100


def test_predictions_in_posetracks_format(videos, truth, tmp_path):
    folder = tmp_path / "found"
    for video in videos:
        write_posetrack(folder / f"{video.name}.json", [video])
    rows = evaluate_tracks(truth, folder, similarity="iou")
    assert rows[ALL][0]["HOTA"] == pytest.approx(100)


def test_wrong_tracks_score_less(videos, truth, tmp_path):
    rng = np.random.default_rng(0)
    poses = write_journal(
        tmp_path / "poses.jsonl", videos, ids=lambda ids: 1 + rng.permutation(len(ids))
    )
    people, joints = evaluate_tracks(truth, poses)[ALL]
    assert people["DetA"] == 100
    assert people["switches"] > 0
    assert people["IDF1"] < 100
    assert joints["Total"] < 100


def test_what_is_missing_is_counted(videos, truth, tmp_path, caplog):
    fewer = [
        TrackedVideo(
            "a", COCO, (*videos[0].frames[:4], TrackedFrame("x/9.jpg", videos[0].frames[0].people))
        )
    ]
    poses = write_journal(
        tmp_path / "poses.jsonl", fewer, ids=lambda ids: np.where(ids == ids.max(), -1, ids)
    )
    found = sum(len(frame.people.ids) for frame in fewer[0].frames[:4])
    rows = evaluate_tracks(truth, poses)
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "1 images that are not annotated frames are left out (the first: x/9.jpg)",
        "8 of 12 annotated frames have no poses: everybody in them counts as missed",
        f"people without a track are left out: 4 of {found}",
    ]
    assert 0 < rows["000001"][0]["MOTA"] < 100
    assert rows["000002"][0]["MOTA"] == 0


def test_heads_without_a_size(videos, tmp_path, caplog):
    for video in videos:
        for frame in video.frames:
            assert np.isfinite(frame.people.head_boxes).all()
    document = tmp_path / "truth.json"
    write_posetrack(document, videos)
    content = json.loads(document.read_text())
    del content["annotations"][0]["bbox_head"]
    document.write_text(json.dumps(content))
    rows = evaluate_tracks(document, write_journal(tmp_path / "poses.jsonl", videos))
    assert "people without bbox_head: PoseTrack's MOTA needs the size" in caplog.text
    last = tracks_table(rows).splitlines()[-1]
    assert last == f"| {ALL} |{' - |' * 8}"
    assert rows["000002"][1]["Total"] == 100


def run_wrong(arguments, capsys):
    assert cli.main(["eval-tracks", *map(str, arguments)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_errors_are_one_line(videos, truth, tmp_path, capsys):
    def error_of(poses, truth=truth):
        return run_wrong(["--truth", truth, "--poses", poses], capsys)

    untracked = write_journal(tmp_path / "untracked.jsonl", videos, ids=lambda ids: None)
    assert error_of(untracked).endswith("nobody has a track_id: predict with --track")
    strange = write_journal(tmp_path / "s.jsonl", videos, lambda f: f"{f.name[:-4]}_x.jpg")
    assert "none of its 12 images (clip_a/000000_x.jpg) is an annotated frame, such as" in error_of(
        strange
    )
    ambiguous = write_journal(tmp_path / "a.jsonl", videos[:1], lambda f: f.name.split("/")[1])
    assert "000000.jpg may be clip_a/000000.jpg or clip_b/000000.jpg: predict" in error_of(
        ambiguous
    )
    (tmp_path / "no.jsonl").write_text("[]\n")
    assert error_of(tmp_path / "no.jsonl").endswith("give poses.jsonl of rmpe predict")
    assert "cannot be read" in error_of(tmp_path / "none.jsonl")
    content = json.loads(truth.read_text())
    del content["annotations"][0]["track_id"]
    truth.write_text(json.dumps(content))
    assert "an annotated person in clip_a/000000.jpg has no track_id: add it" in error_of(ambiguous)


@pytest.mark.slow
def test_from_drawn_images_to_scores(tmp_path, capsys):
    """Draw, predict with the built-in networks, score."""
    write_clips(tmp_path, [0, 1], num_frames=12)
    images, out = str(tmp_path / "images"), str(tmp_path / "poses")
    assert cli.main(["predict", images, "--out", out, "--track"]) == 0
    capsys.readouterr()
    poses, truth = tmp_path / "poses/poses.jsonl", tmp_path / "posetrack.json"
    rows = evaluate_tracks(truth, poses)
    assert set(rows) == {"000001", "000002", ALL}
    assert rows[ALL][0]["IDF1"] > 5
    assert np.isfinite(list(rows[ALL][1].values())).all()
