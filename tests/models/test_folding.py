"""Folded networks have the same outputs as the original ones."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rmpe_jax.errors import UserError
from rmpe_jax.models import SPPE_NAMES, build_sppe
from rmpe_jax.models.folding import check_variables, fold_batch_norm
from rmpe_jax.models.inverted_residual import frozen_batch_norm
from rmpe_jax.models.layers import BatchNorm, Deconv4x4, conv
from rmpe_jax.models.localization import build_localization
from rmpe_jax.models.rmpe import RMPE

SIZE = (64, 64)


class Pieces(nn.Module):
    """All kinds of folded norms, and one that is not folded: it does not follow a convolution."""

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(BatchNorm, train)
        x = nn.relu(norm(name="first")(conv(8, 3, bias=True, name="conv")(x)))
        x = nn.relu(frozen_batch_norm(jnp.float32, name="frozen")(conv(6, 1, name="narrow")(x)))
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


def remaining_norms(folded, variables) -> list[str]:
    stats = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    return sorted("/".join(path) for path in {path[:-1] for path in stats} - folded.norms)


def compare(model, tolerance: float = 1e-5) -> list[str]:
    """Compares the outputs, and gives the norms that are not folded."""
    variables = random_variables(model)
    x = np.random.default_rng(1).normal(size=(1, *SIZE, 3)).astype(np.float32)
    folded, folded_variables = fold_batch_norm(model, variables, SIZE)
    expected = jax.tree.leaves(jax.jit(model.apply)(variables, x))
    found = jax.tree.leaves(jax.jit(folded.apply)(folded_variables, x))
    for a, b in zip(found, expected, strict=True):
        assert np.isfinite(b).all()
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max() + 1e-6
    return remaining_norms(folded, variables)


def test_every_kind_of_norm_after_every_kind_of_convolution():
    assert compare(Pieces()) == ["alone"]


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
    remaining = compare(model, tolerance=1e-4)
    assert remaining == ["sppe/head/sum_bn1", "sppe/head/sum_bn2", "sppe/head/sum_bn3"]


@pytest.mark.parametrize("name", ["fastpose_res18", "simplepose_res18"])
def test_no_norm_remains_if_each_follows_a_convolution(name):
    model = build_sppe(name, 3)
    variables = random_variables(model)
    folded, _ = fold_batch_norm(model, variables, SIZE)
    assert remaining_norms(folded, variables) == []


def test_the_given_variables_are_not_modified():
    model = build_sppe("tinypose_s", 3)
    variables = random_variables(model)
    fold_batch_norm(model, variables, SIZE)
    again = random_variables(model)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))


def changed(variables, path: str, change) -> dict:
    flat = traverse_util.flatten_dict(variables, sep="/")
    change(flat, path)
    return traverse_util.unflatten_dict(flat, sep="/")


def cut(flat, path):
    flat[path] = flat[path][:-1]


def shrink(flat, path):
    flat[path] = flat[path][:1]  # would be broadcast


def remove(flat, path):
    del flat[path]


def add(flat, path):
    flat[f"{path}2"] = flat[path]


@pytest.mark.parametrize("change", [cut, shrink, remove, add])
@pytest.mark.parametrize(
    "path",
    [
        "params/conv/kernel",
        "params/out/bias",
        *(f"params/{norm}/{part}" for norm in ("frozen", "alone") for part in ("scale", "bias")),
        *(f"batch_stats/{norm}/{part}" for norm in ("frozen", "alone") for part in ("mean", "var")),
    ],
)
def test_variables_of_another_network_are_refused(path, change):
    variables = changed(random_variables(Pieces()), path, change)
    with pytest.raises(UserError, match="the variables are not those of pieces: ") as error:
        check_variables(Pieces(), variables, SIZE, "pieces")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kinds", [("params",), ("batch_stats",), ()])
def test_whole_kinds_of_variables_may_be_missing(kinds):
    variables = random_variables(Pieces())
    with pytest.raises(UserError, match="the variables are not those of pieces"):
        check_variables(Pieces(), {kind: variables[kind] for kind in kinds}, SIZE, "pieces")


def test_a_layer_that_the_network_lacks():
    variables = random_variables(Pieces())
    variables["params"]["more"] = {"kernel": np.zeros((1, 1, 3, 3))}
    with pytest.raises(UserError, match="the variables are not those of this network"):
        fold_batch_norm(Pieces(), variables, SIZE)


def test_the_network_is_traced_once():
    """The compiled function that it is part of needs no trace of its own."""
    traces = []

    class Counted(Pieces):
        @nn.compact
        def __call__(self, x, train=False):
            traces.append(x.shape)
            return super().__call__(x, train)

    network, variables = fold_batch_norm(Counted(), random_variables(Pieces()), SIZE, 2)
    assert network.output.shape[0] == 2
    images = np.zeros((2, *SIZE, 3), np.float32)
    jax.jit(lambda v, x: network.apply(v, x) + 1)(variables, images)
    assert traces == [(2, *SIZE, 3)]
