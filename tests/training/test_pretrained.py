"""ImageNet weights in a run's trees: what is replaced, what stays, and what is refused."""

import jax
import numpy as np
import pytest
from flax import traverse_util
from torch_files import save_state

from rmpe_jax.config import default_config, parse_config
from rmpe_jax.errors import UserError
from rmpe_jax.interop.torch_names import torch_key
from rmpe_jax.models.localization import ResNet18Localization
from rmpe_jax.models.resnet import ResNet
from rmpe_jax.training import loop
from rmpe_jax.training.pretrained import load_backbone, load_localization


def trees(module, value):
    """Params and statistics of a module, all of one value."""
    x = np.zeros((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    full = jax.tree.map(lambda leaf: np.full(leaf.shape, value, np.float32), dict(shapes))
    return full["params"], full["batch_stats"]


def torch_file(path, params, batch_stats, value):
    """A file with torchvision's names and shapes, all of one value, and a classifier."""
    state = {"fc.weight": np.ones((10, 512), np.float32), "fc.bias": np.ones(10, np.float32)}
    for tree in (params, batch_stats):
        for names, leaf in traverse_util.flatten_dict(tree).items():
            shape = np.transpose(leaf, (3, 2, 0, 1)).shape if leaf.ndim == 4 else leaf.shape
            state[torch_key(names)] = np.full(shape, value, np.float32)
    save_state(path, state)
    return str(path)


def source(config):
    """The arguments of `load_backbone` that a config has."""
    return config.model.backbone_weights, config.model.name, config.model.input_size


def values_of(tree):
    """The values in a tree, by the kind of submodule they are of."""
    kinds = {}
    for path, leaf in traverse_util.flatten_dict(tree).items():
        kinds.setdefault("se" if "se" in path else "rest", set()).update(np.unique(leaf))
    return kinds


def test_squeeze_and_excitation_keeps_its_start(tmp_path):
    config = default_config()
    config.model.name = "fastpose_res18"
    plain = trees(ResNet(18), 0.0)
    config.model.backbone_weights = torch_file(tmp_path / "resnet18.pth", *plain, 0.25)
    params, batch_stats = (
        {"preact": tree, "conv_out": {"bias": np.ones(3)}}
        for tree in trees(ResNet(18, se=True), 0.5)
    )
    load_backbone(*source(config), params, batch_stats)
    assert values_of(params["preact"]) == {"rest": {0.25}, "se": {0.5}}
    assert values_of(batch_stats["preact"]) == {"rest": {0.25}}
    assert (params["conv_out"]["bias"] == 1).all()
    parse_config(config)


def test_another_depth_is_one_line(tmp_path):
    config = default_config()
    config.model.name = "simplepose_res50"
    path = torch_file(tmp_path / "resnet18.pth", *trees(ResNet(18), 0.0), 0.25)
    config.model.backbone_weights = path
    params, batch_stats = ({"preact": tree} for tree in trees(ResNet(50), 0.5))
    with pytest.raises(UserError, match=r"backbone_weights=.*resnet18.pth, for simplepose_res50: "):
        load_backbone(*source(config), params, batch_stats)
    assert values_of(params["preact"]) == {"rest": {0.5}}
    config.model.name = "hrnet_w32"
    with pytest.raises(UserError, match="no reader for the backbone of hrnet_w32"):
        load_backbone(*source(config), {"conv1": {}}, {})


def test_localization_keeps_its_last_layer(tmp_path):
    config = default_config()
    config.sstn.update({"enabled": True, "localization": "resnet18"})
    path = torch_file(tmp_path / "resnet18.pth", *trees(ResNet(18), 0.0), 0.25)
    config.sstn.localization_weights = path
    parse_config(config)
    params, batch_stats = ({"localization": tree} for tree in trees(ResNet18Localization(), 0.5))
    load_localization(path, params, batch_stats)
    assert (params["localization"]["theta"]["kernel"] == 0.5).all()
    assert (params["localization"]["conv1"]["bias"] == 0).all()
    assert (params["localization"]["layer1_0_conv1"]["kernel"] == 0.25).all()
    folded = 0.25 * 0.25 / np.sqrt(0.25 + 1e-5)
    shortcut = params["localization"]["layer2_0_shortcut"]
    np.testing.assert_allclose(shortcut["kernel"], folded, rtol=1e-6)
    np.testing.assert_allclose(shortcut["bias"], 0.25 - folded, rtol=1e-5)


def test_only_the_papers_localization_has_such_files():
    config = default_config()
    config.sstn.localization_weights = "resnet18.pth"
    with pytest.raises(UserError, match=r"sstn\.localization_weights=.resnet18\.pth. is invalid"):
        parse_config(config)


@pytest.fixture
def before(monkeypatch):
    """before(config, tmp_path): the error of a training that reads no data and builds nothing."""

    def fail(*_, **__):
        pytest.fail("the weights were not checked first")

    monkeypatch.setattr(loop, "_TASKS", {"pose": fail})
    monkeypatch.setattr(loop, "init_variables", fail)

    def start(config, folder):
        with pytest.raises(UserError) as info:
            loop.train(config, folder / "run")
        assert not (folder / "run" / "config.json").exists()
        return str(info.value)

    return start


def test_missing_weights_are_found_before_the_data_are_read(config, before, tmp_path):
    config.model.name = "fastpose_res18"
    config.model.backbone_weights = str(tmp_path / "gone.pth")
    assert "gone.pth: no such file; docs/interop.md says where" in before(config, tmp_path)
    config.model.backbone_weights = "hf:somebody/resnet"
    line = before(config, tmp_path)
    assert "hf: names are for ViTPose only; name a file for fastpose_res18" in line
    config.model.backbone_weights = ""
    config.sstn.update({"enabled": True, "localization": "resnet18"})
    config.sstn.localization_weights = str(tmp_path / "resnet18.pth")
    line = before(config, tmp_path)
    assert line.startswith("config.sstn.localization_weights=")
    assert "resnet18.pth: no such file; " in line


def test_names_of_the_hub_are_fetched_before_the_data_are_read(
    config, before, tmp_path, monkeypatch
):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config.model.name, config.model.input_size = "vitpose_s", (64, 48)
    config.model.backbone_weights = "hf:somebody/mae"
    line = before(config, tmp_path)
    assert line.startswith("config.model.backbone_weights=hf:somebody/mae, for vitpose_s: ")
    assert "not in the cache" in line
