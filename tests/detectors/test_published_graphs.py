"""Small ONNX graphs with the inputs and outputs of published DETRs and PicoDets."""

import json
import logging

import numpy as np
import pytest

from rmpe_jax.detectors import open_detector
from rmpe_jax.detectors.onnx import open_onnx
from rmpe_jax.detectors.onnx_config import make_config
from rmpe_jax.detectors.onnx_engines import onnxruntime_engine
from rmpe_jax.errors import UserError

onnx = pytest.importorskip("onnx")
FLOAT, INT32, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64
SIZE = (96, 128)  # of the input
FRACTIONS = np.float32([[0.1, 0.2, 0.5, 0.9], [0.6, 0.25, 1, 0.75], [0.62, 0.25, 1, 0.75]])
SCORES = np.float32([0.8, 0.6, 0.5])  # the last box is almost that before it
PERSON = {"detr91": 1}
# As transformers writes it for RT-DETR; some fields are left out.
PREPROCESSOR = {
    "do_normalize": False,
    "do_pad": False,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 96, "width": 128},
}


def columns(values, classes, person, low):
    """(1, 12, classes) with these values of the person, and low values elsewhere."""
    out = np.full((1, 12, classes), low, np.float32)
    out[0, : len(values), person] = values
    return out


def boxes(unit=(1, 1, 1, 1)):
    out = np.full((1, 12, 4), 0.5, np.float32)
    out[0, : len(FRACTIONS)] = FRACTIONS
    return out * np.float32(unit)


def center_size(xyxy):
    return np.concatenate(
        [(xyxy[..., :2] + xyxy[..., 2:]) / 2, xyxy[..., 2:] - xyxy[..., :2]], -1
    ).astype(np.float32)


def write_graph(path, layout, size=SIZE):
    """Writes a network that finds the same boxes in every image."""
    make, constants = onnx.helper.make_node, {}
    height, width = size
    logit = np.log(SCORES / (1 - SCORES))
    if layout in ("detr", "detr91"):
        # Exported by transformers with optimum, and by RF-DETR itself.
        image, side = "pixel_values" if layout == "detr" else "input", []
        logits = columns(logit, 91 if layout == "detr91" else 80, PERSON.get(layout, 0), -9)
        constants = {"a": logits, "b": center_size(boxes())}
        names = ("logits", "pred_boxes") if layout == "detr" else ("labels", "dets")
        nodes = [make("Add", ["a", "zero"], [names[0]]), make("Add", ["b", "zero"], [names[1]])]
        outputs = [(names[0], FLOAT, logits.shape), (names[1], FLOAT, (1, 12, 4))]
        outputs = outputs if layout == "detr" else outputs[::-1]
    elif layout == "rtdetr":
        image, side = "images", [("orig_target_sizes", INT64, [1, 2])]
        scores = columns(SCORES, 1, 0, 0.01)[..., 0]
        constants = {"a": boxes(), "b": scores, "c": np.float32([[0] * 3 + [7] * 9])}
        nodes = [
            make("Cast", ["orig_target_sizes"], ["sizes"], to=FLOAT),
            make("Concat", ["sizes", "sizes"], ["whwh"], axis=1),
            make("Mul", ["a", "whwh"], ["in_pixels"]),
            make("Add", ["in_pixels", "zero"], ["boxes"]),
            make("Add", ["b", "zero"], ["scores"]),
            make("Add", ["c", "zero"], ["classes"]),
            make("Cast", ["classes"], ["labels"], to=INT64),
        ]
        outputs = [("labels", INT64, (1, 12)), ("boxes", FLOAT, (1, 12, 4))]
        outputs += [("scores", FLOAT, (1, 12))]
    else:
        image, side = "image", [("scale_factor", FLOAT, [1, 2])]
        scores = columns(SCORES, 80, 0, 0.01).swapaxes(1, 2).copy()
        constants = {
            "a": boxes([width, height, width, height]),
            "b": scores,
            "yx": np.int64([1, 0, 1, 0]),
        }
        nodes = [
            make("Gather", ["scale_factor", "yx"], ["scales"], axis=1),
            make("Div", ["a", "scales"], ["scaled"]),
            make("Add", ["scaled", "zero"], ["boxes"]),
            make("Add", ["b", "zero"], ["scores"]),
        ]
        outputs = [("boxes", FLOAT, (1, 12, 4)), ("scores", FLOAT, scores.shape)]
    if layout == "picodet_nms":
        side = [("im_shape", FLOAT, [1, 2]), *side]
        constants |= {
            "most": np.int64([9]),
            "iou": np.float32([0.6]),
            "least": np.float32([0.1]),
            "columns": np.int64([0, 2]),
            "flat": np.int64([80 * 12]),
            "rows": np.int64(12),
            "limit": np.int64([1, 0, 1, 0]),
            "first": np.int64(0),
            "last": np.int64(2),
            "second": np.int64(1),
            "one": np.int64([1]),
            "batch": np.int64([0]),
        }
        nodes += [
            make("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["kept"]),
            make("Gather", ["kept", "last"], ["box_index"], axis=1),
            make("Gather", ["kept", "second"], ["class_index"], axis=1),
            make("Squeeze", ["boxes", "batch"], ["all_boxes"]),
            make("Gather", ["all_boxes", "box_index"], ["free_boxes"], axis=0),
            make("Gather", ["im_shape", "limit"], ["most_xyxy"], axis=1),
            make("Min", ["free_boxes", "most_xyxy"], ["kept_boxes"]),
            make("Mul", ["class_index", "rows"], ["row"]),
            make("Add", ["row", "box_index"], ["score_index"]),
            make("Reshape", ["scores", "flat"], ["all_scores"]),
            make("Gather", ["all_scores", "score_index"], ["flat_scores"], axis=0),
            make("Unsqueeze", ["flat_scores", "one"], ["kept_scores"]),
            make("Cast", ["class_index"], ["flat_classes"], to=FLOAT),
            make("Unsqueeze", ["flat_classes", "one"], ["kept_classes"]),
            make("Concat", ["kept_classes", "kept_scores", "kept_boxes"], ["found"], axis=1),
            make("Shape", ["box_index"], ["number"]),
            make("Cast", ["number"], ["count"], to=INT32),
        ]
        outputs = [("found", FLOAT, ["n", 6]), ("count", INT32, [1])]
    inputs = [(image, FLOAT, [1, 3, *size]), *side]
    if layout == "picodet_nms":
        inputs[:2] = inputs[1::-1]  # the image is not the first input
    nodes = [
        make("ReduceMean", [image], ["mean"], keepdims=0),
        make("Sub", ["mean", "mean"], ["zero"]),
        *nodes,
    ]
    info, array = onnx.helper.make_tensor_value_info, onnx.numpy_helper.from_array
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [info(*each) for each in inputs],
        [info(*each) for each in outputs],
        [array(np.asarray(value), name) for name, value in constants.items() if name in used],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("shape", [(333, 517), (1, 7), (1200, 31)])
@pytest.mark.parametrize("layout", ["detr", "detr91", "rtdetr", "picodet", "picodet_nms"])
def test_boxes_are_in_image_pixels(tmp_path, either_engine, layout, shape):
    path = write_graph(tmp_path / "model.onnx", layout)
    path.with_suffix(".json").write_text(json.dumps({"input_size": SIZE}))
    detect = open_onnx(path)
    assert detect.config == make_config(layout, {"input_size": SIZE})
    found = detect(np.zeros((*shape, 3), np.uint8))
    height, width = shape
    # DETRs keep both of two boxes that almost agree.
    count = 3 if layout in ("detr", "detr91", "rtdetr") else 2
    expected = FRACTIONS[:count] * [width, height, width, height]
    np.testing.assert_allclose(found.bboxes, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.scores, SCORES[:count], rtol=1e-6)


@pytest.mark.parametrize("layout", ["rtdetr", "picodet_nms"])
def test_letterbox_of_networks_that_scale_boxes_themselves(tmp_path, either_engine, layout):
    """Such networks could not undo the borders: they scale boxes to the input here."""
    path = write_graph(tmp_path / "model.onnx", layout)
    options = {"input_size": SIZE, "resize": "corner", "max_boxes": 1}
    path.with_suffix(".json").write_text(json.dumps(options))
    found = open_onnx(path)(np.zeros((48, 32, 3), np.uint8))  # to 96x64, and 64 columns of border
    np.testing.assert_allclose(found.bboxes, [[6.4, 9.6, 32, 43.2]], rtol=1e-5)


def test_other_inputs_are_named(tmp_path):
    pytest.importorskip("onnxruntime")
    path = write_graph(tmp_path / "model.onnx", "rtdetr")
    model = onnx.load(path)
    onnx.compose.add_prefix_graph(model.graph, "my_", inplace=True)
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"has the inputs my_images, my_orig_target_sizes: give"):
        open_onnx(path)


def test_float_sizes(tmp_path):
    """An export may take the image's size as another type than the usual int64."""
    pytest.importorskip("onnxruntime")
    path = write_graph(tmp_path / "model.onnx", "rtdetr")
    model = onnx.load(path)
    model.graph.input[1].type.tensor_type.elem_type = FLOAT
    onnx.save(model, path)
    _, found, _ = onnxruntime_engine(path).run(np.zeros((1, 3, *SIZE), np.float32))
    np.testing.assert_allclose(found[0, 0], FRACTIONS[0] * [128, 96, 128, 96])


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({}, [0, 0, 0], [255, 255, 255]),
        ({"do_normalize": True}, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ({"do_rescale": False}, [0, 0, 0], [1, 1, 1]),
        (
            {"do_rescale": False, "do_normalize": True},
            [0.485, 0.456, 0.406],
            [0.229, 0.224, 0.225],
        ),
    ],
)
def test_a_preprocessor_beside_it(tmp_path, either_engine, changes, mean, std):
    path = write_graph(tmp_path / "model.onnx", "detr91")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | changes))
    config = open_onnx(path).config
    assert config.input_size == SIZE
    assert config.resize == "stretch"
    assert config.person_class == 1
    np.testing.assert_allclose(config.mean, mean)
    np.testing.assert_allclose(config.std, std)


def test_options_replace_the_preprocessor(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "onnx").mkdir()
    path = write_graph(tmp_path / "onnx" / "model.onnx", "detr")
    content = json.dumps(PREPROCESSOR | {"size": 640, "do_normalize": True})
    (tmp_path / "preprocessor_config.json").write_text(content)
    path.with_suffix(".json").write_text('{"std": [1.0, 2.0, 3.0]}')
    config = open_onnx(path).config
    assert config.input_size == SIZE  # the network's, which is fixed
    assert config.std == (1, 2, 3)
    np.testing.assert_allclose(config.mean, [123.675, 116.28, 103.53])


def test_sizes_that_depend_on_the_image(tmp_path, caplog):
    pytest.importorskip("onnxruntime")
    path = write_graph(tmp_path / "model.onnx", "detr")
    content = PREPROCESSOR | {"size": {"shortest_edge": 800, "longest_edge": 1333}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    assert open_onnx(path).config.input_size == SIZE
    assert "give input_size and resize" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "{",
        '{"size": "big"}',
        '{"do_normalize": true}',
        '{"do_rescale": true, "rescale_factor": 0}',
    ],
)
def test_damaged_preprocessors(tmp_path, content):
    pytest.importorskip("onnxruntime")
    path = write_graph(tmp_path / "model.onnx", "detr")
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(UserError) as error:
        open_onnx(path)
    assert "\n" not in str(error.value)


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    """The folder of the files of `somebody/detector` in a cache of the hub, which is offline."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder, commit = tmp_path / "models--somebody--detector", "0123456789abcdef" * 2 + "01234567"
    (folder / "snapshots" / commit / "onnx").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


@pytest.mark.parametrize("file", ["model.onnx", "onnx/model.onnx"])
def test_a_network_of_the_hub(snapshot, either_engine, file, caplog):
    write_graph(snapshot / file, "detr")
    (snapshot / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    for text in (f"hf:somebody/detector/{file}", f"hf:somebody/detector@main/{file}:detr"):
        detect = open_detector(text, score_threshold=0.7)
        assert detect.config.input_size == SIZE
        found = detect(np.zeros((333, 517, 3), np.uint8))
        np.testing.assert_allclose(found.bboxes, FRACTIONS[:1] * [517, 333, 517, 333], rtol=1e-5)
    assert not caplog.text
    with pytest.raises(UserError, match="this is not the layout rtdetr"):
        open_detector(f"hf:somebody/detector/{file}:rtdetr")


def test_a_network_of_the_hub_without_preprocessor(snapshot, caplog):
    pytest.importorskip("onnxruntime")
    write_graph(snapshot / "model.onnx", "detr91")
    caplog.set_level(logging.WARNING)
    config = open_detector("hf:somebody/detector/model.onnx").config
    assert config == make_config("detr91", {"input_size": SIZE})
    assert caplog.text.count("there is no preprocessor_config.json") == 1


def test_what_is_not_on_the_hub(snapshot):
    with pytest.raises(UserError, match=r"hf:somebody/detector/gone\.onnx: .*cache"):
        open_detector("hf:somebody/detector/gone.onnx")
    for text in ("hf:somebody/detector/boxes.json", "hf:gt:coco", "hf:whole"):
        with pytest.raises(UserError):
            open_detector(text)
