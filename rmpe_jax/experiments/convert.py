"""Checkpoints of other projects, written as model files that everything here can use."""

import os

import jax

from rmpe_jax.config import spec_from_dict, spec_to_dict
from rmpe_jax.interop.alphapose import load_alphapose
from rmpe_jax.model_io.pose_model import PoseModel, save_pose_model
from rmpe_jax.models.spec import require_pose
from rmpe_jax.pose_nms import PoseNmsParams


def convert_alphapose(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    skeleton: str = "",
    input_size: tuple[int, int] = (256, 192),
    loss: str = "",
) -> PoseModel:
    """Converts a checkpoint of AlphaPose to a model file, with its crops, decoding and NMS.

    Args:
      path: a `.pth` file.
      out: the file to be written, by custom `NAME.safetensors`.
      skeleton: not stored in the file, see `load_alphapose`.
      input_size: likewise.
      loss: likewise.

    Raises:
      UserError: the checkpoint cannot be converted, a value cannot be, or `out` not be written.
    """
    checkpoint = load_alphapose(path, skeleton=skeleton, input_size=input_size, loss=loss)
    whole_body = checkpoint.spec.skeleton.num_keypoints > 110  # AlphaPose's own distinction
    nms = PoseNmsParams.preset("alphapose_whole_body" if whole_body else "alphapose")
    spec = require_pose(spec_from_dict(spec_to_dict(checkpoint.spec)))  # checks its values
    model = PoseModel(spec, checkpoint.variables, nms)
    model.build()  # says now, not at the first use, if network and input size do not fit
    about = {"converted_from": f"AlphaPose, {os.path.basename(path)}", "terms": _TERMS}
    save_pose_model(out, model, about=about)
    return model


_TERMS = "weights of AlphaPose: for non-commercial use, see its licence"


def summary(model: PoseModel) -> str:
    """One line on what was converted."""
    height, width = model.spec.input_size
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    return (
        f"{model.spec.network}, {parameters:,} parameters, {height}x{width} pixels, joints of "
        f"{model.spec.skeleton.name}, read by {model.spec.decode!r}"
    )
