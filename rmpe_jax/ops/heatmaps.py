"""Heatmaps of joints: encode keypoints as Gaussians, decode maps to keypoints, merge a flip test.

Heatmaps are (…, h, w, k), one map per joint; keypoints are (…, k, 2) in (x, y) heatmap pixels with
pixel centres at integers (`geometry.heatmap_from_crop` leads there). Leading dimensions are free,
everything is pure and runs under `jit`, `vmap` and `grad`, in float32.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

from rmpe_jax.errors import UserError

# Sums over pixels give coordinates; the default precision of accelerators would round these.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def encode(
    keypoints: Float[Array, "*b k 2"],
    visible: Shaped[Array, "*b k"],
    heatmap_size: tuple[int, int],
    sigma: float,
    integer_centre: bool = False,
) -> tuple[Float[Array, "*b h w k"], Float[Array, "*b k"]]:
    """Draws each joint as a Gaussian of amplitude 1.

    A joint that is not visible, not finite, or further than 3 sigma outside of the map (so that the
    patch of 6 sigma + 1 pixels about it misses the map) has weight 0 and an empty map. A joint
    outside, but nearer, keeps weight 1 and the part of its Gaussian that reaches into the map.

    Args:
      keypoints: heatmap pixels; may be NaN where not visible.
      visible: positive (1 or 2, or True) where the joint is annotated.
      heatmap_size: (height, width).
      sigma: standard deviation, heatmap pixels.
      integer_centre: draw as AlphaPose does: the centre rounded to floor(x + 1/2), nothing further
        than 3 sigma from it in x or y. The default keeps the fraction and does not cut.

    Returns:
      heatmaps float32 and weights, 1.0 or 0.0.
    """
    height, width = heatmap_size
    known = (visible > 0) & jnp.isfinite(keypoints).all(-1)
    # NaN is replaced before the arithmetic: masked afterwards, it would still poison gradients.
    centres = jnp.where(known[..., None], keypoints, 0).astype(jnp.float32)
    if integer_centre:
        centres = jnp.floor(centres + 0.5)
    last = jnp.array([width - 1, height - 1])
    near = ((centres >= -3 * sigma) & (centres <= last + 3 * sigma)).all(-1)
    weights = (known & near).astype(jnp.float32)
    profile = functools.partial(_profile, sigma=sigma, cut=integer_centre)
    x, y = profile(centres[..., 0], width), profile(centres[..., 1], height)
    return y[..., :, None, :] * (x * weights[..., None, :])[..., None, :, :], weights


def _profile(
    centres: Float[Array, "*b k"], length: int, sigma: float, cut: bool
) -> Float[Array, "*b length k"]:
    offsets = jnp.arange(length)[:, None] - centres[..., None, :]
    bell = jnp.exp(-(offsets**2) / (2 * sigma**2))
    return jnp.where(jnp.abs(offsets) <= 3 * sigma, bell, 0) if cut else bell


def decode(
    heatmaps: Float[Array, "*b h w k"], method: str = "quarter", sigma: float = 2.0
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Finds one keypoint per map.

    Maps are high where the joint is: the output of a network trained on Gaussians, or, of a network
    that puts out logits, `jax.nn.sigmoid(logits)` or `spatial_softmax(logits)`; never the logits.
    A map without a positive value gives the keypoint (0, 0).

    Methods:
      argmax: the highest pixel; of equal ones the first, row by row.
      quarter: and a quarter pixel towards the higher neighbour in x and in y, where
        1 < x < w - 1 and 1 < y < h - 1 (Newell et al., ECCV 2016; the rule of AlphaPose's code).
      dark: and one Newton step on the logarithm of the map smoothed by a Gaussian, at most one
        pixel in x and in y, where 1 < x < w - 2, 1 < y < h - 2 and the Hessian is that of a peak
        (Zhang et al., Distribution-Aware Coordinate Representation, CVPR 2020).
      integral: the mean position under the map, scaled to the sum 1; negative values count as 0
        (Sun et al., ECCV 2018). On `sigmoid(logits)` this is AlphaPose's two-step normalisation.

    Args:
      heatmaps: see above.
      method: one of the four names.
      sigma: of the Gaussians the network was trained on; used by "dark" alone.

    Returns:
      keypoints in heatmap pixels; scores, the highest value of each map. In a map that sums to 1
      this value depends on the spread: see `local_mass`.

    Raises:
      UserError: no such method.
    """
    heatmaps = heatmaps.astype(jnp.float32)
    peaks, scores = _argmax(heatmaps)
    match method:
        case "argmax":
            keypoints = peaks.astype(jnp.float32)
        case "quarter":
            keypoints = peaks + _quarter_step(heatmaps, peaks)
        case "dark":
            keypoints = peaks + _newton_step(_log_blur(heatmaps, sigma), peaks)
        case "integral":
            keypoints = _mean_position(heatmaps)
        case _:
            raise UserError(
                f"no way to decode heatmaps is called {method!r}: "
                "use one of argmax, quarter, dark, integral"
            )
    return keypoints, scores


def _argmax(
    heatmaps: Float[Array, "*b h w k"],
) -> tuple[Int[Array, "*b k 2"], Float[Array, "*b k"]]:
    *batch, height, width, k = heatmaps.shape
    flat = heatmaps.reshape(*batch, height * width, k)
    index, scores = flat.argmax(-2), flat.max(-2)
    peaks = jnp.stack([index % width, index // width], -1)
    return jnp.where(scores[..., None] > 0, peaks, 0), scores


def _value_at(
    heatmaps: Float[Array, "*b h w k"], x: Int[Array, "*b k"], y: Int[Array, "*b k"]
) -> Float[Array, "*b k"]:
    """One pixel of each map; meaningless, but finite, outside."""
    *batch, height, width, k = heatmaps.shape
    flat = heatmaps.reshape(*batch, height * width, k)
    index = (y * width + x)[..., None, :]
    return jnp.take_along_axis(flat, index, axis=-2, mode="clip")[..., 0, :]


def _quarter_step(
    heatmaps: Float[Array, "*b h w k"], peaks: Int[Array, "*b k 2"]
) -> Float[Array, "*b k 2"]:
    height, width = heatmaps.shape[-3:-1]
    x, y = peaks[..., 0], peaks[..., 1]
    at = functools.partial(_value_at, heatmaps)
    slope = jnp.stack([at(x + 1, y) - at(x - 1, y), at(x, y + 1) - at(x, y - 1)], -1)
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    return jnp.where(inside[..., None], 0.25 * jnp.sign(slope), 0)


def _log_blur(heatmaps: Float[Array, "*b h w k"], sigma: float) -> Float[Array, "*b h w k"]:
    """Logarithm of the maps smoothed by a Gaussian of 11 taps for sigma 2, 17 for sigma 3.

    The kernel's sum is left out: in the logarithm it is a constant.
    """

    def kernel(length: int) -> Float[Array, "n n"]:
        offsets = jnp.arange(length)[:, None] - jnp.arange(length)
        bell = jnp.exp(-(offsets**2) / (2 * sigma**2))
        return jnp.where(jnp.abs(offsets) <= jnp.ceil(2.5 * sigma), bell, 0)

    height, width = heatmaps.shape[-3:-1]
    blurred = _einsum("yh,...hwk,xw->...yxk", kernel(height), heatmaps, kernel(width))
    return jnp.log(jnp.maximum(blurred, 1e-10))


def _newton_step(
    surface: Float[Array, "*b h w k"], peaks: Int[Array, "*b k 2"]
) -> Float[Array, "*b k 2"]:
    """-H⁻¹ g by central differences, within ±1; 0 where the surface has no maximum to step to."""
    height, width = surface.shape[-3:-1]
    x, y = peaks[..., 0], peaks[..., 1]
    at = functools.partial(_value_at, surface)
    dx = (at(x + 1, y) - at(x - 1, y)) / 2
    dy = (at(x, y + 1) - at(x, y - 1)) / 2
    dxx = (at(x + 2, y) - 2 * at(x, y) + at(x - 2, y)) / 4
    dyy = (at(x, y + 2) - 2 * at(x, y) + at(x, y - 2)) / 4
    falling = at(x + 1, y - 1) + at(x - 1, y + 1)
    dxy = (at(x + 1, y + 1) + at(x - 1, y - 1) - falling) / 4
    det = dxx * dyy - dxy**2
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    usable = inside & (dxx < 0) & (det > 1e-12)
    step = jnp.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1)
    step = jnp.clip(step / jnp.where(usable, det, 1)[..., None], -1, 1)
    return jnp.where(usable[..., None], step, 0)


def _mean_position(heatmaps: Float[Array, "*b h w k"]) -> Float[Array, "*b k 2"]:
    height, width = heatmaps.shape[-3:-1]
    mass = jnp.maximum(heatmaps, 0)
    total = mass.sum((-3, -2))
    x = _einsum("...wk,w->...k", mass.sum(-3), jnp.arange(width, dtype=jnp.float32))
    y = _einsum("...hk,h->...k", mass.sum(-2), jnp.arange(height, dtype=jnp.float32))
    return jnp.stack([x, y], -1) / jnp.where(total > 0, total, 1)[..., None]


def spatial_softmax(logits: Float[Array, "*b h w k"]) -> Float[Array, "*b h w k"]:
    """Maps that sum to 1 over their positions, float32."""
    return jax.nn.softmax(logits.astype(jnp.float32), axis=(-3, -2))


def local_mass(
    heatmaps: Float[Array, "*b h w k"], keypoints: Float[Array, "*b k 2"], radius: int = 1
) -> Float[Array, "*b k"]:
    """Sum of each map over the (2 radius + 1)² pixels about its keypoint, rounded.

    The score of a keypoint in a map that sums to 1: the probability that the joint lies there. The
    peak alone is low in every map that is spread over several pixels, as maps trained on Gaussians
    are, however sure the network is.
    """
    height, width = heatmaps.shape[-3:-1]
    centres = jnp.floor(keypoints + 0.5)[..., None, :, :]
    in_x = jnp.abs(jnp.arange(width)[:, None] - centres[..., 0]) <= radius
    in_y = jnp.abs(jnp.arange(height)[:, None] - centres[..., 1]) <= radius
    window = (in_y[..., :, None, :] & in_x[..., None, :, :]).astype(jnp.float32)
    return (heatmaps * window).sum((-3, -2))


def flip_and_merge(
    heatmaps: Float[Array, "*b h w k"],
    flipped_heatmaps: Float[Array, "*b h w k"],
    flip_indices: ArrayLike,
    shift: bool = False,
) -> Float[Array, "*b h w k"]:
    """The mean of a picture's heatmaps and those of its mirror image, mirrored back.

    Args:
      heatmaps: of the picture.
      flipped_heatmaps: of the picture mirrored left to right, as the network put them out.
      flip_indices: (k,), as in `Skeleton.flip_indices`.
      shift: move the mirrored maps one pixel to the right first, their column 0 staying as it is:
        AlphaPose's remedy for a crop alignment that is not symmetric. `geometry.heatmap_from_crop`
        is symmetric and needs none.
    """
    mirrored = flipped_heatmaps[..., ::-1, :][..., jnp.asarray(flip_indices)]
    if shift:
        mirrored = jnp.concatenate([mirrored[..., :1, :], mirrored[..., :-1, :]], -2)
    return (heatmaps + mirrored) / 2
