"""Models out of files and training runs."""

import dataclasses
import json
import pathlib

import bright
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.config import (
    default_config,
    model_spec,
    parse_config,
    spec_from_dict,
    spec_to_dict,
)
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import load_model, save_model
from rmpe_jax.model_io.pose_model import load_pose_model, save_pose_model
from rmpe_jax.models.vitpose import TransformerOptions
from rmpe_jax.pose_nms import PoseNmsParams, params_to_dict
from rmpe_jax.skeletons import MPII
from rmpe_jax.training.checkpoints import Checkpoints
from rmpe_jax.training.state import TrainState

pytestmark = pytest.mark.usefixtures("bright_network")


DETECTOR = {"model": {"task": "detection"}, "detection": {"test_size": [64, 64]}}


def same(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(
        jax.tree.map(np.array_equal, a, b)
    )


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "model.safetensors"


def test_a_file_brings_everything_back(path):
    model = bright.pose_model(PoseNmsParams.preset("rmpe"))
    model = model._replace(spec=dataclasses.replace(model.spec, decode="quarter", padding=1.1))
    save_pose_model(path, model)
    found = load_pose_model(str(path))
    assert same(found.variables, model.variables)
    assert found.spec == model.spec
    assert params_to_dict(found.nms) == params_to_dict(model.nms)
    assert found.spec.skeleton.name == "coco"
    assert found.build()[1] == model.build()[1]


def test_what_computes_attention_belongs_to_the_machine(path):
    """Neither model files nor the configs in checkpoints bring it to another machine."""
    model = bright.pose_model()
    for options in (TransformerOptions(), TransformerOptions(expert=3)):
        here = dataclasses.replace(options, attention="cudnn")
        spec = dataclasses.replace(model.spec, transformer=here)
        save_pose_model(path, model._replace(spec=spec))
        assert load_pose_model(path).spec.transformer == options
    stored = {"transformer": dataclasses.asdict(here)}
    assert spec_from_dict(stored).transformer == options


def test_older_files_call_the_nms_variant_form(path):
    model = bright.pose_model(PoseNmsParams.preset("alphapose_whole_body"))
    save_pose_model(path, model)
    variables, meta = load_model(path)
    meta["pose_nms"]["form"] = meta["pose_nms"].pop("variant")
    save_model(path, variables, meta)
    assert load_pose_model(path).nms == model.nms


def test_a_file_says_nothing_about_the_training(path):
    model = bright.pose_model(None)
    save_pose_model(path, model, half=True, about={"terms": "free"})
    meta = load_model(path)[1]
    assert set(meta["config"]) == {"model", "codec", "sstn", "data"}
    assert set(meta["config"]["data"]) == {"padding"}
    assert meta["about"] == {"terms": "free"}
    found = load_pose_model(path)
    assert found.nms is None


def save_run(folder, model, config=None):
    """A checkpoint as a run leaves it; scaled, to tell it from others."""
    tree = jax.tree.map(jnp.asarray, model.variables)
    state = TrainState(jnp.int32(5), tree["params"], tree["batch_stats"], None, {})
    with Checkpoints(folder) as checkpoints:
        meta = {
            "config": config or json.loads(json.dumps(spec_to_dict(model.spec))),
            "best_score": 0.5,
        }
        checkpoints.save(state, meta, wait=True)


def test_a_run_gives_its_best_checkpoint_else_its_last(tmp_path):
    last = bright.pose_model(None)
    best = last._replace(variables=jax.tree.map(lambda a: a * 2, last.variables))
    save_run(tmp_path / "checkpoints", last)
    assert same(load_pose_model(tmp_path).variables, last.variables)
    save_run(tmp_path / "best", best)
    assert same(load_pose_model(tmp_path).variables, best.variables)
    assert same(load_pose_model(tmp_path / "checkpoints").variables, last.variables)


def test_a_run_of_before_there_were_all_keys(tmp_path):
    model = bright.pose_model(None)
    config = json.loads(json.dumps(spec_to_dict(model.spec)))
    del config["sstn"], config["model"]["task"], config["codec"]["alignment"]
    config["data"] = {"padding": 1.1, "some old key": 3}
    save_run(tmp_path / "checkpoints", model, config)
    found = load_pose_model(tmp_path)
    assert found.spec.padding == 1.1
    assert found.spec.alignment == "center"
    assert not found.spec.sstn


def test_the_parallel_branch_is_left_behind(path):
    config = default_config()
    config.model.name, config.model.input_size = "tinypose_s", (64, 64)
    config.sstn.enabled, config.sstn.parallel = True, "tinypose_s"
    config.sstn.parallel_from = "somewhere"
    network, _ = model_spec(parse_config(config)).build()
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(shapes))
    assert "parallel_sppe" in variables["params"]
    meta = {"config": json.loads(config.to_json())}
    save_model(path, variables, meta)
    found = load_pose_model(path)
    assert set(found.variables["params"]) == {"sppe", "localization"}
    found.build()


def test_what_does_not_belong_together(path):
    model = bright.pose_model(None)
    model = model._replace(spec=dataclasses.replace(model.spec, skeleton=MPII))
    with pytest.raises(UserError, match="the variables are not those of bright"):
        model.build()


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, "it has no config of a pose network"),
        ({"config": {"model": {"name": "notanet"}}}, "config.model.name='notanet' is unknown"),
        ({"config": {"model": {"input_size": "large"}}}, "it has no config of a pose network"),
        ({"config": [1]}, "it has no config of a pose network"),
        ({"config": {}, "pose_nms": {"eta": 3}}, "pose NMS parameters need sigma1"),
        ({"config": DETECTOR}, "is a detector: name a pose network"),
    ],
)
def test_files_of_something_else(path, meta, expected):
    save_model(path, {"params": {"a": np.zeros(1)}}, meta)
    with pytest.raises(UserError, match=expected) as error:
        load_pose_model(path)
    assert str(error.value).startswith(str(path))


def test_a_file_whose_arrays_are_in_no_module(path):
    save_pose_model(path, bright.pose_model())
    _, meta = load_model(path)
    save_model(path, {"kernel": np.zeros(3)}, meta)
    with pytest.raises(UserError, match="an array that belongs to no module of a network"):
        load_pose_model(path)


def test_there_is_none(tmp_path):
    with pytest.raises(UserError, match="nothing: no model there; name a model file or"):
        load_pose_model(tmp_path / "nothing")
    with pytest.raises(UserError, match="no checkpoint there can be read"):
        load_pose_model(tmp_path)


def test_the_names_of_before_are_understood(path, caplog):
    """Files and checkpoints of earlier versions have British keys."""
    model = bright.pose_model(None)
    config = json.loads(json.dumps(spec_to_dict(model.spec)))
    config["codec"]["integer_centre"] = True
    del config["codec"]["integer_center"]
    config["codec"]["alignment"] = "centre"
    save_model(path, model.variables, {"config": config})
    found = load_pose_model(path)
    assert found.spec == dataclasses.replace(model.spec, integer_center=True)
    assert not caplog.records  # nobody can change a file
