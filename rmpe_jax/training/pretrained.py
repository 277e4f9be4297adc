"""Weights of other projects: of ImageNet, MAE and MoveNet, and for localization networks."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import traverse_util

from rmpe_jax.config import ModelConfig, SstnConfig
from rmpe_jax.errors import UserError
from rmpe_jax.interop.efficientnet import efficientnet_variables
from rmpe_jax.interop.hub import fetch_model, is_hub_name
from rmpe_jax.interop.huggingface import read_weights
from rmpe_jax.interop.movenet import movenet_variables, read_graph_model
from rmpe_jax.interop.pth import read_pth
from rmpe_jax.interop.resnet import localization_variables, resnet_variables
from rmpe_jax.interop.torch_names import from_torch
from rmpe_jax.interop.vitpose import backbone_state
from rmpe_jax.skeletons import COCO

_WHERE = (
    "docs/interop.md says where to get weights to start from, an empty value starts from random "
    "ones"
)


def require_weights(model: ModelConfig, sstn: SstnConfig) -> None:
    """Checks that the weights to start from are there; those of the hub are downloaded.

    Raises:
      UserError: `model.backbone_weights` or `sstn.localization_weights` are not there, or MoveNet's
        would get other inputs than they were trained for.
    """
    if model.backbone_weights:
        _find_backbone(model.backbone_weights, model.name)
        if model.name.startswith("movenet") and {*model.mean, *model.std} != {0.5}:
            raise UserError(
                f"config.model.backbone_weights={model.backbone_weights}: MoveNet's weights are "
                "for inputs from -1 to 1; set model.mean and model.std to (0.5, 0.5, 0.5)"
            )
    path = sstn.localization_weights
    if path and not pathlib.Path(path).is_file():
        raise UserError(f"config.sstn.localization_weights={path}: no such file; {_WHERE}")


def load_backbone(
    path: str,
    name: str,
    input_size: tuple[int, int],
    params: dict[str, Any],
    batch_stats: dict[str, Any],
    joints: tuple[str, ...] = (),
) -> None:
    """Replaces an SPPE's backbone by that of a file, in place; of a MoveNet, the whole network.

    Args:
      path: `config.model.backbone_weights`.
      name: of the SPPE.
      input_size: (height, width), for which position embeddings are interpolated.
      params: of the SPPE alone.
      batch_stats: likewise.
      joints: that its heatmaps are of. MoveNet's last layer is used for COCO's.

    Raises:
      UserError: there is no reader for this network's backbone, or the file is of another network.
    """
    if name.startswith("vitpose"):
        params["backbone"] = _transformer(path, name, input_size, params["backbone"])
        return
    if name.startswith("movenet"):
        _load_movenet(path, name, params, batch_stats, with_heatmaps=joints == COCO.joints)
        return
    part = "backbone" if name.startswith("litepose_effnet0") else "preact"
    if part not in params:
        raise UserError(
            f"config.model.backbone_weights: there is no reader for the backbone of {name}; use "
            "litepose_effnet0, a MoveNet, a ViTPose or a network on a ResNet, or leave it empty"
        )
    state = read_pth(_find_backbone(path, name))
    expected = {"params": params[part], "batch_stats": batch_stats[part]}
    try:
        if part == "backbone":
            loaded = efficientnet_variables(state)
        else:
            loaded = resnet_variables(expected, state)
        for collection, ours in (("params", params), ("batch_stats", batch_stats)):
            ours[part] = _merged(ours[part], loaded[collection], partly=part == "preact")
    except UserError as error:
        raise UserError(f"config.model.backbone_weights={path}, for {name}: {error}") from None


def _load_movenet(
    path: str,
    name: str,
    params: dict[str, Any],
    batch_stats: dict[str, Any],
    *,
    with_heatmaps: bool,
) -> None:
    """Replaces all weights by MoveNet's, without heatmaps all but those of the last layer."""
    try:
        loaded = movenet_variables(read_graph_model(_find_backbone(path, name)))
        if not with_heatmaps:
            loaded["params"]["conv_out"] = params["conv_out"]
        for collection, ours in (("params", params), ("batch_stats", batch_stats)):
            ours.update(_merged(ours, loaded[collection], partly=False))
    except UserError as error:
        raise UserError(f"config.model.backbone_weights={path}, for {name}: {error}") from None


def _transformer(
    path: str, name: str, input_size: tuple[int, int], ours: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters of a vision transformer: of MAE, of ViTPose, or of another ViT."""
    folder = _find_backbone(path, name)
    try:
        state = read_weights(folder) if folder.is_dir() else read_pth(folder)
        tensors = backbone_state(state, input_size)
        # Experts of ViTPose+ are of pose estimation, and not every ViT has a last norm.
        loaded = from_torch({"params": ours}, tensors, optional=r"\.experts\.|^last_norm\.")
        return _merged(ours, loaded["params"], partly=True)
    except UserError as error:
        raise UserError(f"config.model.backbone_weights={path}, for {name}: {error}") from None


def _find_backbone(path: str, name: str) -> pathlib.Path:
    """The file, or the folder of Hugging Face, of `backbone_weights` for the SPPE `name`."""
    where = f"config.model.backbone_weights={path}"
    if not is_hub_name(path):
        if not pathlib.Path(path).exists():
            raise UserError(f"{where}: no such file; {_WHERE}")
        return pathlib.Path(path)
    if not name.startswith("vitpose"):
        raise UserError(
            f"{where}: hf: names are for ViTPose only; name a file for {name}, or leave it empty"
        )
    try:
        return fetch_model(path)
    except UserError as error:
        raise UserError(f"{where}, for {name}: {error}") from None


def load_localization(path: str, params: dict[str, Any], batch_stats: dict[str, Any]) -> None:
    """Replaces the localization ResNet-18, except its last layer, by torchvision's, in place.

    Args:
      path: `config.sstn.localization_weights`.
      params: of the whole network.
      batch_stats: likewise.

    Raises:
      UserError: the file is of another network.
    """
    state = read_pth(path)
    expected = {"params": params["localization"], "batch_stats": batch_stats["localization"]}
    try:
        loaded = localization_variables(expected, state)
    except UserError as error:
        raise UserError(f"config.sstn.localization_weights={path}: {error}") from None
    for collection, ours in (("params", params), ("batch_stats", batch_stats)):
        ours["localization"] = _merged(ours["localization"], loaded[collection], partly=True)


def _merged(ours: Mapping, theirs: Mapping, *, partly: bool) -> dict[str, Any]:
    """Our tree with the leaves of theirs: all of them or, with `partly`, some."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(ours))
    loaded: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(theirs))
    same = loaded.keys() <= flat.keys() if partly else loaded.keys() == flat.keys()
    if not same or any(loaded[path].shape != flat[path].shape for path in loaded):
        raise UserError("the weights of another network, or of another size; use its own file")
    arrays = {path: jnp.array(leaf) for path, leaf in loaded.items()}
    return traverse_util.unflatten_dict(flat | arrays)
