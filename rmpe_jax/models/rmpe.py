"""The RMPE network: STN, pose estimator (SPPE), SDTN, and the parallel SPPE that guides training.

Fang et al., RMPE, ICCV 2017, §3.1 and Fig. 4. The STN shows the SPPE a view: a better placed part
of the crop. The SDTN maps the heatmaps of the view back to the frame of the crop. In training, a
frozen parallel SPPE also sees the view, without an SDTN. Its target is the pose in the frame of the
well-placed box, so its loss teaches the STN where that box is.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from rmpe_jax.ops.spatial_transformer import affine_sample, invert_theta, theta_on_raster

HeatmapArray = Float[Array, "b heatmap_h heatmap_w k"]
Heatmaps = HeatmapArray | list[HeatmapArray]  # a list has one array per stack of the SPPE


class TrainingOutputs(NamedTuple):
    """Outputs of `RMPE` in training.

    Attributes:
      heatmaps: heatmaps in the frame of the crop.
      parallel_heatmaps: heatmaps in the frame of the STN's view, from the frozen parallel branch,
        or None without that branch.
      theta: affine maps from pixels of the view to pixels of the crop, in normalized coordinates.
    """

    heatmaps: Heatmaps
    parallel_heatmaps: Heatmaps | None
    theta: Float[Array, "b 2 3"]


class RMPE(nn.Module):
    """Maps crops (b, H, W, 3) to heatmaps (b, h, w, k) in the frames of the crops.

    An SPPE with stacks gives a list of heatmaps, one array per stack. With `train=True` the output
    is `TrainingOutputs`.

    The parallel branch gets no gradient, and its batch norms use their running statistics and never
    update them. An optimizer with weight decay must exclude "parallel_sppe" (`train.py` does).

    Attributes:
      sppe: the pose estimator, from `build_sppe`.
      localization: the localization network of the STN, from `build_localization`. Get its theta by
        `apply(variables, x, method="theta")`.
      parallel_sppe: the frozen branch, from `build_sppe`, or None. Only runs in training.
      logits: the SPPE's heatmaps are logits. For logits, 0 is not a background value, so pixels
        outside the view are filled with each heatmap's minimum instead of 0.
      sstn: False removes STN and SDTN, which gives the plain two-step system.
    """

    sppe: nn.Module
    localization: nn.Module
    parallel_sppe: nn.Module | None = None
    logits: bool = False
    sstn: bool = True

    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool = False
    ) -> Heatmaps | TrainingOutputs:
        if not self.sstn:
            return self.sppe(x, train)
        theta = self.theta(x, train)
        view = stn(x, theta)
        heatmaps = jax.tree.map(
            lambda maps: sdtn(maps, theta, _size(x), self.logits), self.sppe(view, train)
        )
        parallel_heatmaps = None
        # Initialization creates the branch's parameters even with train=False.
        if self.parallel_sppe is not None and (train or self.is_initializing()):
            parallel_heatmaps = self._parallel(self.parallel_sppe, view)
        return TrainingOutputs(heatmaps, parallel_heatmaps, theta) if train else heatmaps

    def theta(self, x: Float[Array, "b h w 3"], train: bool = False) -> Float[Array, "b 2 3"]:
        """Affine maps from pixels of the STN's view to pixels of the crop, normalized."""
        return self.localization(x, train)

    def _parallel(self, branch: nn.Module, view: Float[Array, "b h w 3"]) -> Heatmaps:
        frozen = nn.map_variables(
            lambda branch, x: branch(x, train=False),
            "params",
            trans_in_fn=jax.lax.stop_gradient,
            init=self.is_initializing(),
        )
        return frozen(branch, view)


def stn(x: Float[Array, "b h w c"], theta: Float[Array, "b 2 3"]) -> Float[Array, "b h w c"]:
    """Samples each crop by its theta, eq. 1. The views have the size of the crops.

    Args:
      x: crops or other images.
      theta: affine maps from pixels of the view to pixels of the crop, in normalized coordinates.
    """
    return jax.vmap(lambda image, theta: affine_sample(image, theta, _size(x)))(x, theta)


def sdtn(
    heatmaps: Float[Array, "b h w k"],
    theta: Float[Array, "b 2 3"],
    input_size: tuple[int, int],
    logits: bool = False,
) -> Float[Array, "b h w k"]:
    """Maps heatmaps from the STN's view back to the frame of the crop, eqs. 2 and 3.

    Args:
      heatmaps: heatmaps in the frame of the view.
      theta: affine maps used by the STN, from the view to the crop.
      input_size: (height, width) of the crop.
      logits: fill pixels outside the view with each heatmap's minimum instead of 0.
    """
    size = _size(heatmaps)
    gamma = theta_on_raster(invert_theta(theta), input_size, size)
    # No gradient: the many pixels outside the view would all push on the one minimum.
    background = jax.lax.stop_gradient(heatmaps.min((1, 2), keepdims=True)) if logits else 0
    warped = jax.vmap(lambda maps, gamma: affine_sample(maps, gamma, size))(
        heatmaps - background, gamma
    )
    return warped + background


def _size(x: Float[Array, "b h w c"]) -> tuple[int, int]:
    return x.shape[1], x.shape[2]
