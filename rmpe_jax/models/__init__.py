"""Single-person pose estimators (SPPE), built by name."""

import difflib
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from rmpe_jax.errors import UserError
from rmpe_jax.models.fastpose import FastPose, FastPoseDuc
from rmpe_jax.models.hourglass import StackedHourglass
from rmpe_jax.models.hrnet import HRNet
from rmpe_jax.models.movenet import MOVENET_MODELS
from rmpe_jax.models.rtmpose import RTMPOSE_MODELS
from rmpe_jax.models.simplepose import SimplePose
from rmpe_jax.models.small import SMALL_MODELS
from rmpe_jax.models.vitpose import (
    VITPOSE_MODELS,
    TransformerOptions,
    ViTPose,
    require_attention,
)

_MODELS = {
    "fastpose_res18": partial(FastPose, depth=18, duc_features=(512, 512)),
    "fastpose_res34": partial(FastPose, depth=34, duc_features=(512, 512)),
    **{
        f"fastpose_res{depth}{plain}{wide}": partial(
            FastPose, depth=depth, se=not plain, duc_features=(1024, 1024 if wide else 512)
        )
        for depth in (50, 101, 152)
        for plain in ("", "_plain")  # "_plain": without squeeze-and-excitation
        for wide in ("", "_wide")  # "_wide": as published for 133 and 136 keypoints
    },
    "fastpose_duc_res50": partial(FastPoseDuc, depth=50, shuffle=True),
    "fastpose_duc_res152": partial(FastPoseDuc, depth=152),
    **{
        f"fastpose_duc_res{depth}_{kind}": partial(
            FastPoseDuc, depth=depth, se=kind != "plain", shuffle=kind == "shuffle"
        )
        for depth in (50, 101, 152)
        for kind in ("plain", "se", "shuffle")
    },
    "simplepose_res18": partial(SimplePose, depth=18),
    "simplepose_res50": partial(SimplePose, depth=50),
    "simplepose_res101": partial(SimplePose, depth=101),
    "simplepose_res152": partial(SimplePose, depth=152),
    "hrnet_w32": partial(HRNet, width=32),
    "hrnet_w48": partial(HRNet, width=48),
    "hourglass_2": partial(StackedHourglass, num_stacks=2),
    "hourglass_4": partial(StackedHourglass, num_stacks=4),
    "hourglass_8": partial(StackedHourglass, num_stacks=8),
    **SMALL_MODELS,
    **MOVENET_MODELS,
    **VITPOSE_MODELS,
    **RTMPOSE_MODELS,
}
SPPE_NAMES = tuple(_MODELS)


def build_sppe(
    name: str,
    num_keypoints: int,
    dtype: DTypeLike = jnp.float32,
    transformer: TransformerOptions | None = None,
) -> nn.Module:
    """Builds a single-person pose estimator.

    Call it as `module.apply(variables, x, train=False)` with images x (b, H, W, 3).

    Args:
      name: one of `SPPE_NAMES`.
      num_keypoints: k, the number of joints.
      dtype: precision of the arithmetic; parameters stay float32.
      transformer: options of a ViTPose; by default its defaults. Other networks have none.

    Returns:
      A module that maps images to float32 heatmaps (b, h, w, k). Hourglasses return a list of them,
      one per stack; RTMPose returns `SimccMaps` instead.

    Raises:
      UserError: the name is unknown, or the attention of `transformer` does not work here.
    """
    if name not in _MODELS:
        choices = difflib.get_close_matches(name, SPPE_NAMES, n=len(SPPE_NAMES), cutoff=0)
        raise UserError(f"model: there is no {name!r}; choose one of {', '.join(choices)}")
    module = _MODELS[name](num_keypoints=num_keypoints, dtype=dtype)
    if transformer is None or not isinstance(module, ViTPose):
        return module
    require_attention(transformer, dtype)
    return module.clone(options=transformer)
