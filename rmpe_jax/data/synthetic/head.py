"""Paints heads: skull with chin, ears, hair, and a face that distinguishes front from back."""

import numpy as np
from jaxtyping import Float

from rmpe_jax.data.synthetic import painting
from rmpe_jax.data.synthetic.anatomy import Skeleton3D
from rmpe_jax.data.synthetic.outfit import Outfit
from rmpe_jax.data.synthetic.painting import Canvas, Color, shade

_EYE_WHITE = (245.0, 245.0, 245.0)
_PUPIL = (25.0, 20.0, 20.0)
_MOUTH = (150.0, 45.0, 50.0)
_HAIR_AXIS = np.array([0, 0.83, -0.56])  # (left, up, forward) of the crown, tilted backward


def paint_head(
    canvas: Canvas,
    skeleton: Skeleton3D,
    outfit: Outfit,
    origin: Float[np.ndarray, " 2"],
    scale: float,
    owner: int,
) -> None:
    """Paint a head; features on the far side are painted first, so the skull covers them."""
    radius = scale * skeleton.build.head
    center = skeleton.points["head"]
    # Image position, and depth behind the head's center in head radii, of every feature.
    at = {name: origin + scale * point[:2] for name, point in skeleton.points.items()}
    away = {n: float(p[2] - center[2]) / skeleton.build.head for n, p in skeleton.points.items()}

    def disc(name: str, size: float, color: Color) -> None:
        rim = painting.hull_of_discs(at[name][None], np.array([size * radius]))
        painting.fill(canvas, rim, color, owner)

    def nose() -> None:
        bridge = 0.7 * at["nose"] + 0.15 * (at["left_eye"] + at["right_eye"])
        centers, sizes = np.stack([bridge, at["nose"]]), radius * np.array([0.1, 0.2])
        painting.fill(
            canvas, painting.hull_of_discs(centers, sizes), shade(outfit.skin, 0.72), owner
        )

    ears = [name for name in ("left_ear", "right_ear") if away[name] > 0.1]
    for name in ears:
        disc(name, 0.26, shade(outfit.skin, 0.75))
    if away["nose"] > 0:
        nose()
    skull = np.stack([at["head"], at["chin"]])
    painting.fill_solid(canvas, skull, radius * np.array([1.0, 0.6]), outfit.skin, owner)
    if outfit.hairline < 1:
        axis = _HAIR_AXIS @ skeleton.head
        _paint_hair(canvas, at["head"], 1.07 * radius, axis, outfit, owner)
    for name in ("left_ear", "right_ear"):
        if name not in ears:
            disc(name, 0.26, shade(outfit.skin, 0.8))
    if away["mouth"] < -0.1:
        _paint_mouth(canvas, skeleton, at["mouth"], scale)
    for name in ("left_eye", "right_eye"):
        if away[name] < 0.05:
            disc(name, 0.24, _EYE_WHITE)
            disc(name, 0.15, _PUPIL)
    if away["nose"] <= 0:
        nose()


def _paint_mouth(
    canvas: Canvas, skeleton: Skeleton3D, at: Float[np.ndarray, " 2"], scale: float
) -> None:
    half = 0.28 * skeleton.build.head * scale * skeleton.head[0, :2]
    sizes = np.full(2, 0.08 * skeleton.build.head * scale)
    painting.tint(canvas, painting.hull_of_discs(np.stack([at - half, at + half]), sizes), _MOUTH)


def _paint_hair(
    canvas: Canvas,
    center: Float[np.ndarray, " 2"],
    radius: float,
    axis: Float[np.ndarray, " 3"],
    outfit: Outfit,
    owner: int,
) -> None:
    """Paint the cap of a sphere around `axis`, blended by its coverage of each pixel."""
    height, width = canvas.ids.shape
    x1, y1 = np.clip(np.floor(center - radius - 1).astype(int), 0, (width, height))
    x2, y2 = np.clip(np.ceil(center + radius + 2).astype(int), 0, (width, height))
    if x2 <= x1 or y2 <= y1:
        return
    x = (np.arange(x1, x2, dtype=np.float32) - center[0]) / radius
    y = (np.arange(y1, y2, dtype=np.float32)[:, None] - center[1]) / radius
    squared = x * x + y * y
    bulge = np.sqrt(np.maximum(1 - squared, 0))
    height_on_axis = axis[0] * x + axis[1] * y - axis[2] * bulge
    inside = np.clip((1 - np.sqrt(squared)) * radius + 0.5, 0, 1)
    alpha = inside * np.clip((height_on_axis - outfit.hairline) * radius + 0.5, 0, 1)
    gleam = 0.8 + 0.4 * np.clip(canvas.light[0] * x + canvas.light[1] * y, -0.5, 1)
    color = np.minimum(np.array(outfit.hair) * gleam[..., None], 255)
    region = canvas.image[y1:y2, x1:x2]
    region[:] = region + alpha[..., None] * (color - region) + 0.5
    canvas.ids[y1:y2, x1:x2][alpha > 0.5] = owner
