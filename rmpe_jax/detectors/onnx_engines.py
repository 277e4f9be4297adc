"""Engines that run ONNX networks: onnxruntime if it is installed, otherwise OpenCV."""

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
    (argument, *_) = session.get_inputs()
    dtype = np.float16 if argument.type == "tensor(float16)" else np.float32
    size = tuple(argument.shape[2:])
    is_fixed = len(size) == 2 and all(isinstance(n, int) for n in size)

    def run(inputs: Float[np.ndarray, "1 3 h w"]) -> list[np.ndarray]:
        outputs = session.run(None, {argument.name: inputs.astype(dtype)})
        return [np.asarray(output, np.float32) for output in outputs]

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
    lock = threading.Lock()

    def run(inputs: Float[np.ndarray, "1 3 h w"]) -> list[np.ndarray]:
        with lock:
            network.setInput(inputs)
            return [np.array(output, np.float32) for output in network.forward(names)]

    return Engine(run, None)


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(
        f"detector {path} cannot be read ({first_line(error)}): give a complete ONNX file"
    )


def first_line(error: Exception) -> str:
    """The first line of an engine's error message, shortened."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
