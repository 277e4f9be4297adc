"""A trained PicoDet with the layout `picodet`, run by OpenVINO because it is no ONNX file."""

import numpy as np
import pytest

from rmpe_jax.data.readers.coco import read_coco
from rmpe_jax.detectors.evaluation import detector_ap
from rmpe_jax.detectors.layouts import fitting_layouts
from rmpe_jax.detectors.onnx import OnnxDetector
from rmpe_jax.detectors.onnx_config import make_config
from rmpe_jax.detectors.onnx_engines import Engine

openvino = pytest.importorskip("openvino")

SIZE = (320, 320)


@pytest.mark.slow
def test_average_precision(shared, shared_data):
    """The figures of docs/detectors.md, on 142 images of COCO val2017."""
    path = shared / "models/teacher/picodet_v2_s_320_pedestrian.xml"
    if not path.is_file():
        pytest.skip("no PicoDet in shared/models")
    options = {"INFERENCE_NUM_THREADS": 1}
    network = openvino.Core().compile_model(path, "CPU", options)

    def run(inputs):
        found = network(inputs)
        return [np.asarray(found[output], np.float32) for output in network.outputs]

    assert fitting_layouts(run(np.zeros((1, 3, *SIZE), np.float32)), SIZE, 0) == ["picodet"]
    config = make_config("picodet", {"input_size": SIZE, "score_threshold": 0.05})
    dataset = read_coco(shared_data / "coco", "val2017")
    metrics, _ = detector_ap(OnnxDetector(Engine(run, SIZE), config), dataset)
    assert metrics["AP50"] == pytest.approx(0.737, abs=0.003)
    assert metrics["AP"] == pytest.approx(0.465, abs=0.003)
