"""Uploads a trained pose network, with a card, to the Hugging Face Hub."""

import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax

from rmpe_jax.interop.hub import POSE_FILE, push_files
from rmpe_jax.model_io.pose_model import PoseModel, load_pose_model, save_pose_model
from rmpe_jax.model_io.read import read_network
from rmpe_jax.models.spec import ModelSpec


def push_model(path: str | os.PathLike, name: str, license: str, *, private: bool = False) -> str:
    """Uploads a pose network as `pose.safetensors`, with a card as `README.md`.

    A model file is uploaded as it is, another network as a new model file.

    Args:
      path: what `load_pose_model` reads.
      name: `hf:USER/REPOSITORY`.
      license: of the weights, an identifier of the hub such as "apache-2.0", or "other".
      private: others shall not see the repository.

    Returns:
      The address of the repository.

    Raises:
      UserError: there is no pose network that can be read, or it cannot be uploaded.
    """
    model = load_pose_model(path)
    model.build()  # what does not work is not published
    _, _, meta = read_network(path, "pose network")
    about = meta.get("about", {})
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(path)
        if not file.is_file():
            file = pathlib.Path(folder) / POSE_FILE
            save_pose_model(file, model, about=about)
        card = model_card(model, name, license, about).encode()
        return push_files(name, {POSE_FILE: file, "README.md": card}, private=private)


def model_card(model: PoseModel, name: str, license: str, about: Mapping[str, Any]) -> str:
    """The text of the card: YAML for the hub, how to use the network, and what is known of it.

    Args:
      model: the network.
      name: `hf:USER/REPOSITORY`.
      license: of the weights.
      about: what its model file says about it, see `save_pose_model`.
    """
    spec = model.spec
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    height, width = spec.input_size
    rows = {
        "network": f"`{spec.network}`" + (" in the spatial transformer" if spec.sstn else ""),
        "parameters": f"{parameters:,}",
        "joints": f"{spec.skeleton.num_keypoints}, {spec.skeleton.name}",
        "crops": f"{height}x{width} pixels",
        "heatmaps": _heatmaps(spec),
        "learned pose NMS": "yes" if model.nms else "no",
        "license": license,
        **{key: _text(value) for key, value in about.items()},
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""\
---
license: {license}
library_name: rmpe_jax
pipeline_tag: keypoint-detection
tags:
- pose-estimation
- keypoint-detection
- jax
- flax
---

# {name.removeprefix("hf:").partition("/")[2]}

A network of `rmpe_jax` that finds the joints of people.

```
pip install 'rmpe_jax[hub]'
rmpe predict photo.jpg --model={name}
```

| | |
|---|---|
{table}
"""


def _heatmaps(spec: ModelSpec) -> str:
    if not spec.has_heatmaps:
        return "none, but SimCC's vectors over x and y"
    return f"loss `{spec.loss}`, alignment `{spec.alignment}`, decoding `{spec.decode}`"


def _text(value: Any) -> str:
    """A value of the meta data in one cell of a table."""
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split()).replace("|", "\\|")
