"""ViTPose against its formulas in NumPy (and torch); resampling, dropped paths, precision."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from one_program import compiled

from rmpe_jax.errors import UserError
from rmpe_jax.models import build_sppe
from rmpe_jax.models.localization import SmallLocalization
from rmpe_jax.models.rmpe import RMPE
from rmpe_jax.models.vitpose import (
    EXPERTS,
    VITPOSE_MODELS,
    TransformerOptions,
    ViTPose,
    _embed_patches,
    resample_positions,
)

SIZE = (64, 32)
HEADS = 3
tiny = functools.partial(ViTPose, 5, width=24, depth=2, num_heads=HEADS)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def images(rng, count):
    return jnp.asarray(rng.standard_normal((count, *SIZE, 3)), jnp.float32)


def layer_norm(twin, x, name, epsilon=1e-6):
    centered = x - x.mean(-1, keepdims=True)
    x = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + epsilon)
    return x * twin.state[f"{name}.weight"] + twin.state[f"{name}.bias"]


def attention(twin, x, name):
    b, n, c = x.shape
    q, k, v = np.split(twin.linear(x, f"{name}.qkv"), 3, -1)
    q, k, v = (a.reshape(b, n, HEADS, c // HEADS).transpose(0, 2, 1, 3) for a in (q, k, v))
    weights = scipy.special.softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(c // HEADS), -1)
    return twin.linear((weights @ v).transpose(0, 2, 1, 3).reshape(b, n, c), f"{name}.proj")


def mlp(twin, x, name, experts):
    x = twin.linear(x, f"{name}.fc1")
    x = x * scipy.special.ndtr(x)  # the exact GELU
    y = twin.linear(x, f"{name}.fc2")
    if experts is None:
        return y
    parts = [twin.linear(row, f"{name}.experts.{e}") for row, e in zip(x, experts, strict=True)]
    return np.concatenate([y, np.stack(parts)], -1)


def vitpose(twin, x, experts=None, simple=False):
    weight, bias = (twin.state[f"backbone.patch_embed.{leaf}"] for leaf in ("weight", "bias"))
    x = twin.ops.conv2d(x, weight, bias, 16, 2)
    b, c, h, w = x.shape
    positions = twin.state["backbone.pos_embed"]
    x = x.reshape(b, c, h * w).transpose(0, 2, 1) + positions[:, 1:] + positions[:, :1]
    for i in range(2):
        name = f"backbone.blocks.{i}"
        x = x + attention(twin, layer_norm(twin, x, f"{name}.norm1"), f"{name}.attn")
        x = x + mlp(twin, layer_norm(twin, x, f"{name}.norm2"), f"{name}.mlp", experts)
    x = layer_norm(twin, x, "backbone.last_norm").transpose(0, 2, 1).reshape(b, c, h, w)
    if simple:
        x = np.maximum(x, 0)
        rows, columns = bilinear_matrix(h), bilinear_matrix(w)
        x = np.einsum("yh,bchw,xw->bcyx", rows, x, columns)
        return twin.conv(x, "keypoint_head.final_layer")
    for index in (0, 3):
        x = twin.deconv(x, f"keypoint_head.deconv_layers.{index}")
        x = np.maximum(twin.norm(x, f"keypoint_head.deconv_layers.{index + 1}"), 0)
    return twin.conv(x, "keypoint_head.final_layer")


def bilinear_matrix(length):
    """Upsampling by 4 with half-pixel centers; the border is continued."""
    positions = np.clip((np.arange(4 * length) + 0.5) / 4 - 0.5, 0, length - 1)
    return np.maximum(1 - np.abs(positions[:, None] - np.arange(length)), 0)


def test_classic_head(assert_twins):
    assert_twins(tiny(), SIZE, 3, vitpose)


def test_simple_head(assert_twins):
    assert_twins(tiny(simple_head=True), SIZE, 3, functools.partial(vitpose, simple=True))


def test_experts(assert_twins):
    module = tiny(expert_width=6, options=TransformerOptions(expert=4))
    assert_twins(module, SIZE, 3, functools.partial(vitpose, experts=(4, 4)))


@pytest.mark.slow
def test_experts_of_each_image(random_variables, rng):
    module = tiny(expert_width=6)
    x = images(rng, 6)
    variables = random_variables(module, x)
    together = module.apply(variables, x, expert=jnp.arange(6))
    alone = [
        module.clone(options=TransformerOptions(expert=i)).apply(variables, x[i : i + 1])
        for i in range(len(EXPERTS))
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
    assert len({np.asarray(maps).tobytes() for maps in alone}) == len(EXPERTS)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # Hugging Face's numbers of parameters, without running statistics.
        ("vitpose_s", 24_290_577),
        ("vitpose_s_simple", 21_722_513),
        ("vitpose_plus_s", 33_143_697),
        ("vitpose_b", 89_994_513),
    ],
)
def test_parameter_counts(name, count):
    module = build_sppe(name, 17)
    image = jax.ShapeDtypeStruct((1, 256, 192, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_all_sizes_exist_with_and_without_experts():
    names = itertools.product(("vitpose", "vitpose_plus"), "sblh", ("", "_simple"))
    assert set(VITPOSE_MODELS) == {f"{kind}_{size}{head}" for kind, size, head in names}


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("attention", ["xla", "cudnn"])
def test_what_computes_the_attention(monkeypatch, attention, remat):
    """The option reaches JAX, whose "cudnn" runs on GPUs only."""
    used = []

    def attend(q, k, v, implementation):
        del k, v
        used.append(implementation)
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
    module = tiny(options=TransformerOptions(attention=attention, remat=remat))
    jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *SIZE, 3), "float32"))
    assert used == [attention] * 2


def test_cudnn_needs_half_precision_and_a_gpu(monkeypatch):
    options = TransformerOptions(attention="cudnn")
    with pytest.raises(UserError, match=r"needs config\.model\.dtype='bfloat16', not 'float32'"):
        build_sppe("vitpose_s", 5, jnp.float32, options)
    with pytest.raises(UserError, match=r"needs a CUDA GPU, and the first device is .*'xla'$"):
        build_sppe("vitpose_s", 5, jnp.bfloat16, options)
    assert not isinstance(build_sppe("tinypose_s", 5, jnp.float32, options), ViTPose)
    monkeypatch.setattr(jax, "devices", lambda: ["cuda:0"])
    module = build_sppe("vitpose_s", 5, jnp.bfloat16, options)
    assert isinstance(module, ViTPose)
    assert module.options == options


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_remat_changes_nothing(random_variables, rng, train):
    x = images(rng, 2)
    options = {"drop_path": 0.5}
    plain = tiny(options=TransformerOptions(**options))
    remat = tiny(options=TransformerOptions(remat=True, **options))
    variables = random_variables(plain, x)

    def gradient(module):
        def mean(params):
            maps, _ = module.apply(
                {**variables, "params": params},
                x,
                train=train,
                rngs={"drop_path": jax.random.key(3)},
                mutable=["batch_stats"],
            )
            return maps.mean()

        return jax.grad(mean)(variables["params"])

    for ours, theirs in zip(*(jax.tree.leaves(gradient(m)) for m in (remat, plain)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.slow
def test_inside_the_spatial_transformer(random_variables, rng):
    """It begins as the transformer alone, and the loss reaches the localization network."""
    net = RMPE(tiny(simple_head=True), SmallLocalization(widths=(4, 8)))
    x = images(rng, 2)
    variables = jax.jit(net.init)(jax.random.key(0), x)
    alone = {kind: trees["sppe"] for kind, trees in variables.items() if "sppe" in trees}
    found = net.apply(variables, x)
    np.testing.assert_allclose(found, net.sppe.apply(alone, x), atol=1e-5)

    def loss(params):
        outputs, _ = net.apply(
            {**variables, "params": params},
            x,
            train=True,
            rngs={"drop_path": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return (outputs.heatmaps**2).mean()

    grads = jax.grad(loss)(variables["params"])
    assert np.abs(grads["localization"]["theta"]["kernel"]).max() > 0
    assert np.abs(grads["sppe"]["backbone"]["patch_embed"]["kernel"]).max() > 0


def test_dropped_paths(random_variables, rng):
    """Nothing is dropped in evaluation; in training it depends on the key, image by image."""
    module = tiny(options=TransformerOptions(drop_path=0.9), simple_head=True)
    x = jnp.repeat(images(rng, 1), 40, 0)
    variables = random_variables(module, x)
    reference = compiled(tiny(simple_head=True).apply)(variables, x)
    np.testing.assert_array_equal(compiled(module.apply)(variables, x), reference)

    @compiled
    def train(seed):
        return module.apply(variables, x, train=True, rngs={"drop_path": jax.random.key(seed)})

    maps = train(0)
    np.testing.assert_array_equal(maps, train(0))
    assert not np.array_equal(maps, train(1))
    # Only the second block drops, each of its two branches with 0.9: four kinds of output.
    kinds = {np.round(image, 3).tobytes() for image in maps}
    assert 2 <= len(kinds) <= 4


def test_bfloat16_is_close_and_its_heatmaps_are_float32(random_variables, rng):
    x = images(rng, 2)
    variables = random_variables(tiny(), x)
    exact, rounded = (
        compiled(net.apply)(variables, x) for net in (tiny(), tiny(dtype=jnp.bfloat16))
    )
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


def test_positions_of_another_size(rng):
    positions = jnp.asarray(rng.standard_normal((1, 13, 8)), jnp.float32)
    assert resample_positions(positions, (4, 3), (4, 3)) is positions
    larger = np.asarray(resample_positions(positions, (4, 3), (8, 6)))
    assert larger.shape == (1, 49, 8)
    np.testing.assert_array_equal(larger[:, 0], positions[:, 0])
    # Interpolation keeps a constant and, away from the border, a slope.
    slope = np.broadcast_to(np.arange(8.0)[:, None], (8, 6)).reshape(1, 48, 1)
    slope = jnp.concatenate([jnp.zeros((1, 1, 1)), jnp.asarray(slope, jnp.float32)], 1)
    finer = np.asarray(resample_positions(slope, (8, 6), (16, 12)))[0, 1:, 0].reshape(16, 12)
    np.testing.assert_allclose(
        finer[4:12], ((np.arange(16) - 0.5) / 2)[4:12, None] * np.ones(12), atol=1e-5
    )


def test_patches_are_embedded_as_by_a_convolution(rng):
    x = jnp.asarray(rng.standard_normal((2, 64, 48, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((16, 16, 3, 7)), jnp.float32)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (16, 16), ((2, 2), (2, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = compiled(_embed_patches, 2, 3)(x, kernel, (16, 16), ((2, 2), (2, 2)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
