"""The demo, `rmpe train` and `rmpe eval`, end to end on a few scenes."""

import json
import pathlib
import subprocess
import sys

import cv2
import pytest

from rmpe_jax.experiments import demo as demo_module

REPO = pathlib.Path(__file__).parents[2]
SMALL = (
    "--config.model.input_size=(64, 32)",
    "--config.total_steps=4",
    "--config.batch_size=4",
)


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    """The demo's folder after a run with six scenes and four steps."""
    out = tmp_path_factory.mktemp("demo")
    load_config = demo_module.load_config

    def small_config(spec):
        config = load_config(spec)
        config.model.input_size = (64, 32)
        config.total_steps, config.batch_size = 4, 4
        config.log_every = config.checkpoint_every = config.evaluate_every = 2
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "load_config", small_config)
        patch.setattr(demo_module, "TRAIN_SEEDS", range(6))
        patch.setattr(demo_module, "VAL_SEEDS", range(100, 103))
        demo_module.demo(out)
        yield out


def run(*command):
    """Runs `python COMMAND`."""
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)


def run_eval(folder, *args):
    return run("eval.py", f"--config=configs/synthetic.py:{folder}", *SMALL, *args)


def test_demo_leaves_a_table_curves_and_a_sheet(small_demo):
    rows = json.loads((small_demo / "ap.json").read_text())
    assert set(rows) == {"ground-truth boxes", "imperfect boxes"}
    assert all(0 <= row["AP"] <= row["AP50"] <= 1 for row in rows.values())
    for name in ("learning_curves.png", "people.png"):
        assert min(cv2.imread(str(small_demo / name)).shape[:2]) > 100
    steps = [json.loads(line)["step"] for line in (small_demo / "run/metrics.jsonl").open()]
    assert sorted(set(steps)) == [2, 4]


def test_demo_ends_with_a_photo(small_demo):
    (line,) = (small_demo / "photo/poses.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "grace_hopper.jpg"
    assert cv2.imread(str(small_demo / "photo/drawn/grace_hopper.jpg")).shape == (600, 512, 3)
    assert (small_demo / "photo/report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_a_second_demo_does_not_train(small_demo, capsys):
    demo_module.demo(small_demo)
    assert "nothing left to do" in capsys.readouterr().err


def test_eval_writes_what_it_prints(small_demo):
    done = run_eval(small_demo, f"--workdir={small_demo / 'run'}", "--boxes=gt", "--flip_test")
    assert done.returncode == 0, done.stderr
    (folder,) = [line for line in done.stdout.splitlines() if line.startswith("files: ")]
    folder = pathlib.Path(folder.removeprefix("files: "))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"| {metrics['AP']:.3f} |" in done.stdout
    assert metrics["flip_test"] is True
    assert metrics["nms"] == "none"
    results = json.loads((folder / "results.json").read_text())
    assert len(results[0]["keypoints"]) == 51
    assert cv2.imread(str(folder / "people.png")) is not None


@pytest.mark.slow
def test_eval_by_model_equals_eval_by_config(small_demo, tmp_path):
    workdir, old, new = small_demo / "run", tmp_path / "old", tmp_path / "new"
    done = run_eval(small_demo, f"--workdir={workdir}", "--flip_test", f"--out={old}")
    assert done.returncode == 0, done.stderr
    data = f"--data=coco:{small_demo / 'val'}"
    command = ("-m", "rmpe_jax.cli", "eval", f"--model={workdir}", data, "--checkpoint=last")
    done = run(*command, "--flip-test", f"--out={new}")
    assert done.returncode == 0, done.stderr
    (old,), (new,) = old.iterdir(), new.iterdir()
    assert old.name == new.name
    for name in ("metrics.json", "results.json"):
        assert json.loads((old / name).read_text()) == json.loads((new / name).read_text())
    assert json.loads((new / "metrics.json").read_text())["flip_test"] is True


@pytest.mark.slow
def test_an_old_config_key_is_one_line(small_demo):
    done = run_eval(
        small_demo, f"--workdir={small_demo / 'run'}", "--config.codec.integer_centre=True"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "--config.codec.integer_centre is now called --config.codec.integer_center; "
        "the old name still works\n"
    )


@pytest.mark.slow
def test_eval_after_nms(small_demo):
    boxes = f"--boxes={small_demo / 'val/detections.json'}"
    done = run_eval(small_demo, f"--workdir={small_demo / 'run'}", boxes, "--nms=rmpe")
    assert done.returncode == 0, done.stderr
    folder = pathlib.Path(done.stdout.splitlines()[-1].removeprefix("files: "))
    assert folder.name.endswith("-detections-rmpe")
    assert json.loads((folder / "metrics.json").read_text())["nms"] == "rmpe"
    results = json.loads((folder / "results.json").read_text())
    assert len(results) < len(json.loads((small_demo / "val/detections.json").read_text()))


def one_line(done):
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.slow
def test_eval_on_unknown_images_is_one_line(small_demo, tmp_path):
    record = {"image_id": 424242, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}
    (tmp_path / "boxes.json").write_text(json.dumps([record]))
    done = run_eval(
        small_demo, f"--workdir={small_demo / 'run'}", f"--boxes={tmp_path / 'boxes.json'}"
    )
    line = one_line(done)
    assert "424242" in line
    assert "boxes.json" in line


def test_eval_without_a_checkpoint_is_one_line(small_demo, tmp_path):
    assert "no checkpoint" in one_line(run_eval(small_demo, f"--workdir={tmp_path}"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_checkpoint_of_another_network_is_one_line(small_demo, command):
    config = f"--config=configs/synthetic.py:{small_demo}"
    arguments = (f"--workdir={small_demo / 'run'}", "--config.model.name=tinypose_m")
    line = one_line(run("-m", "rmpe_jax.cli", command, config, *SMALL, *arguments))
    assert "tinypose_s" in line
    assert "tinypose_m" in line
