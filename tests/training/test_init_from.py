"""Starting a run from any trained network that prediction can load."""

import functools

import jax
import numpy as np
import pytest
import run_parts
from toy import Toy, same

from rmpe_jax import models
from rmpe_jax.config import model_spec, parse_config
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.pose_model import PoseModel, save_pose_model
from rmpe_jax.models.vitpose import ViTPose, resample_positions
from rmpe_jax.skeletons import COCO, CROWDPOSE, LSP, UNION


@pytest.fixture
def trained(config, tmp_path):
    """trained(skeleton): a model file of a network with other random weights, and its variables."""

    def make(skeleton="coco", **codec):
        other = config.copy_and_resolve_references()
        other.seed, other.model.skeleton = 7, skeleton
        other.codec.update(codec)
        variables = run_parts.start(other).variables
        spec = model_spec(parse_config(other))
        save_pose_model(tmp_path / "pose.safetensors", PoseModel(spec, variables))
        return str(tmp_path / "pose.safetensors"), variables

    return make


def test_a_model_file(config, trained):
    config.model.init_from, variables = trained()
    fresh = run_parts.start(config)
    assert not same(fresh.variables, variables)
    state = run_parts.resumed(config, fresh)
    assert same(state.variables, variables)
    assert int(state.step) == 0


def test_joints_that_the_network_lacks_start_anew(config, trained, caplog):
    config.model.init_from, variables = trained("coco")
    config.model.skeleton = "union"
    fresh = run_parts.start(config)
    state = run_parts.resumed(config, fresh)
    places = UNION.indices_in(COCO)
    known = places >= 0
    for leaf in ("kernel", "bias"):
        ours, theirs, initial = (
            np.asarray(tree["conv_out"][leaf])
            for tree in (state.params, variables["params"], fresh.params)
        )
        np.testing.assert_array_equal(ours[..., known], theirs[..., places[known]])
        np.testing.assert_array_equal(ours[..., ~known], initial[..., ~known])
    (line,) = caplog.messages
    assert "for coco joints, lacks 4 of 21 joints, which start anew: " in line


def test_other_inputs_are_warned_of(config, trained, caplog):
    config.model.init_from, _ = trained(alignment="first_pixel")
    run_parts.resumed(config, run_parts.start(config))
    (line,) = caplog.messages
    assert "codec.alignment first_pixel there, center here" in line


def test_options_of_the_training_alone_are_not_warned_of(config, trained, caplog):
    config.transformer.update({"drop_path": 0.1, "remat": True})
    config.model.init_from, _ = trained()
    config.transformer.update({"drop_path": 0.5, "remat": False})
    run_parts.resumed(config, run_parts.start(config))
    assert not caplog.messages
    config.transformer.update({"norm_epsilon": 1e-12, "expert": 2})
    run_parts.resumed(config, run_parts.start(config))
    (line,) = caplog.messages
    assert "transformer.norm_epsilon 1e-06 there, 1e-12 here" in line
    assert "transformer.expert 0 there, 2 here" in line
    assert "drop_path" not in line


def test_networks_that_do_not_fit(config, trained, tmp_path):
    config.model.init_from, _ = trained(loss="cross_entropy")
    with pytest.raises(UserError, match=r"config\.codec\.loss='cross_entropy' cannot start one of"):
        run_parts.resumed(config, run_parts.start(config))
    config.model.init_from = str(tmp_path / "gone.safetensors")
    with pytest.raises(UserError, match="no model there"):
        run_parts.resumed(config, run_parts.start(config))
    config.model.init_from = "builtin"
    with pytest.raises(UserError, match=r"builtin: a network of config\.model\.name="):
        run_parts.resumed(config, run_parts.start(config))


def test_both_branches_of_the_transformer_from_files(config, trained):
    config.model.init_from, variables = trained()
    config.sstn.enabled, config.sstn.parallel = True, config.model.name
    state = run_parts.resumed(config, run_parts.start(config))
    for branch in ("sppe", "parallel_sppe"):
        assert same(state.params[branch], variables["params"])
    leaves = jax.tree.leaves(state.params)
    assert len({id(leaf) for leaf in leaves}) == len(leaves)


def test_as_many_joints_in_another_order(config, trained):
    """LSP and CrowdPose have the same 14 joints."""
    config.model.init_from, variables = trained("lsp")
    config.model.skeleton = "crowdpose"
    state = run_parts.resumed(config, run_parts.start(config))
    places = CROWDPOSE.indices_in(LSP)
    assert not np.array_equal(places, np.arange(14))
    expected = jax.tree.map(lambda leaf: leaf[..., places], variables["params"]["conv_out"])
    assert same(state.params["conv_out"], expected)


def test_a_transformer_at_another_input_size(config, trained, monkeypatch):
    """It has no batch norms, so its file has no statistics."""
    tiny = functools.partial(
        ViTPose, width=12, depth=1, num_heads=3, expert_width=0, simple_head=True
    )
    monkeypatch.setitem(models._MODELS, "vitpose_s_simple", tiny)
    config.model.name, config.model.input_size = "vitpose_s_simple", (64, 48)
    config.model.init_from, variables = trained()
    state = run_parts.resumed(config, run_parts.start(config))
    assert same(state.params, variables["params"])
    config.model.input_size = (96, 64)
    state = run_parts.resumed(config, run_parts.start(config))
    positions = variables["params"]["backbone"]["pos_embed"]
    expected = resample_positions(positions, (4, 3), (6, 4))
    np.testing.assert_allclose(state.params["backbone"]["pos_embed"], expected, rtol=1e-6)
    assert same(state.params["keypoint_head"], variables["params"]["keypoint_head"])


def test_a_network_of_the_view_in_a_larger_crop(config, trained, monkeypatch, caplog):
    """Position embeddings are those of the view; the padding is that of what the SPPE sees."""
    tiny = functools.partial(
        ViTPose, width=12, depth=1, num_heads=3, expert_width=0, simple_head=True
    )
    monkeypatch.setitem(models._MODELS, "vitpose_s_simple", tiny)
    config.model.name, config.model.input_size = "vitpose_s_simple", (64, 48)
    config.data.padding = 1.3
    config.model.init_from, variables = trained()
    config.sstn.enabled, config.sstn.parallel = True, config.model.name
    config.sstn.context, config.model.input_size, config.data.padding = 2.0, (128, 96), 2.6
    fresh = run_parts.start(config)
    state = run_parts.resumed(config, fresh)
    for branch in ("sppe", "parallel_sppe"):
        assert same(state.params[branch], variables["params"])
    assert same(state.params["localization"], fresh.params["localization"])
    assert not caplog.messages
    config.data.padding = 1.3
    run_parts.resumed(config, fresh)
    assert "data.padding 1.3 there, 0.65 here" in caplog.text


def test_an_rtmpose_at_another_input_size_is_refused(config, trained, monkeypatch):
    """A toy takes its place, because the input size is read before the weights."""
    monkeypatch.setitem(models._MODELS, "rtmpose_t", Toy)
    config.model.name, config.codec.decode = "rtmpose_t", "dark"
    config.model.init_from, _ = trained()
    run_parts.resumed(config, run_parts.start(config))
    config.model.input_size = (64, 48)
    with pytest.raises(UserError, match=r"rtmpose_t works only .*input_size to \(32, 32\)$"):
        run_parts.resumed(config, run_parts.start(config))
