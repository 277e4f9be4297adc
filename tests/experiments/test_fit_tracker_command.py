"""`rmpe fit-tracker` from files to files, its objective, and its error messages."""

import json

import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.data.synthetic.clip_files import clip_video, write_clips
from rmpe_jax.data.synthetic.motion import make_clip
from rmpe_jax.data.tracks import TrackedVideo
from rmpe_jax.evaluation.tracks import add_counts, count_tracks, track_metrics
from rmpe_jax.experiments.fit_tracker import FoundVideos, idf1_objective, padded_videos, with_ids
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.formats import ImagePoses
from rmpe_jax.predict.journal import write_journal
from rmpe_jax.skeletons import COCO
from rmpe_jax.tracking.params import load_params

SEEDS, FRAMES, SCORE = (3, 4), 5, 0.28  # people with this score start no track by default


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two drawn clips, and their people as if `rmpe predict` had found all of them, unsurely."""
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, SEEDS, FRAMES)
    results = []
    for seed in SEEDS:
        for frame in clip_video(make_clip(seed, FRAMES), f"clip_{seed:06d}").frames:
            people = frame.people
            scores = np.full(len(people.ids), SCORE, np.float32)
            poses = Poses(
                people.keypoints.astype(np.float32),
                np.full(people.keypoint_scores.shape, SCORE, np.float32),
                scores,
                people.bboxes.astype(np.float32),
                scores,
            )
            results.append(ImagePoses(frame.name, (360, 640), poses))
    write_journal(folder / "poses.jsonl", results, COCO)
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))


def arguments_of(folder, out, *options):
    truth, poses = folder / "posetrack.json", folder / "poses.jsonl"
    named = ["--truth", truth, "--poses", poses, "--out", out]
    return ["fit-tracker", *map(str, named), *options]


def test_from_files_to_files(folder, tmp_path, capsys):
    out = tmp_path / "tracker"
    options = ("--steps", "2", "--hold-out", "0.5")
    assert cli.main(arguments_of(folder, out, *options)) == 0
    printed = capsys.readouterr().out
    searches = json.loads((out / "searches.json").read_text())
    assert printed.count("sweep ") == len(searches)
    assert np.shape(searches[0]["scores"]) == (2, 2)
    params = load_params(out / "params.json")
    assert max(params.sure_score, params.birth_score) <= SCORE
    tables = [table.splitlines() for table in printed.split("\n\n") if table.startswith("| ")]
    titles = ("learned from 1 video", "1 video held out")
    for (head, _, default, learned), title in zip(tables, titles, strict=True):
        assert head == f"| {title} | IDF1 | MOTA | HOTA | switches |"
        assert default == "| default | 0.0 | 0.0 | 0.0 | 0 |"
        assert float(learned.split("|")[2]) > 80
    assert f"| learned | {100 * searches[-1]['score']:.1f} |" in tables[0][3]
    assert "These are the videos learned from" not in printed


def test_the_objective_is_the_idf1_of_the_evaluation():
    """Videos of different lengths with frames that are not labeled."""
    rng = np.random.default_rng(0)
    videos, found = [], []
    for seed, length in ((0, 6), (1, 4)):
        video = clip_video(make_clip(seed, length, (128, 228), num_people=3), "clip")
        frames = [f._replace(is_labeled=i != 2) for i, f in enumerate(video.frames)]
        videos.append(TrackedVideo("clip", COCO, tuple(frames)))
        found.append([f.people.pick(rng.permutation(len(f.people.ids))) for f in frames])
    data = FoundVideos(videos, COCO, found)
    shape = padded_videos(data).valid.shape
    assert shape == (2, 6, 8)
    objective = idf1_objective(data, shape)
    scores = set()
    for _ in range(4):
        ids = np.argsort(rng.uniform(size=shape), -1)
        ids[rng.uniform(size=shape) < 0.3] = -1
        counts = [
            count_tracks(video.frames, with_ids(video, of_video, COCO, of_ids), COCO)
            for video, of_video, of_ids in zip(videos, found, ids, strict=True)
        ]
        score = objective(ids)
        assert 100 * score == pytest.approx(track_metrics(add_counts(counts))["IDF1"])
        scores.add(score)
    assert len(scores) > 1


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda d: None, ("--hold-out", "0.2"), "0.2 of 2 videos is 0: choose --hold-out so that"),
        (lambda d: None, ("--hold-out", "1"), "1 of 2 videos is 2: choose --hold-out so that"),
        (lambda d: d["annotations"].clear(), (), "nobody is annotated (learned from 2 videos)"),
        (lambda d: d["annotations"][0].pop("track_id"), (), "has no track_id: add it"),
    ],
)
def test_errors_are_one_line(folder, tmp_path, change, options, message, capsys):
    document = json.loads((folder / "posetrack.json").read_text())
    change(document)
    (tmp_path / "posetrack.json").write_text(json.dumps(document))
    (tmp_path / "poses.jsonl").write_bytes((folder / "poses.jsonl").read_bytes())
    assert cli.main(arguments_of(tmp_path, tmp_path / "out", *options)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_poses_in_another_format(folder, tmp_path, capsys):
    truth = str(folder / "posetrack.json")
    arguments = ["fit-tracker", "--truth", truth, "--poses", truth, "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 1
    assert "posetrack.json: give the poses.jsonl of rmpe predict" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_the_search(folder, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert cli.main(arguments_of(folder, tmp_path / "out")) == 1
    printed = capsys.readouterr()
    assert "sweep" not in printed.out
    assert printed.err.count("\n") == 1


def test_poses_of_nobody(folder, tmp_path, capsys):
    (tmp_path / "posetrack.json").write_bytes((folder / "posetrack.json").read_bytes())
    lines = map(json.loads, (folder / "poses.jsonl").read_text().splitlines())
    empty = [json.dumps(line | {"people": []}) + "\n" for line in lines]
    (tmp_path / "poses.jsonl").write_text("".join(empty))
    assert cli.main(arguments_of(tmp_path, tmp_path / "out")) == 1
    assert "nobody is found (learned from 2 videos): give" in capsys.readouterr().err
