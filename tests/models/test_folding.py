"""Folded networks give what the networks give."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rmpe_jax.models import SPPE_NAMES, build_sppe
from rmpe_jax.models.efficientnet import FrozenBatchNorm
from rmpe_jax.models.folding import fold_batch_norm
from rmpe_jax.models.layers import batch_norm, conv, deconv_4x4
from rmpe_jax.models.localization import build_localization
from rmpe_jax.models.rmpe import RMPE

SIZE = (64, 64)


class Pieces(nn.Module):
    """All that is folded, and a norm that is not: it follows no convolution."""

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(batch_norm, train=train)
        x = nn.relu(norm(name="first")(conv(8, 3, bias=True, name="conv")(x)))
        x = nn.relu(FrozenBatchNorm(name="frozen")(conv(6, 1, name="narrow")(x)))
        x = norm(name="up")(deconv_4x4(5, name="deconv")(x))
        return conv(3, 1, bias=True, name="out")(norm(name="alone")(nn.relu(x)))


def random_variables(model) -> dict:
    """Variables of a network of any depth that neither vanishes nor blows up."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            value = rng.normal(0, 0.1, shape)
        else:
            value = rng.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape)
        return value.astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *SIZE, 3)))
    return jax.tree.map_with_path(draw, dict(shapes))


def norms_left(variables) -> list[str]:
    stats = traverse_util.flatten_dict(variables.get("batch_stats", {}), sep="/")
    return sorted(name.removesuffix("/var") for name in stats if name.endswith("/var"))


def compare(model, tolerance: float = 1e-5) -> dict:
    variables = random_variables(model)
    x = np.random.default_rng(1).normal(size=(1, *SIZE, 3)).astype(np.float32)
    folded, folded_variables = fold_batch_norm(model, variables, SIZE)
    expected = jax.tree.leaves(jax.jit(model.apply)(variables, x))
    found = jax.tree.leaves(jax.jit(folded.apply)(folded_variables, x))
    for a, b in zip(found, expected, strict=True):
        assert np.isfinite(b).all()
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max() + 1e-6
    return folded_variables


def test_every_kind_of_norm_after_every_kind_of_convolution():
    variables = compare(Pieces())
    assert norms_left(variables) == ["alone"]
    assert set(variables["params"]["frozen"]) == {"bias"}


def test_a_network_that_is_folded_gives_the_same():
    compare(build_sppe("tinypose_s", 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SPPE_NAMES if name != "tinypose_s"])
def test_so_do_all_others(name):
    compare(build_sppe(name, 3))


@pytest.mark.slow
def test_the_spatial_transformer_is_folded_too():
    """Rounding moves the view a little, and with it what is at edges."""
    model = RMPE(build_sppe("tinypose_s", 3), build_localization("small"))
    left = norms_left(compare(model, tolerance=1e-4))
    assert left == ["sppe/head/sum_bn1", "sppe/head/sum_bn2", "sppe/head/sum_bn3"]


@pytest.mark.parametrize("name", ["fastpose_res18", "simplepose_res18"])
def test_nothing_is_left_where_each_norm_follows_a_convolution(name):
    model = build_sppe(name, 3)
    _, variables = fold_batch_norm(model, random_variables(model), SIZE)
    assert norms_left(variables) == []


def test_the_given_variables_stay_as_they_are():
    model = build_sppe("tinypose_s", 3)
    variables = random_variables(model)
    fold_batch_norm(model, variables, SIZE)
    again = random_variables(model)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))
