"""The torch networks that benchmarks compare ours with have our layers."""

import jax
from same_outputs import assert_same_outputs, torch

from rmpe_jax.config import default_config, model_spec, parse_config
from rmpe_jax.interop.torch_names import from_torch
from rmpe_jax.model_io.pose_model import PoseModel


def spec_and_shapes(name):
    config = default_config()
    config.model.name = name
    spec = model_spec(parse_config(config))
    images = jax.ShapeDtypeStruct((1, 64, 32, 3), "float32")
    return spec, jax.eval_shape(spec.build()[0].init, jax.random.key(0), images)


def test_litepose_has_our_outputs(part):
    torch.manual_seed(0)
    theirs = part("torch_litepose").LitePose().eval()
    for tensor in theirs.state_dict().values():
        if tensor.ndim == 1:  # biases, and what norms have: at first they do nothing
            tensor += 0.2 * torch.rand(tensor.shape)
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    for name in [name for name in state if name.endswith("_depthwise.weight")]:
        state[name.removesuffix(".weight")] = state.pop(name)[:, 0].transpose(1, 2, 0)
    spec, shapes = spec_and_shapes("litepose_effnet0_s")
    assert_same_outputs(theirs, PoseModel(spec, from_torch(shapes, state)))


def test_fastpose_has_our_number_of_parameters(part):
    theirs = part("torch_fastpose").FastPose50().parameters()
    _, shapes = spec_and_shapes("fastpose_res50")
    ours = jax.tree.leaves(shapes["params"])
    assert sum(p.numel() for p in theirs) == sum(leaf.size for leaf in ours)
