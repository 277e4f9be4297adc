"""Parametric pose NMS (Fang et al., ICCV 2017, section 3.2), its parameters learned from data."""

from rmpe_jax.pose_nms.params import (
    Form,
    PoseNmsParams,
    load_params,
    params_from_dict,
    params_to_dict,
)
from rmpe_jax.pose_nms.suppression import Poses, Proposals, pose_nms, pose_nms_batch

__all__ = [
    "Form",
    "PoseNmsParams",
    "Poses",
    "Proposals",
    "load_params",
    "params_from_dict",
    "params_to_dict",
    "pose_nms",
    "pose_nms_batch",
]
