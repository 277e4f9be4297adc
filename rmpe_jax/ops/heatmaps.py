"""Heatmaps of joints: encode keypoints as Gaussians, decode maps to keypoints, merge flipped maps.

Heatmaps are (…, h, w, k), one map per joint. Keypoints are (…, k, 2) in (x, y) heatmap pixels with
pixel centers at integers (see `geometry.heatmap_from_crop`). All functions are pure, accept leading
dimensions, work under `jit`, `vmap` and `grad`, and compute in float32.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

from rmpe_jax.errors import UserError

# Sums over pixels are coordinates, and accelerators round them in their default precision.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def encode(
    keypoints: Float[Array, "*b k 2"],
    visible: Shaped[Array, "*b k"],
    heatmap_size: tuple[int, int],
    sigma: float,
    integer_center: bool = False,
) -> tuple[Float[Array, "*b h w k"], Float[Array, "*b k"]]:
    """Draw each joint as a Gaussian of amplitude 1.

    A joint has weight 0 and an empty map if it is not visible, not finite, or more than 3 sigma
    outside the map, where the patch of 6 sigma + 1 pixels around it misses the map. A joint outside
    the map, but nearer, has weight 1 and the part of its Gaussian that is inside the map.

    Args:
      keypoints: heatmap pixels; may be NaN where not visible.
      visible: positive (1 or 2, or True) where the joint is annotated.
      heatmap_size: (height, width).
      sigma: standard deviation, heatmap pixels.
      integer_center: draw as AlphaPose does: round the center to floor(x + 1/2) and truncate the
        Gaussian at 3 sigma in x and in y. The default keeps the fraction and does not truncate.

    Returns:
      Heatmaps, and weights, 1.0 or 0.0; float32.
    """
    height, width = heatmap_size
    known = (visible > 0) & jnp.isfinite(keypoints).all(-1)
    # NaN is replaced before the arithmetic. If it were masked afterwards, gradients would be NaN.
    centers = jnp.where(known[..., None], keypoints, 0).astype(jnp.float32)
    if integer_center:
        centers = jnp.floor(centers + 0.5)
    last = jnp.array([width - 1, height - 1])
    near = ((centers >= -3 * sigma) & (centers <= last + 3 * sigma)).all(-1)
    weights = (known & near).astype(jnp.float32)
    profile = functools.partial(_profile, sigma=sigma, truncate=integer_center)
    x, y = profile(centers[..., 0], width), profile(centers[..., 1], height)
    return y[..., :, None, :] * (x * weights[..., None, :])[..., None, :, :], weights


def _profile(
    centers: Float[Array, "*b k"], length: int, sigma: float, truncate: bool
) -> Float[Array, "*b length k"]:
    offsets = jnp.arange(length)[:, None] - centers[..., None, :]
    bell = jnp.exp(-(offsets**2) / (2 * sigma**2))
    return jnp.where(jnp.abs(offsets) <= 3 * sigma, bell, 0) if truncate else bell


def decode(
    heatmaps: Float[Array, "*b h w k"], method: str = "quarter", sigma: float = 2.0
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Find one keypoint per map.

    Maps must be high where the joint is: the output of a network that was trained on Gaussians, or
    `jax.nn.sigmoid(logits)` or `spatial_softmax(logits)`, but never the logits themselves. A map
    without a positive value gives the keypoint (0, 0).

    Methods:
      argmax: the highest pixel; of equal ones the first, row by row.
      quarter: argmax plus a quarter pixel towards the higher neighbor in x and in y, if
        1 < x < w - 1 and 1 < y < h - 1 (Newell et al., ECCV 2016; the rule of AlphaPose's code).
      dark: argmax plus one Newton step on the logarithm of the map smoothed by a Gaussian, at most
        one pixel in x and in y, if 1 < x < w - 2, 1 < y < h - 2 and the Hessian is that of a peak
        (Zhang et al., Distribution-Aware Coordinate Representation, CVPR 2020).
      dark_udp: the variant of "dark" that came with unbiased data processing (Huang et al., The
        Devil is in the Details, CVPR 2020): derivatives by neighbors one pixel away, maps clipped
        to 0.001..50 after smoothing, also at the border. At most one pixel in x and in y.
      integral: the mean position under the map, scaled to sum 1; negative values count as 0
        (Sun et al., ECCV 2018). On `sigmoid(logits)` this is AlphaPose's two-step normalization.

    Args:
      heatmaps: see above.
      method: one of the five names.
      sigma: of the Gaussian that "dark" and "dark_udp" smooth maps with: usually that of the
        Gaussians that the network was trained on.

    Returns:
      Keypoints in heatmap pixels, and scores, the highest value of each map. In a map that sums to
      1 this value depends on the spread: see `local_mass`.

    Raises:
      UserError: there is no such method.
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
        case "dark_udp":
            keypoints = peaks + _udp_newton_step(_udp_log_blur(heatmaps, sigma), peaks)
        case "integral":
            keypoints = _mean_position(heatmaps)
        case _:
            raise UserError(
                f"no way to decode heatmaps is called {method!r}: "
                "use one of argmax, quarter, dark, dark_udp, integral"
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
    """One pixel of each map; outside the map, an arbitrary finite value."""
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

    The kernel is not normalized: in the logarithm, its sum is a constant.
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
    """-H⁻¹ g by central differences, clipped to ±1; 0 where the surface has no maximum nearby."""
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


def _udp_log_blur(heatmaps: Float[Array, "*b h w k"], sigma: float) -> Float[Array, "*b h w k"]:
    """Logarithm of the maps smoothed by a Gaussian of 11 taps, mirrored at the border."""

    def kernel(length: int) -> Float[Array, "n n"]:
        offsets = jnp.arange(-5, 6)
        bell = jnp.exp(-(offsets**2) / (2 * sigma**2))
        source = jnp.arange(length)[:, None] + offsets
        source = jnp.where(source < 0, -source - 1, source)
        source = jnp.where(source >= length, 2 * length - 1 - source, source)
        taps = jax.nn.one_hot(source, length)  # (to, tap, from)
        return jnp.einsum("tof,o->tf", taps, bell / bell.sum(), precision="highest")

    height, width = heatmaps.shape[-3:-1]
    blurred = _einsum("yh,...hwk,xw->...yxk", kernel(height), heatmaps, kernel(width))
    return jnp.log(jnp.clip(blurred, 0.001, 50))


def _udp_newton_step(
    surface: Float[Array, "*b h w k"], peaks: Int[Array, "*b k 2"]
) -> Float[Array, "*b k 2"]:
    """-H⁻¹ g by differences of neighbors, clipped to ±1; 0 where the surface has no maximum."""
    margin = [(0, 0)] * (surface.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
    at = functools.partial(_value_at, jnp.pad(surface, margin, mode="edge"))
    x, y = peaks[..., 0] + 1, peaks[..., 1] + 1
    here, right, left = at(x, y), at(x + 1, y), at(x - 1, y)
    below, above = at(x, y + 1), at(x, y - 1)
    dx, dy = (right - left) / 2, (below - above) / 2
    dxx, dyy = right - 2 * here + left, below - 2 * here + above
    corners = at(x + 1, y + 1) + at(x - 1, y - 1)
    dxy = (corners + 2 * here - right - left - below - above) / 2
    det = dxx * dyy - dxy**2
    usable = (dxx < 0) & (det > 1e-12)
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
    """Softmax over positions: float32 maps that sum to 1."""
    return jax.nn.softmax(logits.astype(jnp.float32), axis=(-3, -2))


def local_mass(
    heatmaps: Float[Array, "*b h w k"], keypoints: Float[Array, "*b k 2"], radius: int = 1
) -> Float[Array, "*b k"]:
    """Sum of each map over the (2 radius + 1)² pixels around its keypoint, rounded to a pixel.

    In a map that sums to 1 this is the score of a keypoint: the probability that the joint is
    there. The peak alone is no such score: maps that were trained on Gaussians spread over several
    pixels, so their peak is low however confident the network is.
    """
    height, width = heatmaps.shape[-3:-1]
    centers = jnp.floor(keypoints + 0.5)[..., None, :, :]
    in_x = jnp.abs(jnp.arange(width)[:, None] - centers[..., 0]) <= radius
    in_y = jnp.abs(jnp.arange(height)[:, None] - centers[..., 1]) <= radius
    window = (in_y[..., :, None, :] & in_x[..., None, :, :]).astype(jnp.float32)
    return (heatmaps * window).sum((-3, -2))


def flip_and_merge(
    heatmaps: Float[Array, "*b h w k"],
    flipped_heatmaps: Float[Array, "*b h w k"],
    flip_indices: ArrayLike,
    shift: float = 0.0,
) -> Float[Array, "*b h w k"]:
    """The mean of an image's heatmaps and of its mirror image's heatmaps, mirrored back.

    Args:
      heatmaps: of the image.
      flipped_heatmaps: the network's output for the image mirrored left to right.
      flip_indices: (k,), as in `Skeleton.flip_indices`.
      shift: heatmap pixels, 0 to 1, by which the mirrored maps are first moved to the right, with
        linear interpolation; column 0 stays. It is 0 where heatmap and crop have the same center
        (`geometry.heatmap_from_crop`, unbiased data processing). Where their first pixels coincide,
        it is 1 - 1 / stride; AlphaPose moves them by a whole pixel.
    """
    mirrored = flipped_heatmaps[..., ::-1, :][..., jnp.asarray(flip_indices)]
    if shift:
        moved = jnp.concatenate([mirrored[..., :1, :], mirrored[..., :-1, :]], -2)
        mirrored = (1 - shift) * mirrored + shift * moved
    return (heatmaps + mirrored) / 2
