"""train.py as a program: what it prints, how it ends, and how it goes on after a kill."""

import os
import pathlib
import resource
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from toy import metrics_of, same

from rmpe_jax.lock import FolderLock
from rmpe_jax.model_io.checkpoints import load_variables
from rmpe_jax.training.loop import train


def finish(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Its exit status and the lines it wrote to stderr."""
    out, err = process.communicate(timeout=500)
    # Gloo, through which processes on CPUs talk to each other, says whom it is connected to.
    assert all(line.startswith("[Gloo]") for line in out.splitlines())
    return process.returncode, err.splitlines()


def variables(workdir):
    return load_variables(workdir / "checkpoints")[0]


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.batch_sise=8"], ["did you mean 'batch_size'?"]),
        (["--config=configs/nothing.py"], ["No such file or directory: 'configs/nothing.py'"]),
        (["--config.optim.lrr=1"], ["config: there is no key 'lrr'"]),
        (["--config.batch_size=many"], ["batch_size", "many"]),
        (["--distributed"], ["--distributed: this process was not started by Slurm"]),
        (["--config.model.name=toi"], ["config.model.name='toi' is unknown: did you mean 'toy'"]),
    ],
)
def test_a_bad_argument_is_one_line(train_py, tmp_path, arguments, says):
    status, lines = finish(train_py(tmp_path / "run", *arguments))
    assert status == 1
    assert len(lines) == 1, lines
    assert all(part in lines[0] for part in says), lines[0]
    assert not (tmp_path / "run").exists()


def test_sigkill_and_the_same_command_give_the_uninterrupted_run(train_py, tmp_path, config):
    """In another process than the run it is compared with, bit for bit."""
    config.total_steps, config.checkpoint_every = 40, 3
    process = train_py(
        tmp_path / "killed", "--config.total_steps=40", "--config.checkpoint_every=3"
    )
    folder = tmp_path / "killed" / "checkpoints"
    wait_for(lambda: (folder / "6").exists(), process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = [line["step"] for line in metrics_of(tmp_path / "killed")]
    assert done == list(range(1, len(done) + 1))
    assert 6 <= len(done) < 40

    train(config, tmp_path / "killed")
    train(config, tmp_path / "whole")
    assert same(variables(tmp_path / "killed"), variables(tmp_path / "whole"))
    lines = [
        [(line["step"], line["train/loss"]) for line in metrics_of(tmp_path / name)]
        for name in ("killed", "whole")
    ]
    assert lines[0] == lines[1]
    left = {path.name for path in folder.iterdir()}
    assert left == {"39", "40"}


@pytest.mark.slow
def test_sigterm_ends_with_143_and_a_checkpoint(train_py, tmp_path, config):
    config.total_steps, config.checkpoint_every = 40, 1000
    process = train_py(
        tmp_path / "run", "--config.total_steps=40", "--config.checkpoint_every=1000"
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGTERM)
    status, lines = finish(process)
    assert status == 143
    (step,) = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert 2 <= step < 40
    assert lines[-1] == f"SIGTERM: saved step {step}; the same command resumes from there"
    assert lines[0].endswith(" people, steps 0 to 40 of 4")
    train(config, tmp_path / "run")
    train(config, tmp_path / "whole")
    assert same(variables(tmp_path / "run"), variables(tmp_path / "whole"))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
@pytest.mark.slow
def test_a_disk_that_is_full_while_saving(train_py, tmp_path, config):
    """A limit on the size of files stands for it: the first checkpoint is there, no other fits."""
    config.total_steps = 2
    train(config, tmp_path / "run")
    before = variables(tmp_path / "run")

    process = train_py(tmp_path / "run", environment={"JAX_ENABLE_COMPILATION_CACHE": "false"})
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    status, lines = finish(process)
    assert status == 1
    assert lines[0] == "config changed since step 2: total_steps: 2 -> 4"
    assert lines[1].startswith("toy, ")
    assert all(line.startswith("step ") for line in lines[2:-1]), lines
    assert f"{tmp_path}/run/checkpoints: " in lines[-1]
    assert "could not be written" in lines[-1]
    assert lines[-1].endswith("step 2 is intact: make room and run the same command again")
    assert same(variables(tmp_path / "run"), before)
    config.total_steps = 4
    train(config, tmp_path / "run")
    train(config, tmp_path / "whole")
    assert same(variables(tmp_path / "run"), variables(tmp_path / "whole"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def processes(
    train_py, workdir, *arguments: str, environment: dict | None = None
) -> list[subprocess.Popen]:
    """Two that train together."""
    together = [f"--coordinator=localhost:{free_port()}", "--num_processes=2", *arguments]
    return [
        train_py(workdir, f"--process_id={number}", *together, environment=environment)
        for number in range(2)
    ]


def by_slurm(train_py, workdir, *arguments: str) -> list[subprocess.Popen]:
    """Two that train together, with the variables that Slurm sets."""
    shared = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    own = [{"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(2)]
    return [
        train_py(workdir, "--distributed", *arguments, environment=shared | numbers)
        for numbers in own
    ]


@pytest.mark.slow
def test_two_processes_do_what_one_does(train_py, tmp_path, config, demo):
    config.data.evaluate = (f"coco:{demo}",)
    pair = processes(train_py, tmp_path / "two", f"--config.data.evaluate=('coco:{demo}',)")
    ends = [finish(process) for process in pair]
    assert [status for status, _ in ends] == [0, 0], ends
    assert ends[0][1][-1].startswith("step 4: coco/demo/AP")
    assert ends[1][1] == []
    train(config, tmp_path / "one")
    ours, theirs = variables(tmp_path / "two"), variables(tmp_path / "one")
    close(ours, theirs)
    lines = [metrics_of(tmp_path / name) for name in ("two", "one")]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    losses = [[line.get("train/loss", 0) for line in found] for found in lines]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def close(ours, theirs) -> None:
    # Adam's first steps are as long for the noise of a small gradient as for the gradient.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicated", "fsdp"])
def test_one_process_goes_on_from_two_and_two_from_one(train_py, tmp_path, config, demo, sharding):
    """The two have two devices each."""

    def pair(name: str, steps: int) -> None:
        own = {"model.name": "toy_wide", "sharding": sharding, "total_steps": steps}
        own["data.evaluate"] = (f"coco:{demo}",)
        ends = [
            finish(process)
            for process in processes(
                train_py,
                tmp_path / name,
                *(f"--config.{key}={value}" for key, value in own.items()),
                environment={"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
            )
        ]
        assert [status for status, _ in ends] == [0, 0], ends
        assert ends[0][1][-1].startswith(f"step {steps}: coco/demo/AP")

    def alone(name: str, steps: int) -> None:
        config.total_steps, config.model.name = steps, "toy_wide"
        train(config, tmp_path / name)

    pair("two, one", 2)
    alone("two, one", 4)
    alone("one, two", 2)
    pair("one, two", 4)
    alone("one", 4)
    expected, losses = variables(tmp_path / "one"), losses_of(tmp_path / "one")
    for name in ("two, one", "one, two"):
        close(variables(tmp_path / name), expected)
        assert losses_of(tmp_path / name) == pytest.approx(losses, rel=1e-4)


def losses_of(workdir) -> list[float]:
    return [line["train/loss"] for line in metrics_of(workdir) if "train/loss" in line]


@pytest.mark.slow
def test_processes_of_slurm_find_each_other(train_py, tmp_path, config):
    ends = [finish(process) for process in by_slurm(train_py, tmp_path / "two")]
    assert [status for status, _ in ends] == [0, 0], ends
    assert "4 of 4" in ends[0][1][0]
    assert ends[1][1] == []
    train(config, tmp_path / "one")
    close(variables(tmp_path / "two"), variables(tmp_path / "one"))


@pytest.mark.slow
def test_two_processes_are_refused_together(train_py, tmp_path):
    with FolderLock(tmp_path):
        ends = [finish(process) for process in processes(train_py, tmp_path)]
    assert [status for status, _ in ends] == [1, 1], ends
    assert ends[0][1][-1].startswith(f"{tmp_path} is in use by process {os.getpid()} on host ")
    assert ends[1][1][-1] == f"{tmp_path}: process 0 could not lock it and says why"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_lost_process_ends_the_other(train_py, tmp_path, config, killed):
    """Process 0 also coordinates: if it is lost, JAX may abort the other before our line."""
    pair = processes(
        train_py, tmp_path, "--config.total_steps=100000", "--config.checkpoint_every=5"
    )
    folder = tmp_path / "checkpoints"
    wait_for(lambda: (folder / "10").exists(), pair[0])
    pair[killed].kill()
    other = pair[1 - killed]
    _, err = other.communicate(timeout=60)
    said = err.splitlines()[-1]
    by_us = f"process {1 - killed}: another process has ended or cannot be reached: stopped; "
    if killed == 1 or other.returncode == 1:
        assert other.returncode == 1
        assert said.startswith(by_us)
        assert "Traceback" not in err
    else:
        assert other.returncode == -signal.SIGABRT
        assert "another task died" in err
    step = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    config.total_steps = step + 1
    train(config, tmp_path)  # the lock does not keep the next run away, the checkpoint is whole
    assert metrics_of(tmp_path)[-1]["step"] == step + 1


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both_at_one_step(train_py, tmp_path):
    pair = processes(train_py, tmp_path, "--config.total_steps=4000", "--config.log_every=1")
    metrics = pathlib.Path(tmp_path / "metrics.jsonl")
    wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 3, pair[0])
    pair[1].send_signal(signal.SIGTERM)
    ends = [finish(process) for process in pair]
    assert [status for status, _ in ends] == [143, 143], ends
    step = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert metrics_of(tmp_path)[-1]["step"] == step
    assert ends[0][1][-1].startswith(f"SIGTERM: saved step {step};")
