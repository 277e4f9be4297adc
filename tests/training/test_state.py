import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_parts import network, parts, start
from toy import same

from rmpe_jax.config import parse_config
from rmpe_jax.errors import UserError
from rmpe_jax.training.state import init_state


def test_the_start_follows_from_the_seed(config):
    first, again = start(config), start(config)
    config.seed = 1
    other = start(config)
    assert same(first, again)
    kernels = [state.params["conv_out"]["kernel"] for state in (first, other)]
    assert not np.array_equal(*kernels)


def test_parameters_are_float32_and_averages_start_as_copies(config):
    config.model.dtype = "bfloat16"
    state = start(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert same(state.ema, state.latest)
    assert state.variables is state.ema
    # Donated together, they must not be the same buffers.
    pairs = zip(jax.tree.leaves(state.latest), jax.tree.leaves(state.ema), strict=True)
    assert all(a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer() for a, b in pairs)


def test_without_averages_the_parameters_are_evaluated(config):
    config.optim.ema_decay = 0.0
    state = start(config)
    assert state.ema is None
    assert state.variables["params"] is state.params


def test_the_optimiser_holds_trainable_parameters_only(config):
    config.optim.frozen = "backbone"
    state = start(config)
    moments = state.opt_state[0].mu
    assert set(moments) == {"conv/kernel", "conv/bias", "conv_out/kernel", "conv_out/bias"}


def test_the_codec_fits_the_networks_output(config):
    config.model.input_size = (64, 32)
    _, codec = network(config)
    assert codec.input_size == (64, 32)
    assert codec.heatmap_size == (16, 8)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("optim.frozen", ".", "freezes all parameters"),
        ("model.backbone_weights", "weights.pth", "no reader for the backbone of toy"),
    ],
)
def test_what_cannot_start_is_one_line(config, key, value, says):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=says):
        start(config)


def test_a_backbone_factor_needs_a_backbone(config):
    config.optim.backbone_factor = 0.1
    small = {"params": {"stem": {"kernel": jnp.zeros((1, 1))}}, "batch_stats": {}}
    with pytest.raises(UserError, match="this network has no part called backbone"):
        init_state(small, parts(config).optimizer, parse_config(config).optim)


def test_an_input_size_that_the_network_cannot_halve_is_one_line(config):
    config.model.name, config.model.input_size = "tinypose_s", (100, 64)
    with pytest.raises(UserError, match="100"):
        network(config)
