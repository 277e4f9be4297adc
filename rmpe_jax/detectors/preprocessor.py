"""How an ONNX network's input is made, from the `preprocessor_config.json` of transformers."""

import logging
import pathlib
from typing import Any

from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.interop.hub import fetch_model

_NAME = "preprocessor_config.json"
_RESCALE_FACTOR = 1 / 255  # of transformers


def fetch_network(name: str) -> pathlib.Path:
    """The local path of an ONNX file of the hub; its preprocessor's file is fetched too.

    Args:
      name: `hf:USER/REPOSITORY[@REVISION]/FILE.onnx`.

    Raises:
      UserError: there is no such file, or it can neither be downloaded nor found in the cache.
    """
    path = fetch_model(name)
    repository = "/".join(name.split("/", 2)[:2])
    try:
        fetch_model(f"{repository}/{_NAME}")
    except UserError as error:
        line = "%s: the input is made as usual for the layout, because there is no %s (%s)"
        logging.getLogger(__name__).warning(line, name, _NAME, error)
    return path


def find_preprocessor(network: pathlib.Path) -> pathlib.Path | None:
    """The preprocessor's file beside a network, or above its folder `onnx`; None without one."""
    folders = [network.parent, *([network.parent.parent] if network.parent.name == "onnx" else [])]
    return next((folder / _NAME for folder in folders if (folder / _NAME).is_file()), None)


def read_preprocessor(path: pathlib.Path) -> dict[str, Any]:
    """Fields of `OnnxConfig` from a preprocessor's file; those that it leaves open are missing.

    Raises:
      UserError: the file is damaged.
    """
    content = read_json(path, "preprocessor's file")
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object: give the preprocessor's file of the network")
    try:
        return _resize(content) | _normalization(content)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not describe a preprocessor ({type(error).__name__}: {error}): "
            "give that of the network"
        ) from None


def _resize(content: dict[str, Any]) -> dict[str, Any]:
    size = content.get("size")
    if size is None or not content.get("do_resize", True):
        return {}
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if not {"height", "width"} <= size.keys():  # the input's size depends on the image
        line = "the size of images is %s, which is not one size for all: give input_size and resize"
        logging.getLogger(__name__).warning(line, size)
        return {}
    return {"input_size": (size["height"], size["width"]), "resize": "stretch"}


def _normalization(content: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of values 0 to 255."""
    if "do_rescale" not in content and "do_normalize" not in content:
        return {}
    rescale = content.get("do_rescale", True)
    factor = content.get("rescale_factor", _RESCALE_FACTOR) if rescale else 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if content.get("do_normalize", "image_mean" in content):
        mean, std = content["image_mean"], content["image_std"]
    return {
        "mean": tuple(value / factor for value in mean),
        "std": tuple(value / factor for value in std),
    }
