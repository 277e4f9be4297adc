"""What differs between a checkpoint's config and that of the run that continues it."""

import dataclasses
import json

import pytest

from rmpe_jax.config import (
    Change,
    OptimConfig,
    RunConfig,
    config_changes,
    default_config,
    parse_config,
)


@pytest.fixture
def config():
    """With a schedule that does not depend on the number of steps."""
    config = default_config()
    config.optim.schedule = "constant"
    return config


def stored(config) -> dict:
    """The config as the meta data of a checkpoint have it, through JSON."""
    return json.loads(json.dumps(dataclasses.asdict(parse_config(config))))


def changes(config, **values) -> list[Change]:
    """Keys with two underscores for a point."""
    old = stored(config)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
    return config_changes(old, parse_config(config))


def test_the_same_config_has_no_changes(config):
    config.data.train, config.data.evaluate = ("a:b", "c:d"), ("e:f",)
    config.profile_steps = (1, 2)
    assert changes(config) == []


def test_every_key_is_compared():
    """Whatever its type, and also keys that are added in future."""
    flat = {
        f"{section.name}.{key}" if isinstance(values, dict) else section.name
        for section in dataclasses.fields(RunConfig)
        for values in [dataclasses.asdict(RunConfig())[section.name]]
        for key in (values if isinstance(values, dict) else [""])
    }
    old = {}
    for name in flat:
        section, _, key = name.partition(".")
        if key:
            old.setdefault(section, {})[key] = "another value"
        else:
            old[section] = "another value"
    found = config_changes(old, RunConfig())
    assert {change.key for change in found} == flat
    assert all(change.old == "another value" for change in found)


def test_changes_are_in_the_order_of_the_config_with_old_and_new(config):
    found = changes(
        config, optim__learning_rate=0.5, batch_size=8, data__train=("coco:x",), log_every=7
    )
    assert [str(change) for change in found] == [
        "batch_size: 32 -> 8",
        "log_every: 50 -> 7",
        "data.train: () -> ('coco:x',)",
        "optim.learning_rate: 0.001 -> 0.5",
    ]
    assert [change.exact for change in found] == [False, True, False, False]


@pytest.mark.parametrize(
    ("key", "value", "exact"),
    [
        ("checkpoint_every", 3, True),
        ("evaluate_every", 3, True),
        ("data.evaluate", ("coco:x",), True),
        ("data.num_threads", 3, True),
        ("data.num_workers", 3, True),
        ("data.prefetch", 3, True),
        ("data.strict", True, True),
        ("profile_steps", (1, 2), True),
        ("codec.decode", "argmax", True),
        ("detection.test_size", (64, 64), True),
        ("seed", 3, False),
        ("grad_accumulation", 2, False),  # batch norms see its parts
        ("model.input_size", (64, 64), False),
        ("model.dtype", "bfloat16", False),
        ("model.init_from", "elsewhere", False),
        ("codec.sigma", 3.0, False),
        ("data.padding", 2.0, False),
        ("data.patch_prob", 0.5, False),
        ("augmentation.flip_prob", 0.0, False),
        ("optim.warmup_steps", 3, False),
        ("optim.ema_decay", 0.5, False),
    ],
)
def test_which_changes_leave_the_result_as_it_is(config, key, value, exact):
    ((found, _, new, is_exact),) = changes(config, **{key.replace(".", "__"): value})
    assert (found, new, is_exact) == (key, value, exact)


@pytest.mark.parametrize(
    ("old", "new", "exact"),
    [
        ("constant", "constant", True),
        ("cosine", "cosine", False),
        ("cosine", "constant", False),
        ("constant", "cosine", False),
    ],
)
def test_the_length_of_a_run_matters_to_the_cosine(config, old, new, exact):
    config.optim.schedule = old
    found = changes(config, total_steps=7, optim__schedule=new)
    assert [change.exact for change in found if change.key == "total_steps"] == [exact]


def test_a_checkpoint_of_an_earlier_version():
    """It lacks keys of today, and has old names and keys that are gone."""
    old = {
        "batch_size": 16,
        "codec": {"integer_centre": True, "alignment": "centre"},
        "gone": 1,
        "optim": {"gone": 2},
    }
    new = RunConfig(batch_size=16, optim=OptimConfig(name="adamw"))
    assert [str(change) for change in config_changes(old, new)] == [
        "codec.integer_center: True -> False",
        "optim.name: 'adam' -> 'adamw'",
    ]
