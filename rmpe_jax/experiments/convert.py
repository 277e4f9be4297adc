"""Checkpoints of other projects, written as model files that everything here can use."""

import os

import jax

from rmpe_jax.config import default_config, validate
from rmpe_jax.interop.alphapose import load_alphapose
from rmpe_jax.model_io.pose_model import PoseModel, save_pose_model
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
      skeleton, input_size, loss: what the file does not tell, as in `load_alphapose`.

    Raises:
      UserError: the checkpoint cannot be converted, a value cannot be, or `out` not be written.
    """
    checkpoint = load_alphapose(path, skeleton=skeleton, input_size=input_size, loss=loss)
    config = default_config()
    config.update(checkpoint.config)
    validate(config)
    whole_body = checkpoint.module.num_keypoints > 110  # AlphaPose's own distinction
    nms = PoseNmsParams.preset("alphapose_whole_body" if whole_body else "alphapose")
    model = PoseModel(config, checkpoint.variables, nms)
    model.build()  # says now, not at the first use, if network and input size do not fit
    about = {"converted_from": f"AlphaPose, {os.path.basename(path)}", "terms": _TERMS}
    save_pose_model(out, model, about=about)
    return model


_TERMS = "weights of AlphaPose: for non-commercial use, see its licence"


def summary(model: PoseModel) -> str:
    """One line on what was converted."""
    height, width = model.config.model.input_size
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    return (
        f"{model.config.model.name}, {parameters:,} parameters, {height}x{width} pixels, joints of "
        f"{model.config.model.skeleton}, read by {model.config.codec.decode!r}"
    )
