"""Random RT-DETRs and D-FINEs of `transformers`, as ONNX files, give the boxes they give there."""

import json

import numpy as np
import pytest

from rmpe_jax.detectors.onnx import open_onnx
from rmpe_jax.errors import UserError

pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZE = (128, 160)
QUERIES = 30


class Outputs(torch.nn.Module):
    """Logits and boxes only, as exporters keep them."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        outputs = self.network(pixel_values=pixels)
        return outputs.logits, outputs.pred_boxes


def random_network(kind):
    """A small network whose queries are a matter of its weights.

    The queries are the 30 of the encoder's 420 cells with the best scores. A network that is not
    trained gives all cells the same score. Which are the best is then arbitrary, and differs
    between programs. Random weights on the way to the scores, large enough for the layer norm
    there, make scores differ.
    """
    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    make_config, make_network = {
        "rtdetr": (transformers.RTDetrConfig, transformers.RTDetrForObjectDetection),
        "dfine": (transformers.DFineConfig, transformers.DFineForObjectDetection),
    }[kind]
    config = make_config(
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[24, 32, 48],
        feat_strides=[8, 16, 32],
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        d_model=32,
        num_queries=QUERIES,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_labels=80,
    )
    network = make_network(config).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.nn.init.normal_(network.model.enc_output[0].weight, std=1e4)
    torch.nn.init.normal_(network.model.enc_score_head.weight)
    return network


def export(network, path):
    with torch.no_grad():
        torch.onnx.export(
            Outputs(network).eval(),
            (torch.zeros(1, 3, *SIZE),),
            path,
            input_names=["pixel_values"],
            output_names=["logits", "pred_boxes"],
            opset_version=16,
            dynamo=False,
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rtdetr", "dfine"])
def test_boxes(tmp_path, either_engine, kind):
    network = random_network(kind)
    path = tmp_path / "model.onnx"
    export(network, path)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    with torch.no_grad():
        outputs = network(pixel_values=pixels)
    processor = transformers.RTDetrImageProcessorPil()
    found = processor.post_process_object_detection(outputs, threshold=0, target_sizes=[SIZE])[0]
    person = int(found["labels"].mode().values)
    is_person = (found["labels"] == person).numpy()
    count = is_person.sum()
    assert count >= 5
    options = {"input_size": SIZE, "person_class": person, "score_threshold": 0.0}
    path.with_suffix(".json").write_text(json.dumps(options))
    if (kind, either_engine) == ("dfine", "opencv"):  # docs/detectors.md says so
        with pytest.raises(UserError, match=r"model\.onnx"):
            open_onnx(path)
        return
    detect = open_onnx(path)
    assert detect.config.layout == "detr"
    bboxes, scores = detect(image)
    expected = np.clip(found["boxes"].numpy()[is_person], 0, [*SIZE[::-1]] * 2)
    np.testing.assert_allclose(scores[:count], found["scores"].numpy()[is_person], atol=1e-5)
    np.testing.assert_allclose(bboxes[:count], expected, atol=1e-3)
