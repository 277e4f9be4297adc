"""Person detectors in ONNX files, run by onnxruntime if it is installed and by OpenCV if not."""

import os
import pathlib
import threading
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.detectors.layouts import DECODERS, fits, fitting_layouts
from rmpe_jax.detectors.letterbox import fit_picture, transform_boxes
from rmpe_jax.detectors.onnx_config import PRESETS, OnnxConfig, make_config, read_options
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.detectors.selection import select_boxes
from rmpe_jax.errors import UserError

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class Engine(NamedTuple):
    """Something that runs a network.

    Attributes:
      run: from the input (1, 3, h, w) to all outputs; may be called from several threads.
      input_size: (height, width) that the file prescribes, if it does and the engine tells.
    """

    run: Callable[[Float[np.ndarray, "1 3 h w"]], list[np.ndarray]]
    input_size: tuple[int, int] | None


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
    # Without a layout the preset of any serves for the trial: it depends on the size alone.
    trial = make_config(layout or next(iter(PRESETS)), options)
    outputs = _try(engine, trial, path)
    if not layout:
        layout = _guess(outputs, trial, path)
    elif not fits(layout, outputs, trial.input_size, trial.person_class):
        raise _wrong_layout(outputs, trial, path, f"that is not the layout {layout}")
    return OnnxDetector(engine, make_config(layout, options))


def open_engine(path: pathlib.Path) -> Engine:
    """A network of a file, by onnxruntime if it is installed, else by OpenCV.

    Raises:
      UserError: there is no such file, or it is no network that can be run.
    """
    if not path.is_file():
        raise UserError(f"no detector {path}: check the path")
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return opencv_engine(path)
    return onnxruntime_engine(path)


def onnxruntime_engine(path: pathlib.Path) -> Engine:
    """A network run by onnxruntime, on a CUDA device if that is what is installed.

    Raises:
      UserError: the file is no ONNX network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Threads that wait by spinning would take the cores from whatever runs beside the detector.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers = [provider for provider in _PROVIDERS if provider in available]
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:  # its errors have no base of their own
        raise _unreadable(path, error) from None
    (argument, *_) = session.get_inputs()
    dtype = np.float16 if argument.type == "tensor(float16)" else np.float32
    size = tuple(argument.shape[2:])
    is_fixed = len(size) == 2 and all(isinstance(n, int) for n in size)

    def run(inputs: Float[np.ndarray, "1 3 h w"]) -> list[np.ndarray]:
        outputs = session.run(None, {argument.name: inputs.astype(dtype)})
        return [np.asarray(output, np.float32) for output in outputs]

    return Engine(run, size if is_fixed else None)


def opencv_engine(path: pathlib.Path) -> Engine:
    """A network run by OpenCV, which does not tell the size of the input.

    Raises:
      UserError: the file is no ONNX network, or has layers that OpenCV does not know.
    """
    try:
        network = cv2.dnn.readNetFromONNX(os.fspath(path))
    except cv2.error as error:
        raise _unreadable(path, error) from None
    names = network.getUnconnectedOutLayersNames()
    lock = threading.Lock()

    def run(inputs: Float[np.ndarray, "1 3 h w"]) -> list[np.ndarray]:
        with lock:
            network.setInput(inputs)
            return [np.array(output, np.float32) for output in network.forward(names)]

    return Engine(run, None)


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
            f"({_first_line(error)}): set input_size in {path.with_suffix('.json').name}"
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


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(
        f"detector {path} cannot be read ({_first_line(error)}): give a whole ONNX file"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
