"""Conversion of ViTPose checkpoints: Hugging Face folders, and `.pth` files of the paper's code.

A folder of Hugging Face says what its network is (`config.json`, `preprocessor_config.json`). A
`.pth` file has weights only: the network follows from names and shapes of the tensors, and the
input size from the number of position embeddings. Nothing in either is executed.
"""

import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.files import read_json
from rmpe_jax.interop.alphapose import Checkpoint
from rmpe_jax.interop.huggingface import read_weights
from rmpe_jax.interop.pth import read_pth
from rmpe_jax.interop.torch_names import from_torch
from rmpe_jax.models import VITPOSE_MODELS
from rmpe_jax.models.spec import ModelSpec
from rmpe_jax.models.vitpose import (
    EXPERTS,
    PATCH,
    TransformerOptions,
    resample_positions,
)
from rmpe_jax.skeletons import get_skeleton
from rmpe_jax.skeletons.skeleton import UNNAMED_PREFIX, Skeleton

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SKELETONS = {14: "crowdpose", 16: "mpii", 17: "coco", 133: "coco_wholebody"}
_POSITIONS = "backbone.pos_embed"
# (pattern, replacement) from the names of Hugging Face, of mmpose 1.x and of MAE to ours.
_RENAMED = (
    # ---- Hugging Face's ViTPose and ViTMAE
    (r"^vit\.", "backbone."),
    (r"embeddings\.position_embeddings$", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed."),
    (r"encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"attention\.attention\.(query|key|value)\.", r"attn.\1."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"backbone\.layernorm\.", "backbone.last_norm."),
    (r"^head\.deconv1\.", "keypoint_head.deconv_layers.0."),
    (r"^head\.batchnorm1\.", "keypoint_head.deconv_layers.1."),
    (r"^head\.deconv2\.", "keypoint_head.deconv_layers.3."),
    (r"^head\.batchnorm2\.", "keypoint_head.deconv_layers.4."),
    (r"^head\.conv\.", "keypoint_head.final_layer."),
    # ---- mmpose 1.x
    (r"^backbone\.layers\.(\d+)\.ln", r"backbone.blocks.\1.norm"),
    (r"^backbone\.layers\.(\d+)\.ffn\.layers\.0\.0\.", r"backbone.blocks.\1.mlp.fc1."),
    (r"^backbone\.layers\.(\d+)\.ffn\.layers\.1\.", r"backbone.blocks.\1.mlp.fc2."),
    (r"^backbone\.layers\.(\d+)\.", r"backbone.blocks.\1."),
    (r"^backbone\.ln1\.", "backbone.last_norm."),
    (r"^head\.", "keypoint_head."),
    (r"patch_embed\.proj(ection)?\.", "patch_embed."),
    # ---- MAE's own code
    (r"^(blocks|patch_embed|pos_embed)\b", r"backbone.\1"),
    (r"^norm\.", "backbone.last_norm."),
)
# Heads of ViTPose+ for its other datasets, and what MAE's training needs.
_IGNORED = r"^associate_keypoint_heads\.|cls_token$|mask_token$|^(backbone\.)?decoder|^ema_"


def load_vitpose(
    path: str | os.PathLike,
    *,
    skeleton: str = "",
    input_size: tuple[int, int] | None = None,
    expert: int = 0,
) -> Checkpoint:
    """Reads a ViTPose or ViTPose+ of Hugging Face, of the paper's code, or of mmpose 1.x.

    Args:
      path: a folder with `config.json` and `model.safetensors` (or shards of it), or a `.pth` file.
      skeleton: name of the skeleton; by default it follows from the number of joints.
      input_size: (height, width) of the crops; by default that of the checkpoint. For another size
        position embeddings are interpolated; such a network should be fine-tuned.
      expert: of ViTPose+, an index into `models.vitpose.EXPERTS`.

    Returns:
      The network; `spec.build()` gives the Flax module and its codec. Crops and heatmaps are those
      of unbiased data processing, and keypoints are decoded by "dark_udp". Hugging Face smooths
      heatmaps with sigma 0.8 before, the paper's code with 2; so do we.

    Raises:
      UserError: the checkpoint is damaged, of another network, or does not fit the arguments.
    """
    path = pathlib.Path(path)
    if not 0 <= expert < len(EXPERTS):
        raise UserError(f"expert {expert}: use 0 to {len(EXPERTS) - 1} ({', '.join(EXPERTS)})")
    try:
        state, config, crops = _read_folder(path) if path.is_dir() else (read_pth(path), {}, {})
        backbone = config.get("backbone_config", {})
        state = canonical_names(state)
        network = _network_name(state)
        num_heads = VITPOSE_MODELS[network].keywords["num_heads"]
        if backbone.get("num_attention_heads", num_heads) != num_heads:
            raise UserError(
                f"config.json has num_attention_heads {backbone['num_attention_heads']}; "
                f"{network} has {num_heads}"
            )
        stored = _stored_size(state, config)
        target = _skeleton_of(state, skeleton)
        spec = ModelSpec(
            network=network,
            skeleton=target,
            input_size=input_size or stored,
            padding=1.25,
            mean=tuple(crops.get("image_mean", _IMAGENET_MEAN)),
            std=tuple(crops.get("image_std", _IMAGENET_STD)),
            loss="mse",
            sigma=2.0,
            integer_center=False,
            decode="dark_udp",
            alignment="udp",
            sstn=False,
            localization="small",
            blur_sigma=0.8 if config else 0.0,
            transformer=TransformerOptions(
                norm_epsilon=float(backbone.get("layer_norm_eps", 1e-12 if config else 1e-6)),
                expert=expert,
            ),
        )
        state[_POSITIONS] = _resampled(state[_POSITIONS], stored, spec.input_size)
        module, _ = spec.build()
        images = jax.ShapeDtypeStruct((1, *spec.input_size, 3), np.float32)
        expected = jax.eval_shape(module.init, jax.random.key(0), images)
        variables = from_torch(expected, state, ignored=_IGNORED)
    except UserError as error:
        line = str(error)
        raise UserError(line if line.startswith(str(path)) else f"{path}: {line}") from None
    except (AttributeError, TypeError, ValueError) as error:  # JSON of another structure
        raise UserError(f"{path}: its config is damaged ({error}): fetch it again") from None
    return Checkpoint(spec, variables)


def is_vitpose_folder(path: pathlib.Path) -> bool:
    """Whether a path is a folder of Hugging Face with a ViTPose."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "vitpose"


def backbone_state(
    state: Mapping[str, np.ndarray], input_size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The backbone's tensors of a checkpoint of ViTPose, ViT or MAE, for an input size.

    Args:
      state: tensors by their names in the checkpoint, of Hugging Face or of the authors' code.
      input_size: (height, width) that position embeddings are interpolated for.

    Returns:
      Tensors by the names of `models.vitpose.VisionTransformer`, for `from_torch`.

    Raises:
      UserError: there are no position embeddings.
    """
    state = canonical_names(state)
    stored = _stored_size(state, {})
    state[_POSITIONS] = _resampled(state[_POSITIONS], stored, input_size)
    return {
        name.removeprefix("backbone."): tensor
        for name, tensor in state.items()
        if name.startswith("backbone.") and not re.search(_IGNORED, name)
    }


def canonical_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors by the names of the paper's code; queries, keys and values in one tensor."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if missing := [part for part in parts if part not in renamed]:
            raise UserError(f"lacks {', '.join(missing)}")
        tensors = [renamed.pop(part) for part in parts]
        renamed[name.replace(".query.", ".qkv.")] = np.concatenate(tensors)
    return renamed


def _read_folder(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict, dict]:
    """Tensors, `config.json` and `preprocessor_config.json` (empty if missing) of a folder."""
    config = read_json(path / "config.json", "config")
    backbone = config.get("backbone_config", {}) if isinstance(config, dict) else {}
    if not isinstance(config, dict) or config.get("model_type") != "vitpose":
        raise UserError("config.json is not that of a ViTPose; name a folder of one")
    for key, value in {"hidden_act": "gelu", "qkv_bias": True, "mlp_ratio": 4}.items():
        if backbone.get(key, value) != value:
            raise UserError(f"config.json has {key} {backbone[key]!r}; only {value!r} is supported")
    if config.get("scale_factor", 4) != 4:
        raise UserError(f"config.json has scale_factor {config['scale_factor']}; only 4 works")
    crops = path / "preprocessor_config.json"
    return (
        read_weights(path),
        config,
        read_json(crops, "preprocessor config") if crops.exists() else {},
    )


def _network_name(state: Mapping[str, np.ndarray]) -> str:
    """The name for `build_sppe` of the network that tensors belong to."""
    required = (_POSITIONS, "backbone.patch_embed.weight", "keypoint_head.final_layer.weight")
    if missing := [name for name in required if name not in state]:
        raise UserError(f"is not a ViTPose: it lacks {', '.join(missing)}")
    width = state[_POSITIONS].shape[-1]
    depth = len({name.split(".")[2] for name in state if name.startswith("backbone.blocks.")})
    has_experts = any(".mlp.experts." in name for name in state)
    is_simple = not any(".deconv_layers." in name for name in state)
    for name, build in VITPOSE_MODELS.items():
        options = build.keywords
        if (
            (options["width"], options["depth"]) == (width, depth)
            and bool(options["expert_width"]) == has_experts
            and options["simple_head"] == is_simple
        ):
            return name
    raise UserError(
        f"has {depth} blocks of width {width}; supported are those of {', '.join(VITPOSE_MODELS)}"
    )


def _stored_size(state: dict[str, np.ndarray], config: Mapping[str, Any]) -> tuple[int, int]:
    """The input size of a checkpoint; adds the class token's embedding where it is left out."""
    positions = state.get(_POSITIONS)
    if positions is None or positions.ndim != 3:
        raise UserError("has no position embeddings: it is not a vision transformer")
    size = config.get("backbone_config", {}).get("image_size")
    if size:
        size = tuple(size) if isinstance(size, list) else (size, size)
        if positions.shape[1] == math.prod(side // PATCH for side in size) + 1:
            return size
        raise UserError(f"has position embeddings of shape {positions.shape}, not for {size}")
    for count, has_class in ((positions.shape[1] - 1, True), (positions.shape[1], False)):
        # Squares, as ImageNet's; or 4:3, as people's crops.
        side, unit = math.isqrt(count), math.isqrt(count // 12)
        if side * side == count or 12 * unit * unit == count:
            if not has_class:
                state[_POSITIONS] = np.pad(positions, [(0, 0), (1, 0), (0, 0)])
            grid = (side, side) if side * side == count else (4 * unit, 3 * unit)
            return grid[0] * PATCH, grid[1] * PATCH
    raise UserError(f"has {positions.shape[1]} position embeddings, of no known input size")


def _resampled(
    positions: np.ndarray, stored: tuple[int, int], wanted: tuple[int, int]
) -> np.ndarray:
    grid, new_grid = ((size[0] // PATCH, size[1] // PATCH) for size in (stored, wanted))
    positions = np.asarray(positions, np.float32)
    return np.asarray(resample_positions(jnp.asarray(positions), grid, new_grid))


def _skeleton_of(state: Mapping[str, np.ndarray], name: str) -> Skeleton:
    count = len(state["keypoint_head.final_layer.weight"])
    skeleton = get_skeleton(name or _SKELETONS.get(count, f"{UNNAMED_PREFIX}{count}"))
    if skeleton.num_keypoints != count:
        raise UserError(
            f"has {count} joints, {name} has {skeleton.num_keypoints}: leave the skeleton out"
        )
    return skeleton
