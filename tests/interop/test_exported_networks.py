"""Compares every pose network with its ONNX model in onnxruntime and with its StableHLO."""

import re

import jax
import numpy as np
import pytest

from rmpe_jax.models import SPPE_NAMES, build_sppe

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from rmpe_jax.interop.onnx_export import to_onnx  # noqa: E402
from rmpe_jax.interop.stablehlo import to_stablehlo  # noqa: E402

SIZE = (64, 64, 3)
FAST = ("tinypose_s", "movenet_lightning")


def random_variables(module, x):
    """Variables that are neither zero nor one, so each has an effect."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise, name = rng.standard_normal(leaf.shape).astype(np.float32), path[-1].key
        if leaf.ndim > 1:
            return noise / np.sqrt(np.prod(leaf.shape[:-1]), dtype=np.float32)
        return 1 + 0.2 * abs(noise) if name in ("scale", "var") else 0.2 * noise

    return jax.tree.map_with_path(draw, shapes)


def exported(name):
    """The function from crops to maps, three crops, and their maps."""
    module = build_sppe(name, 17)
    crops = np.random.default_rng(1).standard_normal((3, *SIZE)).astype(np.float32)
    variables = random_variables(module, crops)

    def maps(x):
        outputs = module.apply(variables, x)
        return outputs[-1] if isinstance(outputs, list) else outputs

    return maps, crops, jax.tree.leaves(jax.jit(maps)(crops))


def assert_close(outputs, expected):
    for actual, ours in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(
            actual, ours[: len(actual)], atol=1e-4 * np.abs(ours).max(), rtol=0
        )


every_network = pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in SPPE_NAMES
        # The larger ViTPoses have the layers of the small ones, and gigabytes of parameters.
        if not re.match(r"vitpose_(plus_)?[blh]", name)
    ],
)


@every_network
def test_onnx(name):
    maps, crops, expected = exported(name)
    names = [f"maps{i}" for i in range(len(expected))]  # RTMPose has two
    model = to_onnx(maps, SIZE, input_name="crops", output_names=names)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for count in (3, 1):
        assert_close(session.run(None, {"crops": crops[:count]}), expected)


@every_network
def test_stablehlo(name):
    pytest.importorskip("flatbuffers")
    maps, crops, expected = exported(name)
    program = jax.export.deserialize(to_stablehlo(maps, SIZE))
    for count in (3, 1):
        assert_close(jax.tree.leaves(program.call(crops[:count])), expected)
