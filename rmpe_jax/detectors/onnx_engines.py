"""What runs a network of an ONNX file: onnxruntime if it is installed, OpenCV if not."""

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
    """Something that runs a network.

    Attributes:
      run: from the input (1, 3, h, w) to all outputs; may be called from several threads.
      input_size: (height, width) that the file prescribes, if it does and the engine tells.
    """

    run: Callable[[Float[np.ndarray, "1 3 h w"]], list[np.ndarray]]
    input_size: tuple[int, int] | None


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


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(
        f"detector {path} cannot be read ({first_line(error)}): give a whole ONNX file"
    )


def first_line(error: Exception) -> str:
    """What an engine's error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
