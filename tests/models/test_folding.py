"""Folded networks have the same outputs as the original ones."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rmpe_jax.models import SPPE_NAMES, build_sppe
from rmpe_jax.models.efficientnet import FrozenBatchNorm
from rmpe_jax.models.folding import fold_batch_norm
from rmpe_jax.models.layers import Deconv4x4, batch_norm, conv
from rmpe_jax.models.localization import build_localization
from rmpe_jax.models.rmpe import RMPE

SIZE = (64, 64)


class Pieces(nn.Module):
    """All kinds of folded norms, and one that is not folded: it does not follow a convolution."""

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(batch_norm, train=train)
        x = nn.relu(norm(name="first")(conv(8, 3, bias=True, name="conv")(x)))
        x = nn.relu(FrozenBatchNorm(name="frozen")(conv(6, 1, name="narrow")(x)))
        x = norm(name="up")(Deconv4x4(5, name="deconv")(x))
        return conv(3, 1, bias=True, name="out")(norm(name="alone")(nn.relu(x)))


def random_variables(model) -> dict:
    """Random variables; outputs neither vanish nor explode in networks of any depth."""
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


def remaining_norms(variables) -> list[str]:
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
    assert remaining_norms(variables) == ["alone"]
    assert set(variables["params"]["frozen"]) == {"bias"}


def test_a_folded_network_gives_the_same_outputs():
    compare(build_sppe("tinypose_s", 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    # The larger ViTPoses have the layers of the small ones, and gigabytes of parameters.
    [n for n in SPPE_NAMES if n != "tinypose_s" and not re.match(r"vitpose_(plus_)?[blh]", n)],
)
def test_all_other_folded_networks_give_the_same_outputs(name):
    compare(build_sppe(name, 3))


@pytest.mark.slow
def test_the_spatial_transformer_is_folded_too():
    """The tolerance is larger, because rounding moves the view slightly and changes edges."""
    model = RMPE(build_sppe("tinypose_s", 3), build_localization("small"))
    remaining = remaining_norms(compare(model, tolerance=1e-4))
    assert remaining == ["sppe/head/sum_bn1", "sppe/head/sum_bn2", "sppe/head/sum_bn3"]


@pytest.mark.parametrize("name", ["fastpose_res18", "simplepose_res18"])
def test_no_norm_remains_if_each_follows_a_convolution(name):
    model = build_sppe(name, 3)
    _, variables = fold_batch_norm(model, random_variables(model), SIZE)
    assert remaining_norms(variables) == []


def test_the_given_variables_are_not_modified():
    model = build_sppe("tinypose_s", 3)
    variables = random_variables(model)
    fold_batch_norm(model, variables, SIZE)
    again = random_variables(model)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))
