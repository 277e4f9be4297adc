import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import same

from rmpe_jax.config import model_spec, parse_config, require_same_network, spec_from_dict
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.checkpoints import OUTDATED, checkpoints_in, load_variables
from rmpe_jax.object_store import open_path
from rmpe_jax.training.checkpoints import Checkpoints
from rmpe_jax.training.optimizers import build_optimizer
from rmpe_jax.training.state import TrainState, init_state


@pytest.fixture
def meta(config) -> dict:
    return {"config": config.to_dict(), "scores": {"eval/AP": 0.25}}


def state_of(step: int, ema: bool = True) -> TrainState:
    """A state whose numbers all follow from the step."""
    params = {"conv": {"kernel": jnp.full((3, 4), step + 0.1), "bias": jnp.arange(4.0) * step}}
    variables = {"params": params, "batch_stats": {"bn": {"mean": jnp.full(5, step - 0.3)}}}
    return TrainState(
        step=jnp.int32(step),
        **variables,
        ema=jax.tree.map(lambda x: x / 3, variables) if ema else None,
        opt_state=({"mu": jnp.full((3, 4), step * 1e-3)}, (), jnp.int32(step)),
    )


def save(folder, meta, *steps: int, **options) -> None:
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(state_of(step), meta)


def restore(folder, config, template=None):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(template or state_of(0), parse_config(config))


def damage(folder, step: int, item: str) -> None:
    """Cuts the files of a step's item to half, as after a power failure."""
    files = [path for path in (folder / str(step) / item).rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_comes_back_bit_for_bit(tmp_path, config, meta, ema):
    saved = state_of(7, ema)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(saved, meta)
    found, found_meta = restore(tmp_path, config, state_of(0, ema))
    assert same(found, saved)
    assert found_meta["step"] == 7
    assert found_meta["scores"] == {"eval/AP": 0.25}


def test_nothing_there_is_none(tmp_path, config):
    assert restore(tmp_path / "new", config) is None
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.scores() == {}


def test_the_newest_are_kept(tmp_path, config, meta):
    save(tmp_path / "two", meta, 1, 2, 3, 4)
    save(tmp_path / "one", meta, 1, 2, keep=1)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"3", "4"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"2"}
    assert int(restore(tmp_path / "two", config)[0].step) == 4


@pytest.mark.parametrize("item", ["model", "optimizer", "meta"])
def test_a_damaged_step_gives_way_to_the_one_before(tmp_path, config, meta, item, caplog):
    save(tmp_path, meta, 1, 2)
    damage(tmp_path, 2, item)
    with caplog.at_level(logging.WARNING):
        found, found_meta = restore(tmp_path, config)
    assert same(found, state_of(1))
    assert found_meta["step"] == 1
    ours = [r.getMessage() for r in caplog.records if r.name == "root"]
    assert ours == [f"{tmp_path}: step 2 cannot be read"]


def test_a_damaged_step_is_saved_again(tmp_path, config, meta):
    save(tmp_path, meta, 1, 2)
    damage(tmp_path, 2, "model")
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(state_of(0), parse_config(config))
        checkpoints.save(state_of(2), meta)
    assert same(restore(tmp_path, config)[0], state_of(2))


def test_when_all_are_damaged_one_line_says_so(tmp_path, config, meta):
    save(tmp_path, meta, 1, 2)
    for step in (1, 2):
        damage(tmp_path, step, "model")
    with pytest.raises(UserError, match="no checkpoint can be read") as error:
        restore(tmp_path, config)
    line = str(error.value)
    assert "\n" not in line
    assert str(tmp_path) in line
    assert "step 2: " in line
    assert "step 1: " in line
    with pytest.raises(UserError, match="no checkpoint there can be read"):
        load_variables(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.name", "tinypose_m"),
        ("model.skeleton", "mpii"),
        ("codec.loss", "cross_entropy"),
    ],
)
def test_a_checkpoint_of_another_kind_is_one_line(tmp_path, config, meta, key, value):
    save(tmp_path, meta, 1)
    config.update_from_flattened_dict({key: value})
    for attempt in (
        lambda: restore(tmp_path, config),
        lambda: require_same_network(
            tmp_path,
            spec_from_dict(load_variables(tmp_path)[1]["config"]),
            model_spec(parse_config(config)),
        ),
    ):
        with pytest.raises(UserError) as error:
            attempt()
        line = str(error.value)
        assert "\n" not in line
        assert f"config.{key}=" in line
        assert value in line
        assert str(tmp_path) in line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("shape", "the model at step 1 does not fit the config (params/conv/kernel differs)"),
        ("leaf", "the model at step 1 does not fit the config (params/conv/scale differs)"),
        ("optimizer", "the optimizer at step 1 does not fit the config (opt_state/0/mu differs)"),
    ],
)
def test_a_network_of_another_structure_is_one_line(tmp_path, config, meta, change, says):
    save(tmp_path, meta, 1)
    template = state_of(0)
    if change == "shape":
        template.params["conv"]["kernel"] = jnp.zeros((3, 5))
    elif change == "leaf":
        template.params["conv"]["scale"] = jnp.zeros(4)
    else:
        template = template.replace(opt_state=({"nu": jnp.zeros((3, 4))}, (), jnp.int32(0)))
    with pytest.raises(UserError) as error:
        restore(tmp_path, config, template)
    assert "\n" not in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("optim.name", "adamw", "optimizer"),
        ("optim.name", "rmsprop", "optimizer"),
        ("optim.clip_norm", 1.0, "optimizer"),
        ("optim.backbone_factor", 0.5, "optimizer"),
        ("sstn.localization_factor", 0.5, "optimizer"),
        ("optim.frozen", "head", "optimizer"),
        ("optim.ema_decay", 0.0, "model"),
        ("optim.warmup_steps", 3, ""),
        ("optim.learning_rate", 0.5, ""),
        ("optim.schedule", "cosine", ""),
    ],
)
def test_a_state_of_another_optimizer_is_one_line(tmp_path, config, key, value, part):
    def state() -> TrainState:
        run = parse_config(config)
        optimizer = build_optimizer(run.optim, run.total_steps, run.sstn)
        return init_state({"params": params, "batch_stats": {}}, optimizer, run.optim)

    params = {name: {"kernel": jnp.ones((2, 3))} for name in ("backbone", "head")}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state(), {"config": config.to_dict(), "scores": {}})
    section, _, name = key.partition(".")
    change = f"{key}: {config[section][name]!r} -> {value!r}"
    config.update_from_flattened_dict({key: value})
    if not part:
        assert same(restore(tmp_path, config, state())[0], state())
        return
    with pytest.raises(UserError) as error:
        restore(tmp_path, config, state())
    assert str(error.value) == (
        f"{tmp_path}: the {part} at step 0 does not fit the config ({change}); use the config it "
        "was trained with, or another workdir"
    )


def test_variables_are_averages_where_there_are_any(tmp_path, meta):
    for ema in (True, False):
        with Checkpoints(tmp_path / str(ema)) as checkpoints:
            checkpoints.save(state_of(3, ema), meta)
        variables, found = load_variables(tmp_path / str(ema))
        expected = state_of(3, ema).variables
        assert same(variables, expected)
        assert found["step"] == 3


def test_variables_of_the_newest_step_that_can_be_read(tmp_path, meta):
    save(tmp_path, meta, 1, 2)
    damage(tmp_path, 2, "model")
    variables, found = load_variables(tmp_path)
    assert same(variables, state_of(1).variables)
    assert found["step"] == 1


def test_reading_leaves_what_is_being_written_alone(tmp_path, meta):
    save(tmp_path, meta, 1, 2, 3)
    half = tmp_path / "4.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "part").write_text("of a save that goes on in another process")
    before = sorted(path for path in tmp_path.rglob("*"))
    load_variables(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_what_a_killed_save_left_is_never_read_and_goes_with_the_next(tmp_path, config, meta):
    save(tmp_path, meta, 1)
    (tmp_path / "2.orbax-checkpoint-tmp" / "model").mkdir(parents=True)
    assert int(restore(tmp_path, config)[0].step) == 1
    save(tmp_path, meta, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}


def test_a_step_that_is_no_longer_kept_goes_by_one_rename(tmp_path, config, meta, monkeypatch):
    """A run that is killed while it deletes leaves nothing under the name of a step."""
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_finish", lambda self: self._manager.wait_until_finished())
        save(tmp_path, meta, 1, 2, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", OUTDATED]
    assert (tmp_path / OUTDATED / "1" / "model").is_dir()
    (found, _) = restore(tmp_path, config)
    assert same(found, state_of(3))
    save(tmp_path, meta, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_outdated_steps_that_cannot_be_deleted_end_no_run(
    tmp_path, config, meta, monkeypatch, caplog
):
    def busy(path, missing_ok=False):
        raise OSError("Directory not empty")

    with monkeypatch.context() as patch:
        patch.setattr(type(open_path(tmp_path)), "rmtree", busy)
        save(tmp_path, meta, 1, 2, 3)
    assert "outdated: cannot be deleted: Directory not empty" in caplog.text
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [3, 2]
    assert (tmp_path / OUTDATED).is_dir()
    save(tmp_path, meta, 4)
    assert not (tmp_path / OUTDATED).exists()


def test_a_folder_of_outdated_steps_alone_is_not_the_best(tmp_path, meta):
    save(tmp_path / "checkpoints", meta, 5)
    (tmp_path / "best" / OUTDATED).mkdir(parents=True)
    assert checkpoints_in(open_path(tmp_path), None) == open_path(tmp_path) / "checkpoints"


def test_no_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no checkpoints there; train first"):
        load_variables(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="train first, or name another"):
        load_variables(tmp_path / "empty")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to") as error:
        Checkpoints(tmp_path / "file" / "checkpoints")
    assert "\n" not in str(error.value)


def test_the_best_score_survives_a_damaged_checkpoint(tmp_path, config, meta):
    save(tmp_path, {**meta, "scores": {"eval/AP": 0.5}}, 3, keep=1)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.scores() == {"eval/AP": 0.5}
    damage(tmp_path, 3, "meta")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.scores() == {}
        checkpoints.save(state_of(3), {**meta, "scores": {"eval/AP": 0.75}})
        checkpoints.wait()
        assert checkpoints.scores() == {"eval/AP": 0.75}


def test_a_failed_write_is_one_line_and_the_step_before_survives(
    tmp_path, config, meta, monkeypatch
):
    """Orbax commits a step by renaming; here the disk refuses that."""
    save(tmp_path, meta, 1)
    checkpoints = Checkpoints(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", full)
        patch.setattr("os.replace", full)
        with pytest.raises(UserError) as error:
            checkpoints.save(state_of(2), meta, wait=True)
    assert str(error.value) == (
        f"{tmp_path}: the checkpoint of step 2 could not be written, the disk is full; step 1 is "
        "intact: make room and run the same command again"
    )
    checkpoints.__exit__(UserError, error.value, None)
    assert same(restore(tmp_path, config)[0], state_of(1))


def test_a_failure_in_the_background_is_said_at_the_end(tmp_path, config, meta, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr("os.rename", full)
    monkeypatch.setattr("os.replace", full)
    checkpoints.save(state_of(2), meta)
    with pytest.raises(UserError, match="a checkpoint could not be written, the disk is full"):
        checkpoints.__exit__(None, None, None)


def test_frozen_numpy_scalars_do_not_hide_in_a_restored_state(tmp_path, config, meta):
    """Everything is a device array again, so that the state can be donated."""
    save(tmp_path, meta, 1)
    found, _ = restore(tmp_path, config)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))
    assert np.asarray(found.step).dtype == np.int32
