"""Engines that run ONNX networks: onnxruntime if it is installed, otherwise OpenCV.

Some networks have inputs beside the image, from which they compute boxes in pixels of the original
image. They get the values of an image that has the size of the input, so their boxes are in pixels
of the input, however the image was fitted into it.
"""

import os
import pathlib
import threading
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from rmpe_jax.errors import UserError

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_SIDE_INPUTS: dict[str, Callable[[int, int], np.ndarray]] = {
    "orig_target_sizes": lambda height, width: np.array([[width, height]], np.int64),
    "im_shape": lambda height, width: np.array([[height, width]], np.float32),
    "scale_factor": lambda height, width: np.ones((1, 2), np.float32),
}
# OpenCV does not tell the names of inputs.
_IMAGE_NAMES = ("images", "image", "pixel_values", "input")
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class Engine(NamedTuple):
    """A network that can be run.

    Attributes:
      run: maps the input (1, 3, h, w) to all outputs; may be called from several threads.
      input_size: (height, width) if the file fixes it and the engine reports it.
    """

    run: Callable[[Float[np.ndarray, "1 3 h w"]], list[np.ndarray]]
    input_size: tuple[int, int] | None


def open_engine(path: pathlib.Path) -> Engine:
    """Load a network with onnxruntime if it is installed, otherwise with OpenCV.

    Raises:
      UserError: the file does not exist, or is not a network that can be run.
    """
    if not path.is_file():
        raise UserError(f"no detector {path}: check the path")
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return opencv_engine(path)
    return onnxruntime_engine(path)


def onnxruntime_engine(path: pathlib.Path) -> Engine:
    """Load a network with onnxruntime, on a CUDA device if its CUDA build is installed.

    Raises:
      UserError: the file is not an ONNX network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Waiting threads that spin would take the cores from other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers = [provider for provider in _PROVIDERS if provider in available]
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:  # its errors have no common base class
        raise _unreadable(path, error) from None
    arguments = session.get_inputs()
    images = [argument for argument in arguments if argument.name not in _SIDE_INPUTS]
    if len(images) != 1:
        names = ", ".join(argument.name for argument in arguments)
        raise UserError(
            f"detector {path} has the inputs {names}: give a network of one image, with no others "
            f"than {', '.join(_SIDE_INPUTS)}"
        )
    size = tuple(images[0].shape[2:])
    is_fixed = len(size) == 2 and all(isinstance(n, int) for n in size)

    def run(inputs: Float[np.ndarray, "1 3 h w"]) -> list[np.ndarray]:
        values = {n: value(*inputs.shape[2:]) for n, value in _SIDE_INPUTS.items()}
        values[images[0].name] = inputs
        feed = {a.name: values[a.name].astype(_DTYPES.get(a.type, np.float32)) for a in arguments}
        return [np.asarray(output, np.float32) for output in session.run(None, feed)]

    return Engine(run, size if is_fixed else None)


def opencv_engine(path: pathlib.Path) -> Engine:
    """Load a network with OpenCV, which does not report the input size.

    Raises:
      UserError: the file is not an ONNX network, or has layers that OpenCV does not support.
    """
    try:
        network = cv2.dnn.readNetFromONNX(os.fspath(path))
    except cv2.error as error:
        raise _unreadable(path, error) from None
    names = network.getUnconnectedOutLayersNames()
    side_inputs = [n for n, value in _SIDE_INPUTS.items() if _has_input(network, n, value(1, 1))]
    black = np.zeros((1, 3, 1, 1), np.float32)
    # A network without other inputs needs no name of the image.
    image = next((n for n in _IMAGE_NAMES if side_inputs and _has_input(network, n, black)), "")
    lock = threading.Lock()

    def run(inputs: Float[np.ndarray, "1 3 h w"]) -> list[np.ndarray]:
        with lock:
            network.setInput(inputs, image)
            for name in side_inputs:
                network.setInput(_SIDE_INPUTS[name](*inputs.shape[2:]), name)
            return [np.array(output, np.float32) for output in network.forward(names)]

    return Engine(run, None)


def _has_input(network: cv2.dnn.Net, name: str, value: np.ndarray) -> bool:
    try:
        network.setInput(value, name)
    except cv2.error:
        return False
    return True


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(
        f"detector {path} cannot be read ({first_line(error)}): give a complete ONNX file"
    )


def first_line(error: Exception) -> str:
    """The first line of an engine's error message, shortened."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
