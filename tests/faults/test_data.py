"""Images that are damaged while a program runs, slow storage, and workers that are killed."""

import json
import os
import pathlib
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest
import toy
from programs import PROGRAMS, finish, train

from rmpe_jax.config import default_config
from rmpe_jax.data import sources
from rmpe_jax.data.synthetic import write_coco_folder
from rmpe_jax.training import loop

pytestmark = pytest.mark.faults

STEPS = 300
LONG = (
    f"--config.total_steps={STEPS}",
    "--config.checkpoint_every=60",
    "--config.evaluate_every=0",
    "--config.data.evaluate=()",
)


def steps_of(workdir: pathlib.Path) -> int:
    """The number of steps in the metrics of a run."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_steps(workdir: pathlib.Path, process: subprocess.Popen, count: int) -> None:
    while steps_of(workdir) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_an_image_that_is_cut_while_a_network_is_trained(tmp_path, tell):
    """It is named once, and counted in the metrics of the steps after that."""
    program = train(tmp_path / "data", *LONG)
    process = program.start(tmp_path)
    wait_for_steps(tmp_path / "run", process, 2)
    image = sorted((tmp_path / "data/demo/images").iterdir())[1]
    os.truncate(image, image.stat().st_size // 2)
    status, lines = finish(process)
    assert status == 0, lines
    (named,) = [line for line in lines if "the next readable image is used" in line]
    assert f"{image} is truncated" in named
    lines = toy.metrics_of(tmp_path / "run")
    counts = [line["train/corrupt"] for line in lines if "train/corrupt" in line]
    assert counts[0] == 0
    assert counts[-1] > 0
    tell(f"train: {named}; replaced {counts[-1]:.0f} times in {STEPS} steps of 4")


def test_images_that_are_cut_while_poses_are_predicted(tmp_path, tell):
    """They are skipped and named; the others have the poses that they have without the fault."""
    program = PROGRAMS["predict"](tmp_path / "data")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    assert finish(program.start(tmp_path / "whole"))[0] == 0
    whole = program.result(tmp_path / "whole")["poses.jsonl"].splitlines()
    process = program.start(tmp_path / "cut")
    journal = tmp_path / "cut/out/poses.jsonl"
    while not journal.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    images = sorted((tmp_path / "data/images").iterdir())
    for image in images[-8:]:
        os.truncate(image, image.stat().st_size // 2)
    status, lines = finish(process)
    assert status == 0, lines
    found = program.result(tmp_path / "cut")["poses.jsonl"].splitlines()
    lost = [json.loads(line)["name"] for line in whole if line not in found]
    assert found == [line for line in whole if line in found]
    assert lost, "all images were read before they were cut"
    assert set(lost) <= {image.name for image in images[-8:]}
    assert all(any(name in line and "truncated" in line for line in lines) for name in lost)
    tell(f"predict: 8 of 40 images cut after the start: {len(lost)} skipped and named")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Of a toy network on four scenes, in this process."""
    toy.register(monkeypatch.setattr)
    write_coco_folder(tmp_path / "demo", range(4), size=(120, 160))
    config = default_config()
    config.update_from_flattened_dict(toy.settings(tmp_path / "demo"))
    return config


def test_slow_storage_is_waited_for_and_reported(tmp_path, config, monkeypatch, tell):
    def slowly(path):
        time.sleep(0.1)
        return read_encoded(path)

    read_encoded = sources.read_encoded
    config.total_steps, config.data.prefetch, config.data.num_threads = 12, 1, 1
    loop.train(config, tmp_path / "fast")
    monkeypatch.setattr(sources, "read_encoded", slowly)
    loop.train(config, tmp_path / "slow")
    fast, slow = (toy.metrics_of(tmp_path / name) for name in ("fast", "slow"))
    assert [line["train/loss"] for line in slow] == [line["train/loss"] for line in fast]
    waits = [np.median([line["train/data_wait"] for line in of]) for of in (fast, slow)]
    assert waits[1] > 0.5
    tell(f"train: 0.1 s for each image: data wait {waits[1]:.0%} instead of {waits[0]:.0%}")


def test_a_worker_that_is_killed_is_one_line_and_the_run_goes_on_again(tmp_path, tell):
    program = train(tmp_path / "data", *LONG, "--config.data.num_workers=2")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert finish(program.start(tmp_path / "whole"))[0] == 0
    process = program.start(tmp_path / "killed")
    wait_for_steps(tmp_path / "killed/run", process, 4)
    workers = [
        child
        for child in psutil.Process(process.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    status, lines = finish(process)
    assert status == 1
    assert not any(line.startswith("Traceback") for line in lines), lines
    # Python's resource tracker may speak after it, of the shared memory that it frees.
    (line,) = [line for line in lines if "a worker process" in line]
    assert line.startswith("a worker process of the data loader was ended from outside")
    done = steps_of(tmp_path / "killed/run")
    status, lines = finish(program.start(tmp_path / "killed"))
    assert status == 0, lines
    assert program.result(tmp_path / "killed") == program.result(tmp_path / "whole")
    tell(f"train: one of two workers killed at step {done} of {STEPS}: resumed, same result")
