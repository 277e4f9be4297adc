import dataclasses
import json
import pathlib
import re
import runpy

import ml_collections
import numpy as np
import pytest

from rmpe_jax.config import OptimConfig, default_config, parse_config
from rmpe_jax.errors import UserError

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.fixture
def config():
    return default_config()


def test_the_defaults_are_valid(config):
    parse_config(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_of_configs_is_valid(path):
    parse_config(runpy.run_path(str(path))["get_config"]())


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("model.name", "fastpose_res5O", "did you mean 'fastpose_res50'"),
        ("model.name", "vgg", "use fastpose_res18"),
        ("model.skeleton", "cocoo", "did you mean 'coco'"),
        ("model.dtype", "float16", "bfloat16"),
        ("codec.loss", "mae", "did you mean 'mse'"),
        ("codec.decode", "darkk", "did you mean 'dark'"),
        ("codec.alignment", "first", "use center, first_pixel"),
        ("sstn.parallel", "rtmpose_s", "a network with heatmaps"),
        ("data.jitter_strength", 1.5, "more than 0, at most 1"),
        ("sstn.guidance", "difference", "did you mean 'differences'"),
        ("sstn.difference_step", 0.0, "more than 0 and less than 1"),
        ("sstn.localization_warmup", -1, "0 or more"),
        ("sstn.decode", "views", "did you mean 'view'"),
        ("sstn.context", 0.5, "1 or more"),
        ("sstn.context", np.nan, "1 or more"),
        ("sstn.context", 1.5, "1 without sstn.enabled"),
        ("model.skeleton", "unnamed_0", "is unknown: use coco"),
        ("transformer.attention", "flash", "use xla, cudnn"),
        ("optim.name", "sgd", "use adam, adamw, rmsprop"),
        ("optim.schedule", "cosin", "did you mean 'cosine'"),
        ("batch_size", 0, "at least 1"),
        ("grad_accumulation", 0, "at least 1"),
        ("grad_accumulation", 3, "a divisor of batch_size, 32"),
        ("log_every", 0, "at least 1"),
        ("checkpoint_every", -1, "at least 1"),
        ("total_steps", -1, "0 or more"),
        ("evaluate_every", -1, "0 or more"),
        ("seed", -1, "2**32 - 1"),
        ("seed", 2**32, "2**32 - 1"),
        ("profile_steps", (5,), "(first, last)"),
        ("profile_steps", (5, 4), "(first, last)"),
        ("profile_steps", (0, 4), "steps from 1"),
        ("sharding", "zero", "replicated, fsdp"),
        ("model.input_size", (256,), "(height, width)"),
        ("model.input_size", (256, 192, 3), "(height, width)"),
        ("model.input_size", (256, 0), "(height, width)"),
        ("model.input_size", (256.0, 192.0), "whole numbers"),
        ("model.input_size", ("a", "b"), "whole numbers"),
        ("model.mean", (0.5, 0.5), "three numbers"),
        ("model.std", (0.5, 0.5, 0.5, 0.5), "three numbers"),
        ("model.std", (0.5, 0.0, 0.5), "more than 0"),
        ("model.mean", ("r", "g", "b"), "three numbers"),
        ("data.proposals", "jiter", "did you mean 'jitter'"),
        ("data.patch_prob", 1.5, "from 0 to 1"),
        ("codec.sigma", 0.0, "more than 0"),
        ("codec.sigma", np.nan, "more than 0"),
        ("data.train", (1, 2), "coco:FOLDER:SPLIT"),
        ("data.repeats", (2,), "for each of data.train"),
        ("data.padding", 0.0, "more than 0"),
        ("data.max_suspicious", 1.5, "from 0 to 1"),
        ("data.max_suspicious", np.nan, "from 0 to 1"),
        ("data.num_threads", 0, "at least 1"),
        ("data.num_workers", -1, "at least 0"),
        ("data.prefetch", 0, "at least 1"),
        ("augmentation.flip_prob", 1.5, "from 0 to 1"),
        ("augmentation.scale", 1.0, "less than 1"),
        ("augmentation.rotation_degrees", -1.0, "0 or more"),
        ("augmentation.color_gain", (1.2, 0.8), "(low, high)"),
        ("augmentation.color_gain", (1.0,), "(low, high)"),
        ("optim.learning_rate", 0.0, "more than 0"),
        ("optim.learning_rate", np.nan, "more than 0"),
        ("optim.warmup_steps", -1, "0 or more"),
        ("optim.clip_norm", -1.0, "0 or more"),
        ("optim.weight_decay", 0.1, "only adamw uses it"),
        ("optim.milestones", (10, 20), "empty, unless optim.schedule is 'step'"),
        ("optim.milestones", (20, 10), "ascending"),
        ("optim.frozen", "backbone/(", "a regular expression"),
        ("optim.ema_decay", 1.0, "less than 1"),
    ],
)
def test_a_value_that_cannot_be_gets_one_line_that_names_it(config, key, value, says):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as error:
        parse_config(config)
    line = str(error.value)
    assert f"config.{key}=" in line
    assert repr(value) in line
    assert says in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("sstn.enabled", True, "model.name='rtmpose_s' is invalid: it must be a network with heat"),
        ("model.task", "detection", "model.name='rtmpose_s' is invalid: it must be a network with"),
        ("codec.loss", "cross_entropy", "it must be 'mse': rtmpose_s has no heatmaps"),
        ("codec.sigma", 3.0, "it must be 2.0: rtmpose_s has no heatmaps"),
        ("codec.integer_center", True, "it must be False: rtmpose_s has no heatmaps"),
        ("codec.decode", "argmax", "it must be 'dark': rtmpose_s has no heatmaps"),
        ("codec.alignment", "udp", "it must be 'center': rtmpose_s has no heatmaps"),
        ("codec.blur_sigma", 1.0, "it must be 0.0: rtmpose_s has no heatmaps"),
    ],
)
def test_what_a_network_without_heatmaps_refuses(config, key, value, says):
    config.model.name = "rtmpose_s"
    parse_config(config)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=re.escape(says)):
        parse_config(config)


@pytest.mark.parametrize(
    ("size", "context", "fits"),
    [
        ((144, 96), 1.5, True),
        ((128, 96), 1.3333, True),  # 96 and 72
        ((128, 96), 1.333, False),
        ((144, 100), 1.5, False),
        ((192, 100), 4.0, False),  # 48 and 25
        ((45, 90), 1.5, False),  # 30 and 60, half a pixel from the edges of the crop
        ((144, 96), 1000.0, False),
    ],
)
def test_a_view_lies_on_pixels_of_the_crop(config, size, context, fits):
    config.sstn.enabled, config.sstn.context, config.model.input_size = True, context, size
    if fits:
        parse_config(config)
        return
    says = f"config.sstn.context={context} is invalid: it must be 1, or divide model.input_size="
    with pytest.raises(UserError, match=re.escape(f"{says}{size}")):
        parse_config(config)


@pytest.mark.parametrize("repeats", [(1,), (1, 2, 3), (1, 0), (1.5, 1)])
def test_repeats_fit_the_data_sets(config, repeats):
    config.data.train = ("coco:a", "coco:b")
    config.data.repeats = repeats
    with pytest.raises(UserError, match=r"data\.repeats"):
        parse_config(config)
    config.data.repeats = (3, 1)
    parse_config(config)


def test_atomic_proposals_need_a_model(config):
    config.data.proposals = "atomic"
    with pytest.raises(UserError, match=r"config\.data\.pgpg_model='' is invalid.*fit-pgpg"):
        parse_config(config)
    config.data.pgpg_model = "pgpg.npz"
    parse_config(config)


def test_the_step_schedule_needs_milestones(config):
    config.optim.schedule = "step"
    with pytest.raises(UserError, match="milestones"):
        parse_config(config)
    config.optim.milestones = (90, 120)
    parse_config(config)


def test_a_misspelt_key_is_an_error_with_a_hint(config):
    with pytest.raises(AttributeError, match="learning_rate"):
        config.optim.learning_rat = 1.0


def test_a_value_of_another_type_is_an_error(config):
    with pytest.raises(TypeError):
        config.batch_size = "many"


def test_a_config_of_an_earlier_version(config, caplog):
    """As a run's config.json holds it: keys of today are missing, old names are there."""
    content = json.loads(config.to_json())
    del content["profile_steps"], content["sstn"]["placement_weight"]
    content["codec"]["integer_centre"] = not content["codec"].pop("integer_center")
    content["codec"]["alignment"] = "centre"
    content["note"] = "a key of the user's"
    parsed = parse_config(ml_collections.ConfigDict(content))
    expected = parse_config(config)
    codec = dataclasses.replace(expected.codec, integer_center=True)
    assert parsed == dataclasses.replace(expected, codec=codec)
    assert "config.codec.alignment='centre' is now called 'center'" in caplog.text


def test_a_section_can_be_replaced(config):
    config.optim = ml_collections.ConfigDict({"learning_rate": 0.5})
    assert parse_config(config).optim == dataclasses.replace(OptimConfig(), learning_rate=0.5)
