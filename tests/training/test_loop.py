import json
import os
import pathlib
import re
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import joints_as_fractions, metrics_of, same

from rmpe_jax.errors import UserError
from rmpe_jax.model_io.checkpoints import load_variables
from rmpe_jax.training import loop
from rmpe_jax.training.loop import train


def variables(workdir, folder: str = "checkpoints"):
    found, meta = load_variables(pathlib.Path(workdir) / folder)
    return found, meta["step"]


def steps_in(folder) -> set[int]:
    return {int(path.name) for path in folder.iterdir()}


def at_batch(monkeypatch, number: int, action) -> None:
    """Calls `action` when the loop takes its batch of that number, the first being 1."""
    taken, sent = [], loop._sent

    def counting(*arguments):
        taken.append(None)
        if len(taken) == number:
            action()
        return sent(*arguments)

    monkeypatch.setattr(loop, "_sent", counting)


def test_a_run_leaves_checkpoints_metrics_and_its_config(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rmpe_jax.training.loop.huge_pages_advice", lambda: "some advice")
    config.log_every = 2
    assert train(config, tmp_path) == {}
    assert steps_in(tmp_path / "checkpoints") == {2, 4}
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(config.to_json())
    lines = metrics_of(tmp_path)
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert 0 < line["train/loss"] < 1
        assert 0 <= line["train/accuracy"] <= 1
        assert line["train/samples_per_second"] > 0
        assert 0 <= line["train/data_wait"] <= 1
        assert line["train/corrupt"] == 0
        assert line["train/learning_rate"] == pytest.approx(1e-3)
    said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"toy, 6,081 parameters, \d+ people, steps 0 to 4 of 4", said[0])
    progress = (
        r"step (\d)/4  loss [\d.e-]+  accuracy [01]\.\d{3}  \d+ samples/s  data wait \d+%  "
        r"\d+:\d\d left"
    )
    assert said[1] == "some advice"
    assert [re.fullmatch(progress, line)[1] for line in said[2:]] == ["2", "4"]


def test_the_logged_loss_is_the_mean_since_the_last_line(config, tmp_path):
    train(config, tmp_path / "each")
    config.log_every = 4
    train(config, tmp_path / "mean")
    each = [line["train/loss"] for line in metrics_of(tmp_path / "each")]
    (line,) = metrics_of(tmp_path / "mean")
    assert line["train/loss"] == pytest.approx(np.mean(each), rel=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(config, tmp_path, capsys):
    train(config, tmp_path / "whole")
    config.total_steps = 2
    train(config, tmp_path / "parts")
    config.total_steps = 4
    train(config, tmp_path / "parts")
    assert "steps 2 to 4 of 4" in capsys.readouterr().err
    (whole, _), (parts, step) = (variables(tmp_path / name) for name in ("whole", "parts"))
    assert step == 4
    assert same(whole, parts)
    assert [line["step"] for line in metrics_of(tmp_path / "parts")] == [1, 2, 3, 4]
    losses = [
        [line["train/loss"] for line in metrics_of(tmp_path / name)] for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1]


def test_a_run_that_is_done_does_nothing(config, tmp_path, capsys):
    train(config, tmp_path)
    before, lines = variables(tmp_path), metrics_of(tmp_path)
    capsys.readouterr()
    train(config, tmp_path)
    config.total_steps = 3
    train(config, tmp_path)
    assert capsys.readouterr().err.count("nothing left to do: the run is at step 4") == 2
    assert same(variables(tmp_path), before)
    assert metrics_of(tmp_path) == lines


def test_no_steps_at_all(config, tmp_path, capsys):
    config.total_steps = 0
    assert train(config, tmp_path) == {}
    assert "nothing left to do: the run is at step 0" in capsys.readouterr().err


def test_one_compiled_program_for_all_steps_of_a_run(config, tmp_path, monkeypatch):
    """Resumed states included: they must look to the compiler as those that a step puts out."""
    made, make = [], loop.make_train_step

    def counting(*arguments, **options):
        step = make(*arguments, **options)

        def traced(state, batch):
            made.append(None)
            return step(state, batch)

        return traced

    monkeypatch.setattr(loop, "make_train_step", counting)
    config.total_steps = 2
    train(config, tmp_path)
    assert len(made) == 1
    config.total_steps = 5
    train(config, tmp_path)
    assert len(made) == 2


def test_nothing_is_read_from_the_device_between_log_lines(config, tmp_path, monkeypatch):
    config.total_steps, config.log_every, config.checkpoint_every = 6, 6, 6
    array = type(jnp.zeros(()))
    read, value = [], array._value

    def watched(self):
        read.append(self.shape)
        return value.fget(self)

    during = {}
    at_batch(monkeypatch, 2, lambda: monkeypatch.setattr(array, "_value", property(watched)))
    flush = loop.Log.flush

    def counted_flush(self, step):
        during["before"] = len(read)
        values = flush(self, step)
        during["flush"] = len(read) - during["before"]
        return values

    monkeypatch.setattr(loop.Log, "flush", counted_flush)
    train(config, tmp_path)
    assert during["before"] == 0
    assert during["flush"] >= 6  # the losses; so reads are seen


def test_the_host_is_at_most_two_steps_ahead(config, tmp_path, monkeypatch):
    """Else a SIGTERM waits for all steps that are queued, and the queue holds their batches."""
    config.total_steps, config.log_every, config.checkpoint_every = 6, 6, 6
    events, sent, wait = [], loop._sent, jax.block_until_ready

    def recorded_batch(*arguments):
        events.append("batch")
        return sent(*arguments)

    def recorded_wait(x):
        if isinstance(x, dict) and "loss" in x:  # the metrics of a step
            events.append("wait")
        return wait(x)

    monkeypatch.setattr(loop, "_sent", recorded_batch)
    monkeypatch.setattr(jax, "block_until_ready", recorded_wait)
    train(config, tmp_path)
    assert events == ["batch"] * 2 + ["batch", "wait"] * 4


@pytest.mark.parametrize("at", [1, 3])
def test_sigterm_saves_and_the_same_command_goes_on(config, tmp_path, monkeypatch, capsys, at):
    train(config, tmp_path / "whole")
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at_batch(patch, at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            train(config, tmp_path / "stopped")
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert f"SIGTERM: saved step {at}; the same command resumes" in capsys.readouterr().err
    assert variables(tmp_path / "stopped")[1] == at
    train(config, tmp_path / "stopped")
    assert same(variables(tmp_path / "stopped"), variables(tmp_path / "whole"))
    assert [line["step"] for line in metrics_of(tmp_path / "stopped")] == [1, 2, 3, 4]


def test_sigterm_at_an_evaluation_does_not_leave_it_out(config, tmp_path, monkeypatch, demo):
    config.data.evaluate = (f"coco:{demo}",)
    monkeypatch.setattr(loop, "_evaluate", lambda *_: {"eval/AP": 0.5})
    with monkeypatch.context() as patch:
        at_batch(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(config, tmp_path)
    assert metrics_of(tmp_path)[-1] == {"step": 4, "eval/AP": 0.5}
    assert train(config, tmp_path) == {"eval/AP": 0.5}


def test_a_killed_run_forgets_what_it_did_after_its_checkpoint(config, tmp_path, monkeypatch):
    """Kill in step 4: the checkpoint is of step 2, the metrics go to step 3."""
    train(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with monkeypatch.context() as patch:
        at_batch(patch, 4, kill)
        with pytest.raises(Killed):
            train(config, tmp_path / "killed")
    assert [line["step"] for line in metrics_of(tmp_path / "killed")] == [1, 2, 3]
    train(config, tmp_path / "killed")
    assert same(variables(tmp_path / "killed"), variables(tmp_path / "whole"))
    assert [line["step"] for line in metrics_of(tmp_path / "killed")] == [1, 2, 3, 4]


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(config, tmp_path, caplog):
    train(config, tmp_path)
    whole = variables(tmp_path)
    for path in (tmp_path / "checkpoints" / "4" / "model").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    train(config, tmp_path)
    assert f"{tmp_path / 'checkpoints'}: step 4 cannot be read" in caplog.messages
    assert same(variables(tmp_path), whole)


# ---- evaluation ----------------------------------------------------------------------------------


def test_evaluation_while_training(config, tmp_path, demo, mpii, capsys):
    config.model.skeleton, config.evaluate_every = "union", 2
    config.data.train = (f"coco:{demo}", f"mpii:{mpii}:mini")
    config.data.evaluate = (f"coco:{demo}", f"mpii:{mpii}:mini")
    scores = train(config, tmp_path)
    assert next(iter(scores)) == "eval/coco/demo/AP"
    assert {"eval/coco/demo/AR", "eval/mpii/mini/PCKh", "eval/mpii/mini/Head"} <= scores.keys()
    assert 0 <= scores["eval/mpii/mini/PCKh"] <= 100
    evaluated = [line for line in metrics_of(tmp_path) if "eval/coco/demo/AP" in line]
    assert [line["step"] for line in evaluated] == [2, 4]
    assert evaluated[-1] == {"step": 4, **scores}
    pattern = r"step 4: coco/demo/AP [\d.]+  coco/demo/AP50 [\d.]+  mpii/mini/PCKh [\d.]+"
    assert re.search(pattern, capsys.readouterr().err)
    assert steps_in(tmp_path / "best") <= {2, 4}


def test_a_network_without_the_joints_to_evaluate_is_one_line(config, tmp_path, mpii):
    config.data.evaluate = (f"mpii:{mpii}:mini",)
    with pytest.raises(UserError, match="a network with coco joints has no"):
        train(config, tmp_path)


@pytest.mark.parametrize("killed_after", [None, 3])
def test_the_best_is_kept_apart(config, tmp_path, monkeypatch, demo, killed_after):
    """Scores by step: 0.1, 0.5, 0.3, 0.5. The first 0.5 stays, wherever a run is killed."""
    config.evaluate_every, config.data.evaluate = 1, (f"coco:{demo}",)
    scores = {1: 0.1, 2: 0.5, 3: 0.3, 4: 0.5}
    monkeypatch.setattr(
        loop, "_evaluate", lambda config, state, *_: {"eval/AP": scores[int(state.step)]}
    )
    if killed_after:

        def kill():
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            at_batch(patch, killed_after + 1, kill)
            with pytest.raises(KeyboardInterrupt):
                train(config, tmp_path)
    assert train(config, tmp_path) == {"eval/AP": 0.5}
    assert steps_in(tmp_path / "best") == {2}
    best, step = variables(tmp_path, "best")
    assert step == 2
    config.total_steps = 2
    train(config, tmp_path / "two")
    assert same(best, variables(tmp_path / "two")[0])


# ---- when things are bad -------------------------------------------------------------------------


def one_line(config, workdir) -> str:
    with pytest.raises(UserError) as error:
        train(config, workdir)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path):
    config.optim.learning_rate = 1e30
    line = one_line(config, tmp_path)
    assert re.match(r"the loss is not finite between steps \d and \d: stopped", line)
    assert "lower config.optim.learning_rate" in line
    assert steps_in(tmp_path / "checkpoints") == set()
    assert not any("loss" in line for line in metrics_of(tmp_path)[1:])


def test_parameters_that_are_not_finite_are_not_saved(config, tmp_path, monkeypatch, demo):
    """The gradient may go first: the loss it came with was still finite."""
    make = loop.make_train_step

    def breaking(*arguments, **options):
        step = make(*arguments, **options)

        def broken(state, batch):
            state, metrics = step(state, batch)
            bad = jnp.where(state.step == 3, jnp.nan, 1.0)
            return state.replace(params=jax.tree.map(lambda x: x * bad, state.params)), metrics

        return broken

    monkeypatch.setattr(loop, "make_train_step", breaking)
    config.total_steps, config.evaluate_every, config.data.evaluate = 5, 3, (f"coco:{demo}",)
    assert one_line(config, tmp_path).startswith("the network is not finite after step 3: stopped")
    assert steps_in(tmp_path / "checkpoints") == {2}
    assert steps_in(tmp_path / "best") == set()


# ---- labels that cannot belong to the images -----------------------------------------------------


def test_suspicious_labels_stop_a_run_before_its_first_step(config, tmp_path, changed_demo):
    spec = changed_demo(joints_as_fractions)
    line = (
        r"coco/changed: (\d+) of \1 people have labels that do not fit their image: joints in "
        r"fractions of the image instead of pixels \(\1\); the first: annotation \d+ of \w+\.jpg; "
        r".*, or go on with config\.data\.max_suspicious=1\.0"
    )
    config.data.evaluate = (spec,)
    assert re.fullmatch(line, one_line(config, tmp_path / "run"))
    config.data.train, config.data.evaluate = (spec,), ()
    assert re.fullmatch(line, one_line(config, tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_loss_of_zero_stops_the_run(config, tmp_path, changed_demo, caplog):
    """No joint is in any crop: all are in the corner of the image, and wanted so."""
    config.data.train = (changed_demo(joints_as_fractions),)
    config.data.max_suspicious, config.grad_accumulation = 1.0, 2
    config.augmentation.scale = 0.0
    config.log_every = config.total_steps = 4
    line = one_line(config, tmp_path / "run")
    assert line == (
        "the loss was exactly 0 for 4 steps, up to step 4: no label contributes to it; check the "
        "labels (rmpe prepare reports them)"
    )
    (warning,) = [m for m in caplog.messages if "do not fit" in m]
    assert warning.startswith("coco/changed: ")
    assert steps_in(tmp_path / "run" / "checkpoints") <= {2}


def test_some_losses_of_zero_do_not_stop_a_run():
    def flush(log, losses, step):
        for loss in losses:
            log.add({"loss": jnp.float32(loss), "corrupt": jnp.float32(0)})
        log.flush(step)

    log = loop.Log(0, 30, 1)
    flush(log, [0, 0, 0], 3)  # less than ten steps, as of few people
    flush(log, [0, 0.5, 0], 6)
    flush(log, [0] * 9, 15)
    flush(log, [0, 0, 1e-9], 18)
    flush(log, [0] * 3, 21)
    with pytest.raises(UserError, match="exactly 0 for 12 steps, up to step 30"):
        flush(log, [0] * 9, 30)


def test_a_table_counts_who_is_skipped(config, tmp_path, changed_demo, capsys):
    first = iter([{"iscrowd": 1}, {"keypoints": [0] * 51, "num_keypoints": 0}])
    spec = changed_demo(lambda annotation: annotation.update(next(first, {})))
    config.data.train, config.total_steps = (*config.data.train, spec, spec), 0
    train(config, tmp_path / "run")
    titles, *rows = capsys.readouterr().err.splitlines()[:6]
    assert titles.split() == ["coco/demo", "coco/changed"]
    cells = {name: cells for name, *cells in (re.split(r" {2,}", row) for row in rows)}
    assert cells["images"][0] == "4"
    assert int(cells["people"][0]) == int(cells["people"][1]) + 2
    assert cells["skipped: crowds"] == ["0", "1"]
    assert cells["skipped: people without labeled joints"] == ["0", "1"]


@pytest.fixture
def broken_demo(demo, tmp_path):
    """The scenes, one picture of which is none."""
    folder = tmp_path / "broken"
    shutil.copytree(demo, folder)
    bad = sorted((folder / "images").iterdir())[1]
    bad.write_bytes(b"not a picture")
    return folder, bad


def test_unreadable_pictures_are_counted(config, tmp_path, broken_demo, capsys, caplog):
    folder, bad = broken_demo
    config.data.train, config.total_steps = (f"coco:{folder}",), 6
    train(config, tmp_path / "run")
    counts = [line["train/corrupt"] for line in metrics_of(tmp_path / "run")]
    assert counts[-1] > 0
    assert counts == sorted(counts)
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"  {int(counts[-1])} unreadable  " in last
    assert any(bad.name in message for message in caplog.messages)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_strict_stops_at_an_unreadable_picture(config, tmp_path, broken_demo, workers):
    folder, bad = broken_demo
    config.data.train, config.data.strict = (f"coco:{folder}",), True
    config.total_steps, config.data.num_workers = 6, workers
    assert bad.name in one_line(config, tmp_path / "run")


def test_a_workdir_under_a_file(config, tmp_path):
    (tmp_path / "file").write_text("")
    line = one_line(config, tmp_path / "file" / "run")
    assert "cannot be written (Not a directory)" in line
    assert "choose another place" in line


def test_a_checkpoint_of_another_model(config, tmp_path):
    train(config, tmp_path)
    config.model.name = "toy_plain"
    assert "config.model.name='toy'" in one_line(config, tmp_path)
    config.model.name, config.optim.name = "toy", "rmsprop"
    assert "(optim.name: 'adam' -> 'rmsprop')" in one_line(config, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("data.train", (), "no dataset to train on"),
        ("data.train", ("coco:nowhere",), "nowhere"),
        ("data.evaluate", ("nothing",), "'nothing' is not a dataset"),
        ("model.name", "toyy", "did you mean 'toy'"),
    ],
)
def test_what_cannot_be_trained(config, tmp_path, key, value, says):
    config.update_from_flattened_dict({key: value})
    assert says in one_line(config, tmp_path)
    assert not (tmp_path / "checkpoints").exists()
