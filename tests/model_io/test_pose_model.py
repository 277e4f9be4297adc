"""Models out of files and training runs."""

import json
import pathlib

import bright
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.config import default_config
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import load_model, save_model
from rmpe_jax.model_io.pose_model import PoseModel, load_pose_model, save_pose_model
from rmpe_jax.pose_nms import PoseNmsParams, params_to_dict
from rmpe_jax.training.checkpoints import Checkpoints
from rmpe_jax.training.state import TrainState, build_network

pytestmark = pytest.mark.usefixtures("bright_network")


def same(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(
        jax.tree.map(np.array_equal, a, b)
    )


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "model.safetensors"


def test_a_file_brings_everything_back(path):
    model = bright.pose_model(PoseNmsParams.preset("rmpe"))
    model.config.codec.decode, model.config.data.padding = "quarter", 1.1
    save_pose_model(path, model)
    found = load_pose_model(str(path))
    assert same(found.variables, model.variables)
    assert found.config.to_json() == model.config.to_json()
    assert params_to_dict(found.nms) == params_to_dict(model.nms)
    assert found.skeleton.name == "coco"
    assert found.build()[1] == model.build()[1]


def test_a_file_says_nothing_about_the_training(path):
    model = bright.pose_model(None)
    model.config.data.train = ("coco:folder of mine:train2017",)
    save_pose_model(path, model, half=True, about={"terms": "free"})
    assert b"folder of mine" not in path.read_bytes()
    meta = load_model(path)[1]
    assert meta["about"] == {"terms": "free"}
    found = load_pose_model(path)
    assert found.nms is None
    assert found.config.data.train == ()


def save_run(folder, model, config=None):
    """A checkpoint as a run leaves it; scaled, to tell it from others."""
    tree = jax.tree.map(jnp.asarray, model.variables)
    state = TrainState(jnp.int32(5), tree["params"], tree["batch_stats"], None, {})
    with Checkpoints(folder) as checkpoints:
        meta = {"config": config or json.loads(model.config.to_json()), "best_score": 0.5}
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
    config = json.loads(model.config.to_json())
    del config["sstn"], config["model"]["task"], config["codec"]["alignment"]
    config["data"] = {"padding": 1.1, "some old key": 3}
    save_run(tmp_path / "checkpoints", model, config)
    found = load_pose_model(tmp_path)
    assert found.config.data.padding == 1.1
    assert found.config.codec.alignment == "centre"


def test_the_parallel_branch_is_left_behind(path):
    config = default_config()
    config.model.name, config.model.input_size = "tinypose_s", (64, 64)
    config.sstn.enabled, config.sstn.parallel = True, "tinypose_s"
    network, _ = build_network(config)
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
    model.config.model.skeleton = "mpii"
    with pytest.raises(UserError, match="the variables are not those of bright"):
        model.build()
    config = default_config()
    config.model.task = "detection"
    with pytest.raises(UserError, match="is a detector: name a pose network"):
        PoseModel(config, {}).build()


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, "it has no config of a pose network"),
        ({"config": {"model": {"name": "notanet"}}}, "config.model.name='notanet' is unknown"),
        ({"config": {"model": {"input_size": "large"}}}, "it has no config of a pose network"),
        ({"config": [1]}, "it has no config of a pose network"),
        ({"config": {}, "pose_nms": {"eta": 3}}, "pose NMS parameters need sigma1"),
    ],
)
def test_files_of_something_else(path, meta, expected):
    save_model(path, {"params": {"a": np.zeros(1)}}, meta)
    with pytest.raises(UserError, match=expected) as error:
        load_pose_model(path)
    assert str(error.value).startswith(str(path))


def test_there_is_none(tmp_path):
    with pytest.raises(UserError, match="nothing: no model there; name a model file or"):
        load_pose_model(tmp_path / "nothing")
    with pytest.raises(UserError, match="no checkpoint there can be read"):
        load_pose_model(tmp_path)
