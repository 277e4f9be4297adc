"""RMPE's network: STN, pose estimator, SDTN, and the parallel estimator that guides training.

Fang et al., RMPE, ICCV 2017, §3.1 and Fig. 4. The STN shows the estimator a better placed part of
the crop; the SDTN takes its heatmaps back into the crop's frame. While training, a frozen estimator
looks at the same view without an SDTN: its loss against the pose in the well-placed box's frame
tells the STN where that box is.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from rmpe_jax.ops.spatial_transformer import affine_sample, invert_theta, theta_on_raster

Heatmaps = Float[Array, "b h w k"] | list[Float[Array, "b h w k"]]


class TrainingOutputs(NamedTuple):
    """What `RMPE` gives while training.

    Attributes:
      heatmaps: of the crop.
      parallel_heatmaps: of the STN's view, by the frozen branch; None without one.
      theta: pixels of the view to pixels of the crop, normalised.
    """

    heatmaps: Heatmaps
    parallel_heatmaps: Heatmaps | None
    theta: Float[Array, "b 2 3"]


class RMPE(nn.Module):
    """Crops (b, H, W, 3) to heatmaps (b, h, w, k) of these crops, or one per stack of the SPPE.

    `apply(variables, x, train=True)` gives `TrainingOutputs`. The parallel branch's parameters get
    no gradient, and its batch norms always use their statistics and never move them; an optimiser
    that decays weights must leave "parallel_sppe" out (`train.py` does).

    Attributes:
      sppe: of `build_sppe`.
      localization: of `build_localization`; in evaluation its theta is
        `apply(variables, x, method="theta")`.
      parallel_sppe: of `build_sppe`, or None. Not run outside of training.
      logits: the SPPE's maps are logits, of which 0 is no low value: what lies outside of the view
        counts as the lowest value in it, instead of 0.
      sstn: False leaves STN and SDTN out, which is the plain two-step system.
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
        # Initialisation makes the branch's parameters, whatever it is called with.
        if self.parallel_sppe is not None and (train or self.is_initializing()):
            parallel_heatmaps = self._parallel(self.parallel_sppe, view)
        return TrainingOutputs(heatmaps, parallel_heatmaps, theta) if train else heatmaps

    def theta(self, x: Float[Array, "b h w 3"], train: bool = False) -> Float[Array, "b 2 3"]:
        """Where the STN looks: pixels of its view to pixels of the crop, normalised."""
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
    """Each crop as its theta shows it, in the crop's size; eq. 1."""
    return jax.vmap(lambda image, theta: affine_sample(image, theta, _size(x)))(x, theta)


def sdtn(
    heatmaps: Float[Array, "b h w k"],
    theta: Float[Array, "b 2 3"],
    input_size: tuple[int, int],
    logits: bool = False,
) -> Float[Array, "b h w k"]:
    """Heatmaps of the STN's view back in the crop's frame; eqs. 2 and 3.

    Args:
      heatmaps: of the view.
      theta: that the STN used.
      input_size: (height, width) of the crop.
      logits: fill what the view did not show with each map's lowest value instead of 0.
    """
    size = _size(heatmaps)
    gamma = theta_on_raster(invert_theta(theta), input_size, size)
    # No gradient: the many empty pixels would all push the one lowest.
    floor = jax.lax.stop_gradient(heatmaps.min((1, 2), keepdims=True)) if logits else 0
    warped = jax.vmap(lambda maps, gamma: affine_sample(maps, gamma, size))(heatmaps - floor, gamma)
    return warped + floor


def _size(x: Float[Array, "b h w c"]) -> tuple[int, int]:
    return x.shape[1], x.shape[2]
