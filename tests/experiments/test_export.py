import dataclasses
import functools
import json
import pathlib
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from rmpe_jax import cli, models
from rmpe_jax.config import default_config, model_spec, parse_config
from rmpe_jax.errors import UserError
from rmpe_jax.experiments.export import export_model
from rmpe_jax.model_io.pose_model import PoseModel, save_pose_model
from rmpe_jax.models.layers import BatchNorm
from rmpe_jax.models.rtmpose import RTMPose

SIZE = (32, 32)
CROPS = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8)


class Small(nn.Module):
    """(b, h, w, 3) -> (b, h/4, w/4, k), compiled in no time."""

    num_keypoints: int
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (4, 4), strides=4, use_bias=False, dtype=self.dtype, name="conv")(x)
        x = BatchNorm(train, self.dtype, name="bn")(x)
        return nn.Conv(self.num_keypoints, (3, 3), name="conv_out")(nn.relu(x))


@pytest.fixture(autouse=True, scope="module")
def small_network():
    """The name of the default network builds `Small`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models._MODELS, "tinypose_s", Small)
        yield


@pytest.fixture(autouse=True)
def _symbolic_shapes():
    """Stops type checks: jaxtyping cannot broadcast the symbolic batch size of an export."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def make_model(loss="cross_entropy", **options):
    """A network with random weights; unlike an initialized one it has a signal for every joint."""
    config = default_config()
    config.model.input_size = SIZE
    config.codec.loss = loss
    config.codec.decode = "argmax"
    config.update_from_flattened_dict(options)
    spec = model_spec(parse_config(config))
    module, _ = spec.build()
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *SIZE, 3)))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        names = [entry.key for entry in path]
        if names[-2] == "theta":
            warp = np.array([0.9, 0.1, 0.05, -0.1, 0.8, -0.1], np.float32)
            return 0.02 * noise / np.sqrt(len(noise)) if names[-1] == "kernel" else warp
        if names[-1] == "kernel":
            return noise / np.sqrt(np.prod(leaf.shape[:-1]), dtype=np.float32)
        return 1 + 0.2 * abs(noise) if names[-1] in ("scale", "var") else 0.2 * noise

    return PoseModel(spec, jax.tree.map_with_path(draw, shapes))


def expected(model):
    """Normalized crops, heatmaps, keypoints and scores, from the network in Flax."""
    module, codec = model.spec.build()
    inputs = codec.inputs(jnp.asarray(CROPS))
    maps = codec.maps(jax.jit(module.apply)(model.variables, inputs))
    return [np.asarray(array) for array in (inputs, maps, *jax.jit(codec.keypoints)(maps))]


@pytest.fixture(scope="module")
def plain(small_network):
    model = make_model()
    return model, expected(model)


def assert_close(actual, reference):
    for ours, theirs in zip(actual, reference, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


FRESH_PROCESS = """
import sys
import jax, numpy
crops = numpy.load("crops.npz")
for name in ("heatmaps", "keypoints"):
    exported = jax.export.deserialize(open(f"{name}.stablehlo", "rb").read())
    assert exported.platforms == ("cpu", "cuda", "tpu"), exported.platforms
    for count in (5, 1):
        found = jax.tree.leaves(exported.call(crops[name][:count]))
        numpy.savez(f"{name}{count}.npz", *found)
assert not any(name.startswith(("rmpe_jax", "flax")) for name in sys.modules)
"""


def test_stablehlo_in_a_process_with_only_jax(tmp_path, plain):
    pytest.importorskip("flatbuffers")
    model, (inputs, maps, *decoded) = plain
    for name in ("heatmaps", "keypoints"):
        export_model(model, tmp_path / f"{name}.stablehlo", "stablehlo", function=name)
    np.savez(tmp_path / "crops.npz", heatmaps=inputs, keypoints=CROPS)
    subprocess.run([sys.executable, "-c", FRESH_PROCESS], cwd=tmp_path, check=True)
    for name, reference in (("heatmaps", [maps]), ("keypoints", decoded)):
        for count in (5, 1):
            with np.load(tmp_path / f"{name}{count}.npz") as found:
                assert_close(found.values(), [array[:count] for array in reference])


def run_onnx(path, crops):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"crops": crops})


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"loss": "mse", "sstn.enabled": True}, id="spatial_transformer"),
        pytest.param({"sstn.enabled": True, "sstn.context": 2.0}, id="larger_crop"),
        pytest.param({"loss": "symmetric_integral", "codec.decode": "dark"}, id="sigmoid"),
    ],
)
def test_onnx_of_both_functions(tmp_path, plain, options):
    pytest.importorskip("onnx")
    model = make_model(**options) if options else plain[0]
    inputs, maps, *decoded = expected(model) if options else plain[1]
    for name, crops, reference in (("heatmaps", inputs, [maps]), ("keypoints", CROPS, decoded)):
        path = tmp_path / f"{name}.onnx"
        export_model(model, path, "onnx", function=name)
        for count in (5, 2):
            assert_close(run_onnx(path, crops[:count]), [array[:count] for array in reference])


def test_onnx_computes_in_float32(tmp_path, plain):
    pytest.importorskip("onnx")
    model, (inputs, maps, *_) = plain
    spec = dataclasses.replace(model.spec, dtype="bfloat16")
    export_model(model._replace(spec=spec), tmp_path / "half.onnx", "onnx")
    assert_close(run_onnx(tmp_path / "half.onnx", inputs), [maps])


def test_opencv_runs_it_channels_first(tmp_path, plain):
    pytest.importorskip("onnx")
    cv2 = pytest.importorskip("cv2")
    model, (inputs, maps, *_) = plain
    export_model(model, tmp_path / "pose.onnx", "onnx", channels_first=True)
    network = cv2.dnn.readNetFromONNX(str(tmp_path / "pose.onnx"))
    network.setInput(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)))
    assert_close([network.forward()], [maps.transpose(0, 3, 1, 2)])


def test_the_content_of_the_json(tmp_path, plain):
    onnx = pytest.importorskip("onnx")
    about = export_model(plain[0], tmp_path / "pose.onnx", "onnx", channels_first=True)
    assert json.loads((tmp_path / "pose.onnx.json").read_text()) == about
    (prop,) = onnx.load(tmp_path / "pose.onnx").metadata_props
    assert json.loads(prop.value) == about
    assert about["input"]["shape"] == ["batch", 3, *SIZE]
    assert about["outputs"][0]["shape"] == ["batch", 17, 8, 8]
    assert about["joints"][:2] == ["nose", "left_eye"]
    assert about["flip_indices"][:3] == [0, 2, 1]
    # Mirrored pixels of the crop are mirrored pixels of the heatmap.
    matrix = np.array(about["heatmap_from_crop"])
    np.testing.assert_allclose(matrix @ [31 / 2, 31 / 2, 1], [7 / 2, 7 / 2])


def test_the_command(tmp_path, plain, capsys):
    pytest.importorskip("onnx")
    save_pose_model(tmp_path / "pose.safetensors", plain[0])
    out = tmp_path / "new" / "pose.onnx"
    command = ["export", str(tmp_path / "pose.safetensors"), "--format=onnx", f"--out={out}"]
    assert cli.main([*command, "--function=keypoints"]) == 0
    assert out.is_file()
    text = capsys.readouterr().out
    assert "crops (batch, 32, 32, 3) uint8: RGB\nkeypoints (batch, 17, 2) float32" in text


def test_a_missing_model(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path / "x"), "--format=onnx", "--out=y"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("rmpe: ")
    assert message.count("\n") == 1


def test_stablehlo_has_one_layout(tmp_path, plain):
    with pytest.raises(UserError, match="leave out --channels-first"):
        export_model(plain[0], tmp_path / "x", "stablehlo", channels_first=True)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith("rmpe_jax.interop.onnx_")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"install 'rmpe_jax\[export\]'"):
        export_model(plain[0], tmp_path / "x", "onnx")


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, small_network):
    for package in ("flatbuffers", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    page = pathlib.Path(__file__).parents[2] / "docs" / "export.md"
    blocks = re.findall(r"<!-- tested -->\n```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(blocks) == 4
    model = make_model(**{"model.input_size": (256, 192)})
    monkeypatch.chdir(tmp_path)
    export_model(model, "pose.stablehlo", "stablehlo", function="keypoints")
    export_model(model, "pose.onnx", "onnx", channels_first=True)
    for block in blocks:
        names = {}
        exec(block, names)
        if "heatmaps" in names:
            assert names["heatmaps"].shape == (4, 17, 64, 48)
    assert (tmp_path / "pose_b8_cuda.mlirbc").stat().st_size > 1000


@pytest.fixture
def without_heatmaps(monkeypatch):
    """A narrow RTMPose with random weights."""
    narrow = functools.partial(RTMPose, deepen=0.1, widen=0.125)
    monkeypatch.setitem(models._MODELS, "rtmpose_t", narrow)
    return make_model("mse", **{"model.name": "rtmpose_t", "codec.decode": "dark"})


@pytest.mark.parametrize("format", ["stablehlo", pytest.param("onnx", marks=pytest.mark.slow)])
def test_keypoints_without_heatmaps(tmp_path, without_heatmaps, format):
    if format == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "pose"
    about = export_model(without_heatmaps, path, format, function="keypoints")
    assert about["decode"] == "simcc"
    assert "heatmap_from_crop" not in about
    if format == "onnx":
        found = onnxruntime.InferenceSession(path.read_bytes()).run(None, {"crops": CROPS})
    else:
        found = jax.jit(jax.export.deserialize(path.read_bytes()).call)(CROPS)
    module, codec = without_heatmaps.build()
    outputs = jax.jit(module.apply)(without_heatmaps.variables, codec.inputs(CROPS))
    keypoints, scores = codec.keypoints(codec.maps(outputs))
    assert np.ptp(keypoints) > 4
    # Two bins that are nearly equal may change places.
    assert (np.abs(found[0] - keypoints).max(-1) == 0).mean() > 0.9
    np.testing.assert_allclose(found[1], scores, atol=1e-4)


def test_heatmaps_that_do_not_exist_are_refused(tmp_path, without_heatmaps):
    with pytest.raises(UserError, match="rtmpose_t has no heatmaps: use --function=keypoints"):
        export_model(without_heatmaps, tmp_path / "pose", "stablehlo")
