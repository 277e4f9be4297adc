"""Parametric pose NMS (Fang et al., ICCV 2017, section 3.2), its parameters learned from data."""

from rmpe_jax.pose_nms.params import (
    NmsVariant,
    PoseNmsParams,
    load_params,
    params_from_dict,
    params_to_dict,
)
from rmpe_jax.pose_nms.suppression import NmsResult, PoseCandidates, pose_nms, pose_nms_batch

__all__ = [
    "NmsResult",
    "NmsVariant",
    "PoseCandidates",
    "PoseNmsParams",
    "load_params",
    "params_from_dict",
    "params_to_dict",
    "pose_nms",
    "pose_nms_batch",
]
