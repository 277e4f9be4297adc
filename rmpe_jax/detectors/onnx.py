"""Person detectors in ONNX files: a network, and how its input is made and its outputs read."""

import os
import pathlib

import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.detectors.layouts import DECODERS, fits, fitting_layouts
from rmpe_jax.detectors.letterbox import fit_picture, transform_boxes
from rmpe_jax.detectors.onnx_config import PRESETS, OnnxConfig, make_config, read_options
from rmpe_jax.detectors.onnx_engines import Engine, first_line, open_engine
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.detectors.selection import select_boxes
from rmpe_jax.errors import UserError


class OnnxDetector:
    """A detection network and how to use it; a `Detector`, for several threads at a time.

    Attributes:
      config: what pictures, outputs and boxes are like.
    """

    def __init__(self, engine: Engine, config: OnnxConfig):
        self.config = config
        self._engine = engine

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], name: str = "") -> Boxes:
        """Boxes of the people in one picture.

        Raises:
          UserError: the picture is no (h, w, 3) array of bytes.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UserError(
                f"picture {name} is an array of shape {image.shape} and type {image.dtype}: give "
                "(height, width, 3) uint8, RGB"
            )
        config = self.config
        picture, image_from_input = fit_picture(
            image, config.input_size, config.resize, config.fill
        )
        outputs = self._engine.run(_as_input(picture, config))
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
    """A detector from an ONNX file, tried once on an empty picture.

    Fields of `OnnxConfig` in a JSON file beside it (`MODEL.json` for `MODEL.onnx`) replace those of
    the layout's preset, except for what is given here.

    Args:
      path: the network.
      layout: of its outputs, a key of `layouts.DECODERS`; if neither given here nor in the JSON,
        the one that fits the shapes of the outputs.
      score_threshold: boxes that score less are left out.

    Raises:
      UserError: a file cannot be used, the outputs are not of the layout, or no layout or several
        fit them.
    """
    path = pathlib.Path(path)
    options = read_options(path.with_suffix(".json"))
    layout = layout or options.get("layout", "")
    options = {name: value for name, value in options.items() if name != "layout"}
    if score_threshold is not None:
        options["score_threshold"] = score_threshold
    engine = open_engine(path)
    if engine.input_size:
        options = {"input_size": engine.input_size} | options
    # Without a layout any preset serves for the trial: shapes depend on the input's size alone.
    trial = make_config(layout or next(iter(PRESETS)), options)
    outputs = _try(engine, trial, path)
    if not layout:
        layout = _guess(outputs, trial, path)
        options["input_size"] = trial.input_size
    elif not fits(layout, outputs, trial.input_size, trial.person_class):
        raise _wrong_layout(outputs, trial, path, f"that is not the layout {layout}")
    return OnnxDetector(engine, make_config(layout, options))


def _as_input(
    picture: UInt8[np.ndarray, "h w 3"], config: OnnxConfig
) -> Float[np.ndarray, "1 3 h w"]:
    ordered = picture[..., ::-1] if config.channel_order == "bgr" else picture
    values = (ordered - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def _try(engine: Engine, config: OnnxConfig, path: pathlib.Path) -> list[np.ndarray]:
    try:
        return engine.run(_as_input(np.zeros((*config.input_size, 3), np.uint8), config))
    except Exception as error:  # each engine has errors of its own
        height, width = config.input_size
        raise UserError(
            f"detector {path} does not take a picture of height {height} and width {width} "
            f"({first_line(error)}): give its layout, or its input_size in "
            f"{path.with_suffix('.json').name}"
        ) from None


def _guess(outputs: list[np.ndarray], config: OnnxConfig, path: pathlib.Path) -> str:
    layouts = fitting_layouts(outputs, config.input_size, config.person_class)
    if len(layouts) != 1:
        found = f"{' and '.join(layouts)} fit that" if layouts else "no known layout fits that"
        raise _wrong_layout(outputs, config, path, found)
    return layouts[0]


def _wrong_layout(
    outputs: list[np.ndarray], config: OnnxConfig, path: pathlib.Path, found: str
) -> UserError:
    shapes = ", ".join(str(output.shape) for output in outputs)
    height, width = config.input_size
    return UserError(
        f"detector {path} puts out {shapes} for a picture of {height}x{width}, and {found}: give "
        f"the layout, one of {', '.join(DECODERS)}"
    )
