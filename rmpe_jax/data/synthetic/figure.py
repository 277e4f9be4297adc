"""Paints a posed, dressed person on the canvas, part by part from back to front."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from rmpe_jax import skeletons
from rmpe_jax.data.synthetic import painting
from rmpe_jax.data.synthetic.anatomy import SIDES, Skeleton3D, Vector
from rmpe_jax.data.synthetic.head import paint_head
from rmpe_jax.data.synthetic.outfit import Garment, Outfit
from rmpe_jax.data.synthetic.painting import Canvas, Color, Pattern

PARTS = (
    "trunk", "pelvis", "head", "left_upper_arm", "right_upper_arm", "left_forearm",
    "right_forearm", "left_thigh", "right_thigh", "left_shin", "right_shin",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Figure:
    """A dressed person at a position in the image.

    Attributes:
      skeleton: the posed body in the camera frame.
      outfit: colors and clothes.
      origin: (x, y) of the pelvis in image pixels.
      scale: the standing height in pixels.
    """

    skeleton: Skeleton3D
    outfit: Outfit
    origin: Float[np.ndarray, " 2"]
    scale: float

    def project(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Camera frame to image pixels."""
        return self.origin + self.scale * points[..., :2]

    @property
    def joints(self) -> Float[np.ndarray, "17 3"]:
        """COCO's joints in the camera frame."""
        return np.stack([self.skeleton.points[name] for name in skeletons.COCO.joints])


@dataclasses.dataclass(frozen=True)
class _Part:
    """A rounded body part in the camera frame; `bias` is added to its depth for sorting."""

    name: str
    centers: Float[np.ndarray, "m 3"]
    radii: tuple[float, ...]
    color: Color
    garment: Garment | None = None
    bias: float = 0.0

    @property
    def depth(self) -> float:
        return float(self.centers[:, 2].mean()) + self.bias


def paint_figure(canvas: Canvas, figure: Figure, first_id: int) -> None:
    """Paint a person; pixels of `PARTS[i]` get the id first_id + i."""
    layers = [
        (part.depth, functools.partial(_paint_part, canvas, figure, part, first_id))
        for part in _body_parts(figure)
    ]
    face = functools.partial(
        paint_head, canvas, figure.skeleton, figure.outfit, figure.origin, figure.scale,
        first_id + PARTS.index("head"),
    )  # fmt: skip
    layers.append((float(figure.skeleton.points["head"][2]) - 0.03, face))
    for _, paint in sorted(layers, key=lambda layer: -layer[0]):
        paint()


def _paint_part(canvas: Canvas, figure: Figure, part: _Part, first_id: int) -> None:
    owner = first_id + PARTS.index(part.name)
    centers, radii = figure.project(part.centers), figure.scale * np.array(part.radii)
    pattern = _pattern(part.garment, figure.scale)
    painting.fill_solid(canvas, centers, radii, part.color, owner, pattern)
    if part.name == "trunk":
        _paint_front(canvas, figure, owner)


def _pattern(garment: Garment | None, scale: float) -> Pattern | None:
    if garment is None or garment.pattern is None:
        return None
    return Pattern(garment.pattern, garment.pattern_color, max(3.0, garment.period * scale))


def _body_parts(figure: Figure) -> list[_Part]:
    points, outfit, girth = figure.skeleton.points, figure.outfit, figure.skeleton.build.girth
    parts = _trunk_parts(figure)
    for name, _ in SIDES:
        at = {key.removeprefix(f"{name}_"): p for key, p in points.items() if key.startswith(name)}
        sleeve, leg = outfit.sleeves, outfit.legs
        parts += _limb(
            f"{name}_upper_arm", at["shoulder"], at["elbow"], (0.034, 0.027), girth,
            outfit.skin, outfit.top, sleeve, -0.012,
        )  # fmt: skip
        parts += _limb(
            f"{name}_forearm", at["elbow"], at["wrist"], (0.027, 0.019), girth,
            outfit.skin, outfit.top, sleeve - 1, -0.014,
        )  # fmt: skip
        parts += _limb(
            f"{name}_thigh", at["hip"], at["knee"], (0.052, 0.037), girth,
            outfit.skin, outfit.bottom, leg, 0.0,
        )  # fmt: skip
        parts += _limb(
            f"{name}_shin", at["knee"], at["ankle"], (0.036, 0.024), girth,
            outfit.skin, outfit.bottom, leg - 1, 0.002,
        )  # fmt: skip
        hand, foot = np.stack([at["wrist"], at["hand"]]), np.stack([at["heel"], at["toe"]])
        parts.append(_Part(f"{name}_forearm", hand, (0.018, 0.023), outfit.skin, None, -0.016))
        parts.append(_Part(f"{name}_shin", foot, (0.025, 0.019), outfit.shoes))
    return parts


def _trunk_parts(figure: Figure) -> list[_Part]:
    points, outfit = figure.skeleton.points, figure.outfit
    girth, axes, build = figure.skeleton.build.girth, figure.skeleton.trunk, figure.skeleton.build
    shoulders = [0.8 * points[f"{n}_shoulder"] + 0.2 * points["chest"] for n, _ in SIDES]
    flanks = [points["waist"] + side * 0.7 * build.hips * axes[0] for _, side in SIDES]
    hips = [points[f"{n}_hip"] for n, _ in SIDES]
    neck = np.stack([points["chest"], points["head"]])
    trunk = np.stack([*shoulders, *flanks])
    pelvis = np.stack([*flanks, *hips])
    parts = [
        _Part("head", neck, (0.034, 0.03), outfit.skin, None, 0.02),
        _Part(
            "trunk",
            trunk,
            (0.046, 0.046, 0.052 * girth, 0.052 * girth),
            outfit.top.color,
            outfit.top,
        ),
        _Part("pelvis", pelvis, (0.05 * girth,) * 4, outfit.bottom.color, outfit.bottom, 0.004),
    ]
    if outfit.skirt:
        hem = [
            hip + outfit.skirt * (points[f"{n}_knee"] - hip)
            for (n, _), hip in zip(SIDES, hips, strict=True)
        ]
        skirt = np.stack([*flanks, *hem])
        radii = (0.05 * girth, 0.05 * girth, 0.06, 0.06)
        parts.append(_Part("pelvis", skirt, radii, outfit.bottom.color, outfit.bottom, -0.03))
    if outfit.long_hair:
        back = points["head"] - 0.45 * build.head * figure.skeleton.head[2]
        down = back - outfit.long_hair * build.head * figure.skeleton.head[1]
        radii = (0.95 * build.head, 0.6 * build.head)
        # If the face is visible, the hair is behind the whole person.
        bias = 0.3 if figure.skeleton.head[2, 2] < 0 else 0.025
        parts.append(_Part("head", np.stack([back, down]), radii, outfit.hair, None, bias))
    return parts


def _limb(
    name: str,
    start: Vector,
    end: Vector,
    radii: tuple[float, float],
    girth: float,
    skin: Color,
    garment: Garment,
    cover: float,
    bias: float,
) -> list[_Part]:
    """A limb, and a sleeve over the first fraction `cover` of its length."""
    near, far = girth * radii[0], girth * radii[1]
    cover = min(max(cover, 0.0), 1.0)
    parts = []
    if cover < 1:
        parts.append(_Part(name, np.stack([start, end]), (near, far), skin, None, bias))
    if cover > 0:
        hem = start + cover * (end - start)
        width = near + cover * (far - near)
        cloth = (1.06 * near, 1.12 * width)
        parts.append(
            _Part(name, np.stack([start, hem]), cloth, garment.color, garment, bias - 0.001)
        )
    return parts


def _paint_front(canvas: Canvas, figure: Figure, owner: int) -> None:
    """Paint collar and badge if the chest faces the camera."""
    left, up, forward = figure.skeleton.trunk
    if forward[2] > -0.2:
        return
    build, outfit = figure.skeleton.build, figure.outfit
    top = figure.skeleton.points["chest"] + 0.045 * forward
    if outfit.open_collar:
        corners = np.stack(
            [top + 0.035 * left + 0.03 * up, top - 0.035 * left + 0.03 * up, top - 0.055 * up]
        )
        painting.fill(canvas, figure.project(corners), outfit.skin, owner)
    if outfit.badge is not None:
        center = top - 0.4 * build.trunk * up
        half_width, half_height = 0.55 * build.shoulders * left, 0.13 * build.trunk * up
        corners = np.stack(
            [
                center + a * half_width + b * half_height
                for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))
            ]
        )
        painting.tint(canvas, figure.project(corners), outfit.badge)
