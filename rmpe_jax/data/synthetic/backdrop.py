"""Everything except the people: background, clutter, occluders, light and camera effects."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmpe_jax.data.synthetic import painting
from rmpe_jax.data.synthetic.outfit import random_color
from rmpe_jax.data.synthetic.painting import Canvas, shade

Box = Float[np.ndarray, " 4"]  # xyxy pixels


def paint_background(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """A wall and usually a floor, with soft gradients, patterns and mottle."""
    image = _surface(rng, size)
    if rng.random() < 0.7:
        horizon = int(size[0] * rng.uniform(0.3, 0.75))
        image[horizon:] = _surface(rng, (size[0] - horizon, size[1]))
    return image


def paint_clutter(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint objects behind the people, some of them similar to limbs and heads."""
    for _ in range(rng.integers(2, 12)):
        kinds = (_box, _bush, _pole, _limb_like, _limb_like, _ball, _wires)
        kinds[rng.integers(len(kinds))](canvas, rng, _random_box(canvas, rng), painting.NOTHING)


def paint_object(canvas: Canvas, rng: np.random.Generator, bbox: Box) -> None:
    """Paint a solid object that fills a box and hides what is behind it."""
    kinds = (_box, _bush, _pole, _limb_like, _ball)
    kinds[rng.integers(len(kinds))](canvas, rng, bbox, painting.OBJECT)


def add_camera_effects(
    image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Apply uneven light, a color cast, defocus and sensor noise."""
    height, width = image.shape[:2]
    gain = rng.uniform(0.75, 1.25) * rng.normal(1, 0.06, 3)
    light = (rng.uniform(0.75, 1.25, (2, 2, 1)) * gain).astype(np.float32)
    field = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)
    lit = cv2.multiply(image, field, dtype=cv2.CV_8U)
    if rng.random() < 0.4:
        lit = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.4, 0.8))
    noise = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(1, 6))
    return _add_to_channels(lit, noise)


def _add_to_channels(
    image: Float[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w 3"],
    amount: Float[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    return cv2.add(image, cv2.merge([amount] * 3), dtype=cv2.CV_8U)  # rounds and saturates


def _surface(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    height, width = size
    base = np.array(random_color(rng, (0.0, 0.45)))
    corners = (base + rng.normal(0, 20, (2, 3, 3))).astype(np.float32)
    surface = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    mottle = np.zeros((1, 1), np.float32)
    for cells, strength in ((6, 12.0), (24, 9.0), (80, 7.0)):
        finer = rng.standard_normal((cells, cells), np.float32)
        mottle = np.float32(rng.uniform(0, strength)) * finer + cv2.resize(mottle, (cells, cells))
    relief = cv2.resize(mottle, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.45:
        relief += _relief(rng, size)
    return _add_to_channels(surface, relief)


def _relief(rng: np.random.Generator, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Brightness offsets that form planks, tiles, bricks or waves."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(10, 45)
    if rng.random() < 0.6:
        angle = 0.0
    x = np.arange(size[1], dtype=np.float32) / period
    y = np.arange(size[0], dtype=np.float32)[:, None] / period
    u = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    v = np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x
    kind, strength = rng.integers(4), np.float32(rng.uniform(-40, 40))
    if kind == 0:
        return strength * _stripes(u, 0.12)
    if kind == 1:
        return strength * (_stripes(u, 0.1) | _stripes(v, 0.1))
    if kind == 2:
        course = np.floor(2 * v)
        return strength * (_stripes(u + 0.5 * course, 0.08) | _stripes(2 * v, 0.12))
    return 0.6 * strength * np.sin(6.3 * u)


def _stripes(u: Float[np.ndarray, "h w"], fraction: float) -> Bool[np.ndarray, "h w"]:
    """Stripes that cover the first `fraction` of every unit of `u`."""
    return u - np.floor(u) < fraction


def _random_box(canvas: Canvas, rng: np.random.Generator) -> Box:
    height, width = canvas.ids.shape
    extent = np.exp(rng.uniform(np.log(0.08), np.log(0.45), 2)) * height
    center = rng.uniform(0, 1, 2) * (width, height)
    return np.concatenate([center - extent / 2, center + extent / 2])


def _box(canvas: Canvas, rng: np.random.Generator, bbox: Box, owner: int) -> None:
    """A crate, panel or table with an inner face of another brightness."""
    x1, y1, x2, y2 = bbox
    color, lean = random_color(rng), rng.uniform(-0.12, 0.12) * (x2 - x1)
    corners = np.array([[x1 + lean, y1], [x2 + lean, y1], [x2, y2], [x1, y2]])
    painting.fill(canvas, corners, color, owner)
    middle = corners.mean(0)
    painting.fill(
        canvas, middle + 0.8 * (corners - middle), shade(color, rng.uniform(0.7, 1.3)), owner
    )


def _bush(canvas: Canvas, rng: np.random.Generator, bbox: Box, owner: int) -> None:
    """Leaves of one hue."""
    color = random_color(rng, (0.3, 0.9))
    low, extent = bbox[:2], bbox[2:] - bbox[:2]
    for _ in range(rng.integers(6, 16)):
        center = low + rng.uniform(0.15, 0.85, 2) * extent
        tip = center + rng.normal(0, 0.12, 2) * extent
        radii = rng.uniform(0.04, 0.15, 2) * extent.min() + 1
        leaf = painting.hull_of_discs(np.stack([center, tip]), radii)
        painting.fill(canvas, leaf, shade(color, rng.uniform(0.6, 1.3)), owner)


def _pole(canvas: Canvas, rng: np.random.Generator, bbox: Box, owner: int) -> None:
    """A post, trunk or rail through the center of the box, along its longer side."""
    x1, y1, x2, y2 = bbox
    middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    along = np.array([0, (y2 - y1) / 2]) if y2 - y1 > x2 - x1 else np.array([(x2 - x1) / 2, 0])
    radius = rng.uniform(0.12, 0.3) * min(x2 - x1, y2 - y1) + 1
    centers = np.stack([middle - along, middle + along])
    painting.fill_solid(canvas, centers, np.full(2, radius), random_color(rng, (0.0, 0.7)), owner)


def _limb_like(canvas: Canvas, rng: np.random.Generator, bbox: Box, owner: int) -> None:
    """A chain of two or three tapering segments, similar to an arm or leg."""
    low, extent = bbox[:2], bbox[2:] - bbox[:2]
    color = random_color(rng, (0.2, 0.7))
    places = low + rng.uniform(0, 1, (rng.integers(3, 5), 2)) * extent
    radii = np.sort(rng.uniform(0.05, 0.14, len(places)))[::-1] * extent.mean() + 1
    for index in range(len(places) - 1):
        ends = slice(index, index + 2)
        painting.fill_solid(canvas, places[ends], radii[ends], color, owner)


def _ball(canvas: Canvas, rng: np.random.Generator, bbox: Box, owner: int) -> None:
    center, radius = (bbox[:2] + bbox[2:]) / 2, 0.5 * min(bbox[2:] - bbox[:2])
    painting.fill_solid(canvas, center[None], np.array([radius]), random_color(rng), owner)


def _wires(canvas: Canvas, rng: np.random.Generator, bbox: Box, owner: int) -> None:
    """Thin lines across the box."""
    color, low, extent = random_color(rng), bbox[:2], bbox[2:] - bbox[:2]
    for ends in low + rng.uniform(-0.5, 1.5, (rng.integers(1, 5), 2, 2)) * extent:
        painting.fill(canvas, painting.hull_of_discs(ends, np.full(2, 0.9)), color, owner)
