"""Decoders, tested on boxes that are encoded in each layout by its formula."""

import numpy as np
import pytest
from encoded import encode

from rmpe_jax.detectors.layouts import DECODERS, LayoutError, fits, fitting_layouts

BBOXES = np.float32([[3, 5, 41, 60], [70, 12, 90, 30], [40, 33, 95, 63], [10, 66, 25, 99.5]])
SCORES = np.float32([0.7, 0.6, 0.5, 0.4])
SIZE = (128, 96)


@pytest.mark.parametrize("person_class", [0, 2])
@pytest.mark.parametrize("layout", DECODERS)
def test_encoded_boxes_are_decoded(layout, person_class):
    outputs = encode(layout, BBOXES, SCORES, SIZE, person_class)
    bboxes, scores = DECODERS[layout](outputs, SIZE, person_class)
    best = np.argsort(-scores, kind="stable")
    np.testing.assert_allclose(scores[best[:4]], SCORES, atol=1e-5)
    np.testing.assert_allclose(bboxes[best[:4]], BBOXES, atol=1e-3)
    assert scores[best[4:]].max() == 0


@pytest.mark.parametrize("strides", [(8, 16, 32, 64), (4, 8, 16, 32)])
@pytest.mark.parametrize("layout", ["yolox", "yolov5", "yolov8"])
def test_other_grids(layout, strides):
    outputs = encode(layout, BBOXES, SCORES, SIZE, strides=strides)
    bboxes, scores = DECODERS[layout](outputs, SIZE, 0)
    best = np.argsort(-scores, kind="stable")[:4]
    np.testing.assert_allclose(bboxes[best], BBOXES, atol=1e-3)


@pytest.mark.parametrize("layout", DECODERS)
def test_shapes_determine_the_layout(layout):
    outputs = encode(layout, BBOXES, SCORES, SIZE)
    assert fitting_layouts(outputs, SIZE) == [layout]
    assert [name for name in DECODERS if fits(name, outputs, SIZE)] == [layout]
    if layout in ("yolov10", "rtdetr", "picodet_nms"):  # they output labels
        outputs = []
    with pytest.raises(LayoutError):  # there are fewer classes
        DECODERS[layout](outputs, SIZE, 91)


def test_published_networks():
    """Shapes of the published networks on COCO's 80 classes."""
    known = {
        "yolox": ((640, 640), [(1, 8400, 85)]),
        "yolov5": ((640, 640), [(1, 25200, 85)]),
        "yolov8": ((640, 640), [(1, 84, 8400)]),
        "yolov10": ((640, 640), [(1, 300, 6)]),
        "ssd": ((300, 300), [(1, 3000, 21), (1, 3000, 4)]),
        "fastestdet": ((352, 352), [(1, 85, 22, 22)]),
    }
    for layout, (size, shapes) in known.items():
        outputs = [np.zeros(shape, np.float32) for shape in shapes]
        assert fitting_layouts(outputs, size) == [layout]


@pytest.mark.parametrize(
    ("layout", "size", "shapes"),
    [
        ("detr", 640, [(1, 300, 80), (1, 300, 4)]),  # RT-DETR, D-FINE of transformers
        ("detr", 640, [(1, 300, 1), (1, 300, 4)]),  # one class
        ("detr91", 560, [(1, 300, 4), (1, 300, 91)]),  # RF-DETR: dets, labels
        ("detr91", 432, [(1, 200, 4), (1, 200, 91), (1, 200, 108, 108)]),  # with masks
        (None, 640, [(1, 100, 92), (1, 100, 4)]),  # DETR: softmax with "no object"
        ("rtdetr", 640, [(1, 300), (1, 300, 4), (1, 300)]),
        ("picodet", 416, [(1, 3598, 4), (1, 80, 3598)]),
        ("picodet", 640, [(1, 8400, 4), (1, 80, 8400)]),  # PP-YOLOE
        (
            "picodet_raw",
            416,
            [(1, n, c) for c in (80, 32) for n in (2704, 676, 169, 49)],
        ),
        ("picodet_nms", 416, [(100, 6), (1,)]),
        ("picodet_nms", 416, [(0, 6), (1,)]),  # nothing found
        ("picodet_nms", 640, [(300, 6), (1,)]),  # PaddleDetection's RT-DETR
    ],
)
def test_published_detrs_and_picodets(layout, size, shapes):
    """Shapes of published networks. Logits are about -4 where nothing is found."""
    outputs = [np.full(shape, 0.25, np.float32) for shape in shapes]
    if layout is None or layout.startswith("detr"):
        (index,) = [i for i, s in enumerate(shapes) if s[-1] not in (4, 108)] or [0]
        outputs[index][:] = -4
    assert fitting_layouts(outputs, (size, size)) == ([layout] if layout else [])


def test_a_detr_with_four_classes():
    """Both outputs have four columns; boxes are never negative."""
    logits, boxes = encode("detr", BBOXES, SCORES, SIZE, 1)
    for outputs in ([logits[..., :4], boxes], [boxes, logits[..., :4]]):
        bboxes, scores = DECODERS["detr"](outputs, SIZE, 1)
        np.testing.assert_allclose(bboxes[[0, 3, 6, 9]], BBOXES, atol=1e-4)
        np.testing.assert_allclose(scores[[0, 3, 6, 9]], SCORES, rtol=1e-6)


def test_labels_are_known_from_scores():
    labels, boxes, scores = encode("rtdetr", BBOXES, SCORES, SIZE)
    expected = DECODERS["rtdetr"]([labels, boxes, scores], SIZE, 0)
    for outputs in ([scores, labels, boxes], [boxes, scores, labels]):
        found = DECODERS["rtdetr"](outputs, SIZE, 0)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("shapes", [[(1, 1000)], [(1, 3, 80, 80, 85)], [(5,)], [(1, 84, 8401)]])
def test_other_outputs_match_no_layout(shapes):
    assert fitting_layouts([np.zeros(shape, np.float32) for shape in shapes], (640, 640)) == []


def test_additional_outputs_are_ignored():
    """Segmentation networks also output mask prototypes."""
    outputs = [np.zeros((1, 32, 32, 24), np.float32), *encode("yolov8", BBOXES, SCORES, SIZE)]
    assert fitting_layouts(outputs, SIZE) == ["yolov8"]


def test_ssd_with_four_classes():
    """Both outputs have four columns; the first is the boxes."""
    classes, boxes = encode("ssd", BBOXES, SCORES, SIZE, 1)
    bboxes, scores = DECODERS["ssd"]([boxes, classes[..., :4]], SIZE, 1)
    np.testing.assert_allclose(bboxes[[0, 3, 6, 9]], BBOXES, atol=1e-4)
    np.testing.assert_allclose(scores[[0, 3, 6, 9]], SCORES)
