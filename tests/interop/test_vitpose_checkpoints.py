"""Checkpoints of ViTPose and MAE: of Hugging Face, of the paper's code, and of mmpose 1.x."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from torch_files import save_state, torch_state

from rmpe_jax import models
from rmpe_jax.errors import UserError
from rmpe_jax.interop import load_vitpose, vitpose
from rmpe_jax.interop.torch_names import from_torch
from rmpe_jax.interop.vitpose import backbone_state
from rmpe_jax.models.vitpose import VisionTransformer, ViTPose, resample_positions

SIZE = (64, 48)  # 4 x 3 patches
TINY = {
    name: functools.partial(
        ViTPose, width=24, depth=2, num_heads=3, expert_width=experts, simple_head=simple
    )
    for name, experts, simple in (
        ("vitpose_s", 0, False),
        ("vitpose_s_simple", 0, True),
        ("vitpose_plus_s", 6, False),
    )
}
TO_HUGGING_FACE = (
    (r"^backbone\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^backbone\.patch_embed\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^backbone\.blocks\.", "backbone.encoder.layer."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"^backbone\.last_norm\.", "backbone.layernorm."),
    (r"^keypoint_head\.deconv_layers\.0\.", "head.deconv1."),
    (r"^keypoint_head\.deconv_layers\.1\.", "head.batchnorm1."),
    (r"^keypoint_head\.deconv_layers\.3\.", "head.deconv2."),
    (r"^keypoint_head\.deconv_layers\.4\.", "head.batchnorm2."),
    (r"^keypoint_head\.final_layer\.", "head.conv."),
)
TO_MMPOSE = (
    (r"^backbone\.patch_embed\.", "backbone.patch_embed.projection."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"\.norm", ".ln"),
    (r"^backbone\.blocks\.", "backbone.layers."),
    (r"^backbone\.last_norm\.", "backbone.ln1."),
    (r"^keypoint_head\.", "head."),
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The networks' names stand for tiny ones."""
    for name, module in TINY.items():
        monkeypatch.setitem(models._MODELS, name, module)
    monkeypatch.setattr(vitpose, "VITPOSE_MODELS", TINY)


def variables_of(name, size=SIZE, k=17):
    module = TINY[name](num_keypoints=k)
    image = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32), shapes)


def renamed(state, table):
    result = {}
    for name, tensor in state.items():
        for pattern, replacement in table:
            name = re.sub(pattern, replacement, name)
        result[name] = np.ascontiguousarray(tensor)
    return result


def hugging_face_state(variables):
    state = renamed(torch_state(variables), TO_HUGGING_FACE)
    for name in [name for name in state if ".attn.qkv." in name]:
        for part, tensor in zip(("query", "key", "value"), np.split(state[name], 3), strict=True):
            state[name.replace("attn.qkv", f"attention.attention.{part}")] = tensor
        del state[name]
    return state


def save_folder(folder, variables, shards=1, **config):
    folder.mkdir()
    backbone = {"image_size": list(SIZE), "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    content = {"model_type": "vitpose", "backbone_config": backbone | config.pop("backbone", {})}
    (folder / "config.json").write_text(json.dumps(content | config))
    crops = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(crops))
    state = hugging_face_state(variables)
    if shards == 1:
        safetensors.numpy.save_file(state, folder / "model.safetensors")
        return folder
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    weight_map = {name: names[i % shards] for i, name in enumerate(state)}
    for file in names:
        part = {name: state[name] for name, place in weight_map.items() if place == file}
        safetensors.numpy.save_file(part, folder / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def literal_names(name):
    """The parameters of two blocks as `transformers` 5 names them, read off its state dicts."""
    ends = ("weight", "bias")
    block = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    block += ["attention.output.dense", "mlp.fc1", "mlp.fc2"]
    block += ["layernorm_before", "layernorm_after"]
    block += [f"mlp.experts.{i}" for i in range(6)] if name == "vitpose_plus_s" else []
    layers = [f"backbone.encoder.layer.{i}.{layer}" for i in range(2) for layer in block]
    layers += ["backbone.embeddings.patch_embeddings.projection", "backbone.layernorm", "head.conv"]
    names = {f"{layer}.{end}" for layer in layers for end in ends}
    names.add("backbone.embeddings.position_embeddings")
    if name != "vitpose_s_simple":
        norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        names |= {f"head.batchnorm{i}.{end}" for i in (1, 2) for end in norms}
        names |= {f"head.deconv{i}.weight" for i in (1, 2)}
    return names


@pytest.mark.parametrize("name", TINY)
def test_the_names_of_hugging_face(name):
    assert set(hugging_face_state(variables_of(name))) == literal_names(name)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", TINY)
def test_a_folder_of_hugging_face(tmp_path, name, shards):
    variables = variables_of(name)
    found = load_vitpose(save_folder(tmp_path / "model", variables, shards), expert=2)
    assert_equal(found.variables, variables)
    spec = found.spec
    assert (spec.network, spec.skeleton.name, spec.input_size) == (name, "coco", SIZE)
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (spec.alignment, spec.decode, spec.blur_sigma) == ("udp", "dark_udp", 0.8)
    assert (spec.transformer.norm_epsilon, spec.transformer.expert) == (1e-12, 2)
    assert spec.crop.udp


@pytest.mark.parametrize("k", [14, 16, 17, 133, 5])
def test_the_number_of_joints_tells_the_skeleton(tmp_path, k):
    found = load_vitpose(save_folder(tmp_path / "model", variables_of("vitpose_s", k=k)))
    names = {14: "crowdpose", 16: "mpii", 17: "coco", 133: "coco_wholebody", 5: "unnamed_5"}
    assert found.spec.skeleton.name == names[k]


@pytest.mark.parametrize("name", TINY)
def test_a_file_of_the_papers_code(tmp_path, name):
    """`patch_embed.proj`, and heads of other datasets, which are left out."""
    variables = variables_of(name)
    table = [(r"patch_embed\.", "patch_embed.proj.")]
    state = renamed(torch_state(variables), table)
    state["associate_keypoint_heads.0.final_layer.weight"] = np.zeros((16, 256, 1, 1), np.float32)
    save_state(tmp_path / "vitpose.pth", state)
    found = load_vitpose(tmp_path / "vitpose.pth")
    assert_equal(found.variables, variables)
    assert found.spec.input_size == SIZE  # 12 patches are 4 x 3
    assert (found.spec.transformer.norm_epsilon, found.spec.blur_sigma) == (1e-6, 0.0)


def test_a_file_of_mmpose_has_no_class_token(tmp_path):
    variables = variables_of("vitpose_s")
    state = renamed(torch_state(variables), TO_MMPOSE)
    positions = state["backbone.pos_embed"]
    state["backbone.pos_embed"] = np.ascontiguousarray(positions[:, 1:] + positions[:, :1])
    save_state(tmp_path / "td-hm.pth", state)
    found = load_vitpose(tmp_path / "td-hm.pth").variables
    ours, theirs = (v["params"]["backbone"].pop("pos_embed") for v in (found, variables))
    np.testing.assert_array_equal(ours[:, 1:] + ours[:, :1], theirs[:, 1:] + theirs[:, :1])
    assert_equal(found, variables)


def test_another_input_size(tmp_path):
    variables = variables_of("vitpose_s")
    folder = save_folder(tmp_path / "model", variables)
    found = load_vitpose(folder, input_size=(128, 96))
    assert found.spec.input_size == (128, 96)
    positions = jnp.asarray(variables["params"]["backbone"]["pos_embed"])
    expected = resample_positions(positions, (4, 3), (8, 6))
    np.testing.assert_allclose(found.variables["params"]["backbone"]["pos_embed"], expected)
    assert found.spec.build()[1].heatmap_size == (32, 24)


def test_a_backbone_of_mae(tmp_path):
    """Hugging Face's ViTMAE: another table of names, a square grid, a decoder."""
    module = VisionTransformer(24, 2, 3)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    expert = jax.ShapeDtypeStruct((1,), np.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image, expert)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.uniform(size=s.shape).astype(np.float32), shapes)
    table = (
        (r"^", "vit."),
        (r"pos_embed$", "embeddings.position_embeddings"),
        (r"patch_embed\.", "embeddings.patch_embeddings.projection."),
        (r"blocks\.", "encoder.layer."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"last_norm\.", "layernorm."),
    )
    state = renamed(torch_state(variables), table)
    for name in [name for name in state if ".attn.qkv." in name]:
        for part, tensor in zip(("query", "key", "value"), np.split(state[name], 3), strict=True):
            state[name.replace("attn.qkv", f"attention.attention.{part}")] = tensor
        del state[name]
    state["vit.embeddings.cls_token"] = np.zeros((1, 1, 24), np.float32)
    state["decoder.mask_token"] = np.zeros((1, 1, 8), np.float32)
    found = from_torch(shapes, backbone_state(state, (64, 64)))
    assert_equal(found, variables)
    assert backbone_state(state, SIZE)["pos_embed"].shape == (1, 13, 24)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model_type": "vit"}, "not that of a ViTPose"),
        ({"scale_factor": 8}, "scale_factor 8"),
        ({"backbone": {"hidden_act": "relu"}}, "hidden_act 'relu'"),
        ({"backbone": {"image_size": [64, 64]}}, "position embeddings of shape"),
    ],
)
def test_configs_that_are_not_supported(tmp_path, change, line):
    folder = save_folder(tmp_path / "model", variables_of("vitpose_s"), **change)
    with pytest.raises(UserError, match=line) as info:
        load_vitpose(folder)
    assert str(folder) in str(info.value)
    assert "\n" not in str(info.value)


def test_files_that_cannot_be_used(tmp_path):
    folder = save_folder(tmp_path / "model", variables_of("vitpose_s"), shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is missing"):
        load_vitpose(folder)
    index = {"weight_map": {"a": "../../secret"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="not an index of shards"):
        load_vitpose(folder)
    (folder / "model.safetensors").write_bytes(b"\x10" * 40)
    with pytest.raises(UserError, match="is damaged"):
        load_vitpose(folder)
    save_state(tmp_path / "other.pth", {"conv.weight": np.zeros((3, 3), np.float32)})
    with pytest.raises(UserError, match="is not a ViTPose: it lacks"):
        load_vitpose(tmp_path / "other.pth")
    with pytest.raises(UserError, match="expert 6: use 0 to 5"):
        load_vitpose(folder, expert=6)
    other = save_folder(tmp_path / "other", variables_of("vitpose_s", k=5))
    with pytest.raises(UserError, match="has 5 joints, coco has 17"):
        load_vitpose(other, skeleton="coco")
