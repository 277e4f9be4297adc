"""The RMPE network: STN, pose estimator (SPPE), SDTN, and the parallel SPPE that guides training.

Fang et al., RMPE, ICCV 2017, §3.1 and Fig. 4. The STN shows the SPPE a view: a better placed part
of the crop. The SDTN maps the heatmaps of the view back to the frame of the crop. In training, a
frozen parallel SPPE also sees the view, without an SDTN. Its target is the pose in the frame of the
well-placed box, so its loss teaches the STN where that box is. The localization network learns from
the gradient of both losses, as in the paper, or from central differences (`ops.differences`).

Theta maps a raster of the crop's size to the crop. The view is the central window of that raster,
or all of it where view and crop have the same size, as in the paper.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmpe_jax.codecs.view import ViewHeatmaps
from rmpe_jax.errors import UserError
from rmpe_jax.ops.differences import NUM_PROBES, probe_thetas
from rmpe_jax.ops.spatial_transformer import affine_sample, invert_theta, theta_on_raster

HeatmapArray = Float[Array, "b heatmap_h heatmap_w k"]
Heatmaps = HeatmapArray | list[HeatmapArray]  # a list has one array per stack of the SPPE
ViewArray = Float[Array, "b view_h view_w k"]
OfView = ViewArray | list[ViewArray]
ProbeArray = Float[Array, "b probes heatmap_h heatmap_w k"]
ProbeHeatmaps = ProbeArray | list[ProbeArray]


class TrainingOutputs(NamedTuple):
    """Outputs of `RMPE` in training.

    Attributes:
      heatmaps: heatmaps in the frame of the crop.
      parallel_heatmaps: heatmaps in the frame of the STN's view, from the frozen parallel branch,
        or None without that branch.
      theta: affine maps to pixels of the crop, in normalized coordinates of the crop, see `stn`.
      probe_heatmaps: with `RMPE.difference_step`, heatmaps (b, 8, h, w, k) at the thetas of
        `ops.differences.probe_thetas`; of the parallel branch in the frames of the views, or else,
        without that branch, of the SPPE in the frame of the crop.
    """

    heatmaps: Heatmaps
    parallel_heatmaps: OfView | None
    theta: Float[Array, "b 2 3"]
    probe_heatmaps: ProbeHeatmaps | None = None


class RMPE(nn.Module):
    """Maps crops (b, H, W, 3) to heatmaps (b, h, w, k) in the frames of the crops.

    An SPPE with stacks gives a list of heatmaps, one array per stack. With `train=True` the output
    is `TrainingOutputs`. Otherwise, with `in_view`, it is `ViewHeatmaps`.

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
      difference_step: if not None, training probes the view at 8 thetas that are this step away,
        and the samplers get a constant theta: no loss on heatmaps has a gradient in the
        localization network. What guides it is made of `TrainingOutputs.probe_heatmaps`. Probes
        are forward passes, without gradient and with the running statistics of batch norms.
      in_view: outside of training, give the heatmaps of the view and theta, without SDTN.
      view_size: (height, width) of the STN's views, which is what the SPPE works at; None: that of
        the crops.
    """

    sppe: nn.Module
    localization: nn.Module
    parallel_sppe: nn.Module | None = None
    logits: bool = False
    sstn: bool = True
    difference_step: float | None = None
    in_view: bool = False
    view_size: tuple[int, int] | None = None

    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool = False
    ) -> Heatmaps | ViewHeatmaps | TrainingOutputs:
        if not self.sstn:
            return self.sppe(x, train)
        theta = self.theta(x, train)
        placement, probes = theta, None
        if self.difference_step is not None:
            placement = jax.lax.stop_gradient(theta)
            # Before the SPPE's batch norms update their statistics.
            probes = self._probes(x, placement, self.difference_step) if train else None
        view = stn(x, placement, self.view_size)
        heatmaps = self.sppe(view, train)
        parallel_heatmaps = None
        # Initialization creates the branch's parameters even with train=False.
        if self.parallel_sppe is not None and (train or self.is_initializing()):
            parallel_heatmaps = self._frozen(self.parallel_sppe, view)
        if self.in_view and not train:
            return ViewHeatmaps(heatmaps, theta)
        heatmaps = self._to_crop(heatmaps, placement, _size(x))
        if not train:
            return heatmaps
        return TrainingOutputs(heatmaps, parallel_heatmaps, theta, probes)

    def theta(self, x: Float[Array, "b h w 3"], train: bool = False) -> Float[Array, "b 2 3"]:
        """Affine maps to pixels of the crop, in normalized coordinates of the crop, see `stn`."""
        return self.localization(x, train)

    def _to_crop(
        self, heatmaps: OfView, theta: Float[Array, "b 2 3"], size: tuple[int, int]
    ) -> Heatmaps:
        def to_crop(maps: ViewArray) -> HeatmapArray:
            return sdtn(maps, theta, size, self.logits, self.view_size)

        return jax.tree.map(to_crop, heatmaps)

    def _probes(
        self, x: Float[Array, "b h w 3"], theta: Float[Array, "b 2 3"], step: float
    ) -> ProbeHeatmaps:
        """Heatmaps of the branch that guides, at all probes, in one batch."""
        thetas = probe_thetas(theta, step)
        place = functools.partial(stn, x, view_size=self.view_size)
        views = jax.vmap(place, in_axes=1, out_axes=1)(thetas)
        # The probes of a crop stay together, so each device keeps its own crops.
        views, thetas = (values.reshape(-1, *values.shape[2:]) for values in (views, thetas))
        if self.parallel_sppe is not None:
            heatmaps = self._frozen(self.parallel_sppe, views)
        else:
            heatmaps = self._to_crop(self._frozen(self.sppe, views), thetas, _size(x))
        return jax.tree.map(lambda maps: maps.reshape(-1, NUM_PROBES, *maps.shape[1:]), heatmaps)

    def _frozen(self, branch: nn.Module, view: Float[Array, "b h w 3"]) -> OfView:
        """Heatmaps of a branch that gets no gradient and keeps its statistics."""
        frozen = nn.map_variables(
            lambda branch, x: branch(x, train=False),
            "params",
            trans_in_fn=jax.lax.stop_gradient,
            init=self.is_initializing(),
        )
        return frozen(branch, view)


def stn(
    x: Float[Array, "b h w c"],
    theta: Float[Array, "b 2 3"],
    view_size: tuple[int, int] | None = None,
) -> Float[Array, "b view_h view_w c"]:
    """Samples each crop by its theta, eq. 1.

    Args:
      x: crops or other images.
      theta: affine maps from a raster of the crop's size to pixels of the crop, in normalized
        coordinates. The identity gives the central window of the crop.
      view_size: (height, width) of the views, which are the central windows of that raster; by
        default that of the crops.
    """
    size = _size(x)

    def sample(image: Float[Array, "h w c"], theta: Float[Array, "2 3"]):
        return affine_sample(image, theta, view_size or size, window_of=size)

    return jax.vmap(sample)(x, theta)


def sdtn(
    heatmaps: Float[Array, "b view_h view_w k"],
    theta: Float[Array, "b 2 3"],
    input_size: tuple[int, int],
    logits: bool = False,
    view_size: tuple[int, int] | None = None,
) -> Float[Array, "b h w k"]:
    """Maps heatmaps from the STN's view back to the frame of the crop, eqs. 2 and 3.

    The heatmaps of the crop have the resolution of those of the view.

    Args:
      heatmaps: heatmaps in the frame of the view.
      theta: affine maps used by the STN, see `stn`.
      input_size: (height, width) of the crop.
      logits: fill pixels outside the view with each heatmap's minimum instead of 0.
      view_size: (height, width) of the view; by default that of the crop.

    Raises:
      UserError: the view's heatmaps do not lie on the pixels of the crop's heatmaps.
    """
    # No gradient: the many pixels outside the view would all push on the one minimum.
    background = jax.lax.stop_gradient(heatmaps.min((1, 2), keepdims=True)) if logits else 0
    maps = heatmaps - background
    if view_size is not None and view_size != input_size:
        maps = _centered(maps, view_size, input_size)
    size = _size(maps)
    gamma = theta_on_raster(invert_theta(theta), input_size, size)
    warped = jax.vmap(lambda maps, gamma: affine_sample(maps, gamma, size))(maps, gamma)
    return warped + background


def _centered(
    maps: Float[Array, "b view_h view_w k"], view_size: tuple[int, int], input_size: tuple[int, int]
) -> Float[Array, "b h w k"]:
    """Heatmaps of the central window of a crop as heatmaps of the crop, 0 around the window.

    Sampling outside an image gives 0 too, so this is the inverse of the map from the window.
    """
    size = crop_heatmap_size(_size(maps), view_size, input_size)
    margins = [((full - part) // 2,) * 2 for full, part in zip(size, _size(maps), strict=True)]
    return jnp.pad(maps, ((0, 0), *margins, (0, 0)))


def crop_heatmap_size(
    heatmap_size: tuple[int, int], view_size: tuple[int, int], input_size: tuple[int, int]
) -> tuple[int, int]:
    """(height, width) of the heatmaps of a crop.

    Args:
      heatmap_size: (height, width) of the heatmaps of the view.
      view_size: (height, width) of the view.
      input_size: (height, width) of the crop.

    Raises:
      UserError: the margin around the view is no whole number of heatmap pixels.
    """
    sides = []
    for side, view, full in zip(heatmap_size, view_size, input_size, strict=True):
        margin, rest = divmod(side * (full - view), 2 * view)
        if rest:
            raise UserError(
                f"{side} heatmap pixels for {view} of {full} crop pixels leave no whole margin; "
                f"make model.input_size larger than the view by multiples of {2 * view // side}"
            )
        sides.append(side + 2 * margin)
    return sides[0], sides[1]


def _size(x: Float[Array, "b h w c"]) -> tuple[int, int]:
    return x.shape[1], x.shape[2]
