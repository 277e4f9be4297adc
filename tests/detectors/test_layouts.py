"""Decoders, tested on boxes that are encoded in each layout by its formula."""

import numpy as np
import pytest
from encoded import CLASSES, encode

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
    with pytest.raises(LayoutError):  # there are fewer classes
        DECODERS[layout](outputs if layout != "yolov10" else [], SIZE, CLASSES)


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
