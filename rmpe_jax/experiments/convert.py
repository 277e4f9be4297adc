"""Converts checkpoints of other projects to model files."""

import os

import jax

from rmpe_jax.config import spec_from_dict, spec_to_dict
from rmpe_jax.interop.alphapose import Checkpoint, load_alphapose
from rmpe_jax.interop.mmpose import load_mmpose
from rmpe_jax.interop.vitpose import load_vitpose
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
    """Converts a checkpoint of AlphaPose to a model file with AlphaPose's crops, decoding and NMS.

    Args:
      path: a `.pth` file.
      out: the file to write, usually `NAME.safetensors`.
      skeleton: joint set; not stored in the checkpoint, see `load_alphapose`.
      input_size: (height, width) of the crops; not stored in the checkpoint.
      loss: loss of the training; not stored in the checkpoint.

    Returns:
      The model that was written.

    Raises:
      UserError: the checkpoint cannot be converted, an argument is invalid, or `out` cannot be
        written.
    """
    checkpoint = load_alphapose(path, skeleton=skeleton, input_size=input_size, loss=loss)
    whole_body = checkpoint.spec.skeleton.num_keypoints > 110  # the threshold of AlphaPose
    nms = PoseNmsParams.preset("alphapose_whole_body" if whole_body else "alphapose")
    about = {
        "converted_from": f"AlphaPose, {os.path.basename(path)}",
        "terms": "weights of AlphaPose: for non-commercial use, see its license",
    }
    return _save(checkpoint, out, nms, about)


def convert_mmpose(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    skeleton: str = "",
    input_size: tuple[int, int] | None = None,
    codec: str = "",
) -> PoseModel:
    """Converts a checkpoint of MMPose to a model file; see `load_mmpose`.

    Args:
      path: a `.pth` file.
      out: the file to write, usually `NAME.safetensors`.
      skeleton: joint set; by default by the number of joints.
      input_size: (height, width) of the crops; not stored in the checkpoint, except for a
        ViTPose and an RTMPose.
      codec: of the training, one of `interop.mmpose.CODECS`; not stored in the checkpoint.

    Returns:
      The model that was written.

    Raises:
      UserError: as `convert_alphapose`.
    """
    checkpoint = load_mmpose(path, skeleton=skeleton, input_size=input_size, codec=codec)
    about = {
        "converted_from": f"MMPose, {os.path.basename(path)}",
        "terms": "those of the weights that it was converted from",
    }
    return _save(checkpoint, out, None, about)


def convert_vitpose(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    skeleton: str = "",
    input_size: tuple[int, int] | None = None,
    expert: int = 0,
) -> PoseModel:
    """Converts a checkpoint of ViTPose or ViTPose+ to a model file; see `load_vitpose`.

    Args:
      path: a folder of Hugging Face, or a `.pth` file.
      out: the file to write, usually `NAME.safetensors`.
      skeleton: joint set; by default by the number of joints.
      input_size: (height, width) of the crops; by default that of the checkpoint.
      expert: of ViTPose+, an index into `models.vitpose.EXPERTS`.

    Returns:
      The model that was written.

    Raises:
      UserError: as `convert_alphapose`.
    """
    checkpoint = load_vitpose(path, skeleton=skeleton, input_size=input_size, expert=expert)
    about = {
        "converted_from": f"ViTPose, {os.path.basename(os.path.abspath(path))}",
        "terms": "those of the weights that it was converted from",
    }
    return _save(checkpoint, out, None, about)


def _save(
    checkpoint: Checkpoint, out: str | os.PathLike, nms: PoseNmsParams | None, about: dict[str, str]
) -> PoseModel:
    spec = require_pose(spec_from_dict(spec_to_dict(checkpoint.spec)))  # validates
    model = PoseModel(spec, checkpoint.variables, nms)
    model.build()  # raises now, not at the first use, if network and input size do not fit
    save_pose_model(out, model, about=about)
    return model


def summary(model: PoseModel) -> str:
    """One line that describes a converted model."""
    height, width = model.spec.input_size
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    decode = repr(model.spec.decode) if model.spec.has_heatmaps else "SimCC"
    return (
        f"{model.spec.network}, {parameters:,} parameters, {height}x{width} pixels, joints of "
        f"{model.spec.skeleton.name}, decoded by {decode}"
    )
