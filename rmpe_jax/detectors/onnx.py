"""Person detectors in ONNX files."""

import os
import pathlib

import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.detectors.layouts import DECODERS, fits, fitting_layouts
from rmpe_jax.detectors.letterbox import fit_image, transform_boxes
from rmpe_jax.detectors.onnx_config import PRESETS, OnnxConfig, make_config, read_options
from rmpe_jax.detectors.onnx_engines import Engine, first_line, open_engine
from rmpe_jax.detectors.preprocessor import fetch_network, find_preprocessor, read_preprocessor
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.detectors.selection import select_boxes
from rmpe_jax.errors import UserError
from rmpe_jax.interop.hub import is_hub_name


class OnnxDetector:
    """A detection network with its configuration; a `Detector`. It may be shared between threads.

    Attributes:
      config: how inputs are made, outputs decoded and boxes selected.
    """

    def __init__(self, engine: Engine, config: OnnxConfig):
        self.config = config
        self._engine = engine

    def __call__(self, image: np.ndarray, name: str = "") -> Boxes:
        """Boxes of the people in one image.

        Args:
          image: (h, w, 3) uint8, RGB.
          name: of the image, for messages.

        Raises:
          UserError: the image has another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UserError(
                f"image {name} is an array of shape {image.shape} and type {image.dtype}: give "
                "(height, width, 3) uint8, RGB"
            )
        config = self.config
        fitted, image_from_input = fit_image(image, config.input_size, config.resize, config.fill)
        outputs = self._engine.run(_normalize(fitted, config))
        with np.errstate(over="ignore", invalid="ignore"):
            decode = DECODERS[config.layout]
            bboxes, scores = decode(outputs, config.input_size, config.person_class)
            bboxes = transform_boxes(image_from_input, bboxes)
        return select_boxes(
            bboxes,
            scores,
            image.shape[:2],
            score_threshold=config.score_threshold,
            nms_iou=config.nms_iou,
            max_boxes=config.max_boxes,
            name=name,
        )


def open_onnx(
    path: str | os.PathLike, layout: str = "", score_threshold: float | None = None
) -> OnnxDetector:
    """A detector from an ONNX file; it is run once on a black image as a check.

    A JSON file beside it (`MODEL.json` for `MODEL.onnx`) may have fields of `OnnxConfig`. They
    replace those of the layout's preset; arguments of this function take precedence. The same
    holds for a `preprocessor_config.json` of transformers beside it; `MODEL.json` replaces values
    of this file too, and so does the input size of the network, if the file fixes it.

    Args:
      path: the network; or its name on the hub, `hf:USER/REPOSITORY[@REVISION]/FILE.onnx`.
      layout: of the outputs, a key of `layouts.DECODERS`. If it is neither given here nor in the
        JSON file, it is the one that matches the outputs.
      score_threshold: boxes with lower scores are left out.

    Raises:
      UserError: a file cannot be used, the outputs do not match the layout, or no layout or several
        layouts match them.
    """
    name = os.fspath(path)
    path = fetch_network(name) if is_hub_name(name) else pathlib.Path(name)
    options = read_options(path.with_suffix(".json"))
    layout = layout or options.get("layout", "")
    options = {name: value for name, value in options.items() if name != "layout"}
    if score_threshold is not None:
        options["score_threshold"] = score_threshold
    engine = open_engine(path)
    if engine.input_size:
        options = {"input_size": engine.input_size} | options
    if preprocessor := find_preprocessor(path):
        options = read_preprocessor(preprocessor) | options
    # Shapes depend only on the input size, so any preset serves for the trial run.
    trial = make_config(layout or next(iter(PRESETS)), options)
    outputs = _run_on_black(engine, trial, path)
    if not layout:
        layout = _find_layout(outputs, trial, path)
        options["input_size"] = trial.input_size
    elif not fits(layout, outputs, trial.input_size, trial.person_class):
        raise _wrong_layout(outputs, trial, path, f"this is not the layout {layout}")
    return OnnxDetector(engine, make_config(layout, options))


def _normalize(
    image: UInt8[np.ndarray, "h w 3"], config: OnnxConfig
) -> Float[np.ndarray, "1 3 h w"]:
    ordered = image[..., ::-1] if config.channel_order == "bgr" else image
    values = (ordered - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def _run_on_black(engine: Engine, config: OnnxConfig, path: pathlib.Path) -> list[np.ndarray]:
    try:
        return engine.run(_normalize(np.zeros((*config.input_size, 3), np.uint8), config))
    except Exception as error:  # each engine has its own errors
        height, width = config.input_size
        raise UserError(
            f"detector {path} does not accept an image of height {height} and width {width} "
            f"({first_line(error)}): give its layout, or its input_size in "
            f"{path.with_suffix('.json').name}"
        ) from None


def _find_layout(outputs: list[np.ndarray], config: OnnxConfig, path: pathlib.Path) -> str:
    layouts = fitting_layouts(outputs, config.input_size, config.person_class)
    if len(layouts) != 1:
        found = f"{' and '.join(layouts)} match" if layouts else "no known layout matches"
        raise _wrong_layout(outputs, config, path, found)
    return layouts[0]


def _wrong_layout(
    outputs: list[np.ndarray], config: OnnxConfig, path: pathlib.Path, found: str
) -> UserError:
    shapes = ", ".join(str(output.shape) for output in outputs)
    height, width = config.input_size
    return UserError(
        f"detector {path} outputs {shapes} for an image of {height}x{width}, but {found}: give "
        f"the layout, one of {', '.join(DECODERS)}"
    )
