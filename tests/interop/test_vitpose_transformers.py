"""Random ViTPoses of the `transformers` package give the same heatmaps and keypoints here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from rmpe_jax.data.augment import crop
from rmpe_jax.interop import load_vitpose
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.models import build_sppe
from rmpe_jax.models.vitpose import resample_positions
from rmpe_jax.top_down.prediction import make_predict
from rmpe_jax.training.pretrained import load_backbone

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12}
BASE = SMALL | {"hidden_size": 768}
PLUS = SMALL | {"num_experts": 6, "part_features": 96}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The folder of the files of `somebody/network` in a cache of the hub, which is offline."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder, commit = tmp_path / "models--somebody--network", "0123456789abcdef" * 2 + "01234567"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


def save_random(folder, options, simple, **saving):
    """A network whose parameters all have an effect, saved as its authors save theirs."""
    torch.manual_seed(0)
    backbone = transformers.VitPoseBackboneConfig(out_indices=[12], **options)
    config = transformers.VitPoseConfig(
        backbone_config=backbone, use_simple_decoder=simple, num_labels=17
    )
    network = transformers.VitPoseForPoseEstimation(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    network.save_pretrained(folder, **saving)
    transformers.VitPoseImageProcessorPil().save_pretrained(folder)
    return network


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "simple", "name"),
    [
        (SMALL, True, "vitpose_s_simple"),
        (SMALL, False, "vitpose_s"),
        (BASE, False, "vitpose_b"),
        (PLUS, False, "vitpose_plus_s"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_heatmaps(tmp_path, options, simple, name):
    network = save_random(tmp_path, options, simple)
    checkpoint = load_vitpose(tmp_path)
    assert checkpoint.spec.network == name
    x = np.random.default_rng(0).standard_normal((3, 256, 192, 3)).astype(np.float32)
    experts = np.array([0, 3, 5])
    index = {"dataset_index": torch.from_numpy(experts)} if "plus" in name else {}
    with torch.no_grad():
        expected = network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), **index).heatmaps
    expected = expected.numpy().transpose(0, 2, 3, 1)
    module, _ = checkpoint.spec.build()
    expert = jnp.asarray(experts) if "plus" in name else None
    actual = jax.jit(module.apply)(checkpoint.variables, jnp.asarray(x), expert=expert)
    assert expected.std() > 0.1
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def is_regular(heatmaps):
    """Where the refinement of a peak is a step of at most one pixel towards a maximum.

    Maps of a random network also have plateaus, ridges and saddles; there the step is arbitrary.

    Args:
      heatmaps: (b, k, h, w).
    """
    smooth = scipy.ndimage.gaussian_filter(heatmaps, 0.8, radius=5, axes=(2, 3))
    surface = np.pad(np.log(np.clip(smooth, 0.001, 50)), [(0, 0), (0, 0), (1, 1), (1, 1)], "edge")
    regular = np.zeros(heatmaps.shape[:2], bool)
    for b, k in np.ndindex(*regular.shape):
        y, x = np.unravel_index(heatmaps[b, k].argmax(), heatmaps.shape[2:])
        (nw, n, ne), (w, here, e), (sw, s, se) = surface[b, k, y : y + 3, x : x + 3]
        del ne, sw
        dxx, dyy = e - 2 * here + w, s - 2 * here + n
        dxy = (se + nw + 2 * here - e - w - s - n) / 2
        hessian = np.array([[dxx, dxy], [dxy, dyy]])
        if np.linalg.eigvalsh(hessian).max() < -0.02:
            step = np.linalg.solve(hessian, [(e - w) / 2, (s - n) / 2])
            regular[b, k] = np.abs(step).max() < 1
    return regular


@pytest.mark.slow
def test_the_whole_path(tmp_path):
    """From an image and boxes to keypoints, within .05 pixels."""
    network = save_random(tmp_path, SMALL, simple=True)
    processor = transformers.VitPoseImageProcessorPil.from_pretrained(tmp_path)
    noise = np.random.default_rng(0).standard_normal((480, 640, 3))
    smooth = scipy.ndimage.gaussian_filter(noise, 12, axes=(0, 1))
    image = np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)
    boxes = np.array(  # xywh; crops that lie in the image, reduced by less than two
        [[100, 90, 120, 260], [300, 130, 160, 220], [150.3, 110.7, 130, 250], [400, 200, 80, 190]],
        np.float32,
    )
    inputs = processor(image, boxes=[boxes.tolist()], return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
    found = processor.post_process_pose_estimation(outputs, boxes=[boxes.tolist()])[0]
    expected = np.stack([person["keypoints"].numpy() for person in found])
    regular = is_regular(outputs.heatmaps.numpy())

    checkpoint = load_vitpose(tmp_path)
    module, codec = checkpoint.spec.build()
    spec = checkpoint.spec.crop
    affines = spec.image_from_crop(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
    crops = np.stack([crop(image, affine, spec.input_size) for affine in affines])
    theirs = np.asarray(inputs["pixel_values"]).transpose(0, 2, 3, 1)
    theirs = 255 * (theirs * np.array(codec.std) + np.array(codec.mean))
    assert np.abs(crops - theirs).max() < 1.01  # gray levels: one of both rounds, one truncates
    predict = make_predict(module, codec, checkpoint.spec.skeleton)

    def errors(crops):
        keypoints, _ = predict(checkpoint.variables, crops, affines)
        return np.abs(np.asarray(keypoints) - expected).max(-1)[regular]

    assert regular.mean() > 0.8
    assert errors(theirs.astype(np.float32)).max() < 0.05
    # A random network makes much of a gray level.
    assert np.quantile(errors(crops), 0.95) < 0.05


@pytest.mark.slow
def test_by_name(cached):
    """In shards, out of the cache of the hub, as prediction loads it."""
    network = save_random(cached, SMALL, simple=True, max_shard_size="40MB")
    assert len(list(cached.glob("model-*.safetensors"))) > 1
    model = load_pose_model("hf:somebody/network")
    assert model.spec.network == "vitpose_s_simple"
    x = np.random.default_rng(0).standard_normal((1, 256, 192, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).heatmaps
    expected = expected.numpy().transpose(0, 2, 3, 1)
    module, _ = model.build()
    actual = jax.jit(module.apply)(model.variables, jnp.asarray(x))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_a_backbone_of_mae_by_name(cached):
    """Each tensor has its place, and the position embeddings those of another grid."""
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(intermediate_size=1536, decoder_num_hidden_layers=1, **SMALL)
    network = transformers.ViTMAEForPreTraining(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    network.save_pretrained(cached)
    image = jax.ShapeDtypeStruct((1, 256, 192, 3), np.float32)
    shapes = jax.eval_shape(build_sppe("vitpose_s", 17).init, jax.random.key(0), image)["params"]
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, np.float32), dict(shapes))
    load_backbone("hf:somebody/network", "vitpose_s", (256, 192), params, {})
    found = params["backbone"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert np.isnan(params["keypoint_head"]["final_layer"]["kernel"]).all()

    block, theirs = found["blocks_3"], network.vit.layers[3]
    attention = theirs.attention
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    qkv = torch.cat([part.weight for part in parts])
    same = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    same(block["attn"]["qkv"]["kernel"], qkv.detach().numpy().T)
    for ours, layer in (
        (block["attn"]["proj"], attention.o_proj),
        (block["mlp"]["fc1"], theirs.mlp.fc1),
        (block["mlp"]["fc2"], theirs.mlp.fc2),
    ):
        same(ours["kernel"], layer.weight.detach().numpy().T)
        same(ours["bias"], layer.bias.detach().numpy())
    for name, layer in (("norm1", theirs.layernorm_before), ("norm2", theirs.layernorm_after)):
        same(block[name]["scale"], layer.weight.detach().numpy())
    patches = network.vit.embeddings.patch_embeddings.projection.weight.detach().numpy()
    same(found["patch_embed"]["kernel"], patches.transpose(2, 3, 1, 0))
    positions = jnp.asarray(network.vit.embeddings.position_embeddings.detach().numpy())
    expected = resample_positions(positions, (14, 14), (16, 12))
    np.testing.assert_allclose(found["pos_embed"], expected, atol=1e-5)
