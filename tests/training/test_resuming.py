"""A workdir has one run at a time; one that resumes with another config says so or is refused."""

import json
import pathlib

import pytest
from toy import metrics_of

from rmpe_jax.config import Change
from rmpe_jax.errors import UserError
from rmpe_jax.training import loop
from rmpe_jax.training.checkpoints import Checkpoints
from rmpe_jax.training.loop import train


def files_of(workdir: pathlib.Path) -> dict[str, bytes]:
    """The content of every file, except of the lock."""
    paths = [path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def refusal(config, workdir: pathlib.Path) -> str:
    """The line of a run that is refused and leaves the workdir as it was."""
    before = files_of(workdir)
    with pytest.raises(UserError) as error:
        train(config, workdir)
    assert files_of(workdir) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def at_step(monkeypatch, step: int, action) -> None:
    """Calls `action` when the loop has done a step."""
    add, calls = loop.Log.add, []

    def counting(self, metrics):
        add(self, metrics)
        calls.append(None)
        if len(calls) == step:
            action()

    monkeypatch.setattr(loop.Log, "add", counting)


def test_a_refused_run_leaves_the_workdir_as_it_was(config, tmp_path):
    config.total_steps = 2
    train(config, tmp_path)
    half = tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp"  # of a killed run
    half.mkdir()
    (half / "part").write_text("")
    config.total_steps, config.optim.name = 4, "rmsprop"
    assert "(optim.name: 'adam' -> 'rmsprop')" in refusal(config, tmp_path)
    config.data.train = ("coco:nowhere",)
    assert "nowhere" in refusal(config, tmp_path)


def test_a_run_that_is_refused_makes_no_workdir(config, tmp_path):
    config.data.train = ("coco:nowhere",)
    with pytest.raises(UserError):
        train(config, tmp_path / "runs" / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_says_what_changed(config, tmp_path, capsys):
    config.total_steps = 2
    train(config, tmp_path)
    assert "changed" not in capsys.readouterr().err
    config.total_steps, config.log_every, config.batch_size = 3, 3, 8
    config.optim.schedule = "cosine"
    train(config, tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert said[:5] == [
        "config changed since step 2: total_steps: 2 -> 3",
        "config changed since step 2: batch_size: 4 -> 8",
        "config changed since step 2: log_every: 1 -> 3",
        "config changed since step 2: optim.schedule: 'constant' -> 'cosine'",
        "not the run that a single training with this config would give, due to total_steps, "
        "batch_size, optim.schedule",
    ]
    assert said[5].endswith("steps 2 to 3 of 8")
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 8


def test_changes_without_effect_are_only_listed(capsys):
    loop._report_changes(2, [Change("log_every", 1, 3, exact=True)])
    assert capsys.readouterr().err == "config changed since step 2: log_every: 1 -> 3\n"


def test_a_run_with_nothing_left_to_do_writes_nothing(config, tmp_path, capsys):
    train(config, tmp_path)
    before = files_of(tmp_path)
    config.total_steps = 3
    train(config, tmp_path)
    assert files_of(tmp_path) == before
    assert capsys.readouterr().err.endswith("nothing left to do: the run is at step 4\n")


def test_the_best_of_another_dataset_is_no_measure(config, tmp_path, monkeypatch, demo):
    """A PCKh in percent is greater than any AP."""
    config.data.evaluate = (f"coco:{demo}",)
    for steps, scores in ((1, {"eval/mpii/PCKh": 50.0}), (2, {"eval/coco/AP": 0.2})):
        monkeypatch.setattr(loop, "_evaluate", lambda *_, scores=scores: scores)
        config.total_steps = steps
        train(config, tmp_path)
        with Checkpoints(tmp_path / "best", read_only=True) as best:
            assert best.steps() == [steps]
            assert best.scores() == scores


# ---- one run at a time ---------------------------------------------------------------------------


def test_a_second_run_is_refused_and_the_first_goes_on(config, tmp_path, monkeypatch):
    other, lines = config.copy_and_resolve_references(), []
    other.batch_size = 8
    at_step(monkeypatch, 2, lambda: lines.append(refusal(other, tmp_path)))
    train(config, tmp_path)
    assert lines[0].startswith(f"{tmp_path} is in use by process ")
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 4
    assert not (tmp_path / ".lock").exists()


def test_a_run_that_lost_its_workdir_stops_and_writes_nothing(config, tmp_path, monkeypatch):
    """Step 2 is being saved when another process takes over, as after a suspended machine."""
    after = {}

    def take_over():
        with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
            assert checkpoints.steps() == [1]
        (tmp_path / ".lock").write_text("of another process")
        after.update(files_of(tmp_path))

    config.checkpoint_every = 1
    monkeypatch.setattr(loop, "_save", waiting(loop._save))
    at_step(monkeypatch, 2, take_over)
    with pytest.raises(UserError, match="belongs to another process now"):
        train(config, tmp_path)
    assert files_of(tmp_path) == after
    assert (tmp_path / ".lock").read_text() == "of another process"


def waiting(save):
    """`_save` that returns when all is written."""

    def patched(*arguments, **options):
        save(*arguments, **{**options, "wait": True})

    return patched
