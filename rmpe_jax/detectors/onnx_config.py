"""Configuration of detection networks in ONNX files: their inputs, outputs and boxes."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal, get_args

from rmpe_jax.detectors.letterbox import Resize
from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json

ChannelOrder = Literal["rgb", "bgr"]
_LARGEST = sys.float_info.max


def _is_integer(value: Any, low: int, high: int | None = None) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return low <= value and (high is None or value <= high)


def _is_number(value: Any, low: float = -_LARGEST, high: float = _LARGEST) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _as_floats(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, tuple) else float(value)


def _are(values: Any, count: int, check: Callable[[Any], bool]) -> bool:
    return isinstance(values, tuple) and len(values) == count and all(map(check, values))


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "input_size": (lambda v: _are(v, 2, lambda n: _is_integer(n, 1)), "height and width in pixels"),
    "channel_order": (lambda v: v in get_args(ChannelOrder), "rgb or bgr"),
    "mean": (lambda v: _are(v, 3, _is_number), "three numbers"),
    "std": (lambda v: _are(v, 3, lambda n: _is_number(n) and n != 0), "three numbers, none 0"),
    "resize": (lambda v: v in get_args(Resize), "letterbox, corner or stretch"),
    "fill": (lambda v: _is_integer(v, 0, 255), "a gray value from 0 to 255"),
    "score_threshold": (lambda v: _is_number(v, 0.0, 1.0), "a number from 0 to 1"),
    "nms_iou": (lambda v: _is_number(v, 0.0, 1.0), "a number from 0 to 1"),
    "person_class": (lambda v: _is_integer(v, 0), "the index of a class"),
    "max_boxes": (lambda v: _is_integer(v, 1), "an integer from 1"),
}

_FLOATS = ("mean", "std", "score_threshold", "nms_iou")  # JSON may have whole numbers


@dataclasses.dataclass(frozen=True)
class OnnxConfig:
    """How to use a detection network; this is not part of an ONNX file.

    Attributes:
      layout: of the outputs, a key of `layouts.DECODERS`.
      input_size: (height, width) of the input.
      channel_order: of the input.
      mean: subtracted from the values 0 to 255, in the order of the channels.
      std: the divisor after that, in the order of the channels.
      resize: how the image is fitted into the input, see `letterbox.fit_image`.
      fill: gray value of the part that the image does not cover.
      score_threshold: boxes with lower scores are left out.
      nms_iou: of two boxes with a larger IoU only the better one stays; 1 keeps all.
      person_class: index of the class "person".
      max_boxes: maximum number of boxes.
    """

    layout: str
    input_size: tuple[int, int] = (640, 640)
    channel_order: ChannelOrder = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    resize: Resize = "letterbox"
    fill: int = 114
    score_threshold: float = 0.1
    nms_iou: float = 0.6
    person_class: int = 0
    max_boxes: int = 100


# ImageNet's mean and standard deviation, of values 0 to 255.
_IMAGENET: dict[str, Any] = {
    "mean": (123.675, 116.28, 103.53),
    "std": (58.395, 57.12, 57.375),
}

PRESETS = {
    "yolox": OnnxConfig("yolox", channel_order="bgr", std=(1.0, 1.0, 1.0), resize="corner"),
    "yolov5": OnnxConfig("yolov5"),
    "yolov8": OnnxConfig("yolov8"),
    "yolov10": OnnxConfig("yolov10", nms_iou=1.0),  # needs no NMS
    "ssd": OnnxConfig(
        "ssd",
        input_size=(300, 300),
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        resize="stretch",
        nms_iou=0.45,
        person_class=1,  # after the background
    ),
    "fastestdet": OnnxConfig(
        "fastestdet",
        input_size=(352, 352),
        channel_order="bgr",
        resize="stretch",
        nms_iou=0.45,
    ),
    # Each person has one query, so DETRs need no NMS.
    "detr": OnnxConfig("detr", resize="stretch", nms_iou=1.0),
    "detr91": OnnxConfig(
        "detr91",
        input_size=(560, 560),
        resize="stretch",
        nms_iou=1.0,
        person_class=1,  # COCO's category id
        **_IMAGENET,
    ),
    "rtdetr": OnnxConfig("rtdetr", resize="stretch", nms_iou=1.0),
    "picodet": OnnxConfig("picodet", input_size=(416, 416), resize="stretch", **_IMAGENET),
    "picodet_raw": OnnxConfig("picodet_raw", input_size=(416, 416), resize="stretch", **_IMAGENET),
    "picodet_nms": OnnxConfig(
        "picodet_nms", input_size=(416, 416), resize="stretch", nms_iou=1.0, **_IMAGENET
    ),
}


def make_config(layout: str, options: dict[str, Any]) -> OnnxConfig:
    """The preset of a layout with some of its fields replaced.

    Args:
      layout: a key of `PRESETS`.
      options: new values of other fields of `OnnxConfig`; they are validated here.

    Raises:
      UserError: there is no such layout, or a value is invalid.
    """
    if layout not in PRESETS:
        raise UserError(f"{layout!r} is not a layout of a detector: write {', '.join(PRESETS)}")
    for name, value in options.items():
        is_valid, rule = _CHECKS[name]
        if not is_valid(value):
            raise UserError(f"detector option {name} is {value!r:.60}: it must be {rule}")
    options = {k: _as_floats(v) if k in _FLOATS else v for k, v in options.items()}
    return dataclasses.replace(PRESETS[layout], **options)


def read_options(path: pathlib.Path) -> dict[str, Any]:
    """Fields of `OnnxConfig` from a JSON file; none if the file does not exist.

    Raises:
      UserError: the file is not a JSON object of such fields.
    """
    if not path.exists():
        return {}
    options = read_json(path, "options of a detector")
    known = [field.name for field in dataclasses.fields(OnnxConfig)]
    if not isinstance(options, dict) or not options.keys() <= set(known):
        raise UserError(f"{path} has unknown options of a detector: write {', '.join(known)}")
    if not isinstance(options.get("layout", ""), str):
        raise UserError(f"{path}: layout is not the name of one: write {', '.join(PRESETS)}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
