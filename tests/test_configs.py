"""The published recipes, as far as shapes and schedules go: nothing is computed here."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_parts

from rmpe_jax.errors import UserError
from rmpe_jax.models import build_sppe
from rmpe_jax.ops.heatmaps import decode, encode
from rmpe_jax.skeletons import get_skeleton
from rmpe_jax.training.optimizers import split_frozen
from rmpe_jax.training.pretrained import load_backbone

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def load(name: str, *arguments: str):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](*arguments)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("coco_fastpose_res50_256x192", marks=pytest.mark.slow),
        "coco_vitpose_256x192",
        pytest.param("mpii_hourglass", marks=pytest.mark.slow),
    ],
)
def test_a_step_keeps_the_state_as_it_is_shaped(name):
    config = load(name)
    config.model.backbone_weights = ""
    if name == "mpii_hourglass":
        config.model.name = "hourglass_2"  # traced in a quarter of the time
    built = run_parts.parts(config)
    codec = built.codec
    assert codec.heatmap_size == tuple(side // 4 for side in config.model.input_size)
    state = jax.eval_shape(lambda: run_parts.start(config))
    b, k = config.batch_size, get_skeleton(config.model.skeleton).num_keypoints
    batch = {
        "image": jax.ShapeDtypeStruct((b, *codec.input_size, 3), jnp.uint8),
        "keypoints": jax.ShapeDtypeStruct((b, k, 2), jnp.float32),
        "weights": jax.ShapeDtypeStruct((b, k), jnp.float32),
        "corrupt": jax.ShapeDtypeStruct((b,), jnp.bool),
    }
    after, metrics = jax.eval_shape(built.step, state, batch)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert metrics["loss"].shape == ()


def test_fastpose_is_trained_for_210_epochs_and_slows_down_after_170_and_200():
    config = load("coco_fastpose_res50_256x192")
    epoch = 149_813 / 128
    rate = run_parts.rate(config)
    assert config.total_steps == pytest.approx(210 * epoch, abs=1)
    for number, expected in ((0, 1e-3), (169, 1e-3), (171, 1e-4), (199, 1e-4), (201, 1e-5)):
        assert float(rate(int(number * epoch))) == pytest.approx(expected)


def test_fastpose_does_not_start_from_random_weights_unless_asked_to():
    config = load("coco_fastpose_res50_256x192", "here")
    assert config.data.train == ("coco:here/coco:train2017",)
    empty = {"preact": {}}
    with pytest.raises(UserError) as info:
        load_backbone(config.model.backbone_weights, config.model.name, (256, 192), empty, empty)
    assert str(info.value) == (
        "config.model.backbone_weights=resnet50.pth: no such file; docs/interop.md says where to "
        "get weights to start from, an empty value starts from random ones"
    )
    config = load("coco_fastpose_res50_256x192", "here,models/r50.pth")
    assert config.model.backbone_weights == "models/r50.pth"
    assert load("coco_fastpose_res50_256x192", "here,random").model.backbone_weights == ""


@pytest.mark.parametrize(
    ("changes", "error"),
    [({}, 1.53), ({"codec.integer_center": False, "codec.decode": "dark"}, 0.0)],
    ids=["published", "recommended"],
)
def test_errors_of_perfect_heatmaps(changes, error):
    """Of rounded centers the error is that of a point in a square of 4x4 crop pixels."""
    config = load("coco_fastpose_res50_256x192")
    config.update_from_flattened_dict(changes)
    codec = config.codec
    points = np.random.default_rng(0).uniform((6, 6), (41, 57), (60, 17, 2))
    points = jnp.asarray(points, jnp.float32)
    maps, _ = encode(points, jnp.ones((60, 17)), (64, 48), codec.sigma, codec.integer_center)
    found, _ = decode(maps, codec.decode, codec.sigma)
    mean = 4 * np.linalg.norm(found - points, axis=-1).mean()
    assert mean == pytest.approx(error, abs=0.04)


def test_fastpose_ends_with_proposals():
    first = load("coco_fastpose_res50_256x192", "here,random")
    config = load("coco_fastpose_res50_proposals", "here,my/run,my/pgpg.npz")
    epoch = 149_813 / 128
    rate = run_parts.rate(config)
    assert config.total_steps == pytest.approx(60 * epoch, abs=1)
    for number, expected in ((1, 1e-3), (19, 1e-3), (21, 1e-4), (39, 1e-4), (41, 1e-5)):
        assert float(rate(int(number * epoch))) == pytest.approx(expected)
    assert float(rate(250)) == pytest.approx(5e-4)
    assert (config.model.init_from, config.model.backbone_weights) == ("my/run", "")
    assert (config.data.proposals, config.data.pgpg_model) == ("atomic", "my/pgpg.npz")
    # Anything else is as in the first phase.
    for section in ("codec", "augmentation", "transformer", "sstn"):
        assert config[section] == first[section]
    assert config.data.train == first.data.train
    assert load("coco_fastpose_res50_proposals").model.init_from == "runs/fastpose"


def test_hourglass_slows_down_once():
    config = load("mpii_hourglass")
    rate = run_parts.rate(config)
    assert float(rate(599_999)) == pytest.approx(2.5e-4)
    assert float(rate(config.total_steps - 1)) == pytest.approx(2.5e-5)


@pytest.mark.parametrize(
    ("size", "name", "decay", "drop"),
    [
        ("small", "vitpose_s", 0.8, 0.1),
        ("base", "vitpose_b", 0.75, 0.3),
        ("large", "vitpose_l", 0.8, 0.5),
        ("huge", "vitpose_h", 0.85, 0.55),
    ],
)
def test_sizes_of_vitpose(size, name, decay, drop):
    config = load("coco_vitpose_256x192", f"{size},here,random")
    assert config.model.backbone_weights == ""
    assert config.model.name == name
    assert (config.optim.layer_decay, config.transformer.drop_path) == (decay, drop)
    assert config.data.train == ("coco:here/coco:train2017",)
    rate = run_parts.rate(config)
    epoch = 149_813 / 512
    for number, expected in ((2, 5e-4), (169, 5e-4), (171, 5e-5), (201, 5e-6)):
        assert float(rate(int(number * epoch))) == pytest.approx(expected)
    assert float(rate(250)) == pytest.approx(2.5e-4)
    with pytest.raises(UserError, match="there is no size 'tiny'; use small, base, large, huge"):
        load("coco_vitpose_256x192", "tiny")


def test_initial_weights_of_vitpose():
    mae = load("coco_vitpose_256x192").model.backbone_weights
    assert mae == "hf:facebook/vit-mae-base"
    other = load("coco_vitpose_256x192", "huge,here,mae.pth")
    assert other.model.backbone_weights == "mae.pth"
    with pytest.raises(UserError, match="no initial weights are known for small"):
        load("coco_vitpose_256x192", "small,here")


def test_the_built_in_networks_start_from_the_files_that_are_named():
    pose = load("pose_movenet", "mine")
    assert pose.data.train[0] == "coco:mine:coco"
    assert pose.model.backbone_weights == "movenet/movenet-thunder.json"
    small = load("pose_movenet", "mine,his,lightning").model
    assert small.name == "movenet_lightning"
    assert small.backbone_weights == "his/movenet-lightning.json"
    assert load("pose_movenet", "mine,,lightning").model.backbone_weights.startswith("movenet/")
    with pytest.raises(UserError, match="there is no size 'multipose'; use thunder or lightning"):
        load("pose_movenet", "mine,his,multipose")
    detector = load("detector_small", "here,mine,boxes")
    assert detector.data.train == (
        "coco:mine:coco",
        "mpii:here/mpii:train",
        "lsp:here/lsp_extended",
    )
    assert detector.data.detections == ("", "boxes/mpii.json", "boxes/lsp.json")
    assert detector.model.backbone_weights == "movenet/movenet-multipose.json"


@pytest.mark.parametrize("name", ["pose_movenet", "detector_small", "ablation_real"])
def test_the_first_six_blocks_of_the_built_in_networks_are_frozen(name):
    config = load(name)
    module = build_sppe(config.model.name, 5)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    trained, frozen = split_frozen(shapes["params"], config.optim.frozen)
    assert {path.split("/")[1].split("_")[0] for path in frozen} == {
        "stem", *(f"block{index}" for index in range(6))
    }  # fmt: skip
    assert "backbone/block6_depthwise" in trained
    assert "smooth1_depthwise" in trained
