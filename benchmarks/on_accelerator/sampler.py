"""The sampler of the spatial transformer beside two other forms of it.

`gather` reads the four neighbors of a position with all channels at once. `separable` multiplies
with two matrices of weights, which is the same only where theta does not rotate or shear; it has no
gradient of those entries of theta. Both are checked against the project's `affine_sample`, values
and gradients.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from on_accelerator import timing
from on_accelerator.report import Report

from rmpe_jax.ops.spatial_transformer import affine_sample

TOLERANCE = 1e-3  # of the largest value
ROTATING = np.array([[False, True, False], [True, False, False]])


def measure(report: Report, out: pathlib.Path, tiny: bool) -> None:
    """Section "sampler"."""
    shapes = {"heatmaps": (128, 64, 48, 17), "images": (128, 256, 192, 3)}
    if tiny:
        shapes = {"heatmaps": (2, 8, 6, 3)}
    for name, shape in shapes.items():
        for rotated in (False, True):
            _measure_forms(report, name, shape, rotated, 1 if tiny else 8)


def _measure_forms(
    report: Report, name: str, shape: tuple[int, ...], rotated: bool, seconds: float
) -> None:
    """Lines of all forms that fit, the project's first."""
    forms = {"ours": affine_sample, "gather": gather}
    if not rotated:
        forms["separable"] = separable
    reference: dict[str, Any] = {}
    for form, sample in forms.items():
        report.measure(
            "sampler",
            f"{name}, {'rotated' if rotated else 'upright'}, {form}",
            lambda sample=sample: time_form(sample, shape, rotated, reference),
            seconds=seconds,
        )


def time_form(
    sample: Callable, shape: tuple[int, ...], rotated: bool, reference: dict[str, Any]
) -> dict:
    """Times forward and with gradients; compares with what the first form left in `reference`."""
    keys = jax.random.split(jax.random.key(0), 3)
    images, weight = (jax.random.normal(key, shape) for key in keys[:2])
    theta = random_theta(keys[2], shape[0], rotated)
    size = shape[1:3]

    def forward(images: jax.Array, theta: jax.Array) -> jax.Array:
        return jax.vmap(lambda image, theta: sample(image, theta, size))(images, theta)

    def both(images: jax.Array, theta: jax.Array) -> Any:
        values, pull = jax.vjp(forward, images, theta)
        return values, *pull(weight)

    alone = timing.compile_one(forward, images, theta)
    gradient = timing.compile_one(both, images, theta)
    times = {
        "forward_ms": timing.seconds_per_call(lambda: alone.call(images, theta)),
        "with_gradient_ms": timing.seconds_per_call(lambda: gradient.call(images, theta)),
    }
    line: dict[str, Any] = {name: timing.summary(t)["ms"] for name, t in times.items()}
    found = gradient.call(images, theta)
    if sample is separable:  # it has no gradient of the entries that rotate
        found = (*found[:2], jnp.where(ROTATING, reference["values"][2], found[2]))
    first = reference.setdefault("values", found)
    ours = reference.setdefault("line", line)
    ratios = {f"{name}_of_ours": round(line[name] / ours[name], 3) for name in times}
    differences = [
        float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in zip(found, first, strict=True)
    ]
    line = {"shape": shape, **line, **ratios, "largest_difference": max(differences)}
    if not max(differences) < TOLERANCE:
        line["error"] = f"values and gradients differ from ours by {differences}"
    return line


def random_theta(key: jax.Array, count: int, rotated: bool) -> jax.Array:
    """Thetas near the identity, as in training."""
    scale, shift, angle = (
        jax.random.uniform(k, (count, n), minval=-1, maxval=1)
        for k, n in zip(jax.random.split(key, 3), (2, 2, 1), strict=True)
    )
    linear = (1 + 0.2 * scale)[:, :, None] * jnp.eye(2)
    if rotated:
        sine, cosine = jnp.sin(angle[:, 0]), jnp.cos(angle[:, 0])
        turn = jnp.stack([jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2)
        linear = jnp.einsum("bij,bjk->bik", linear, turn, precision="highest")
    return jnp.concatenate([linear, 0.1 * shift[:, :, None]], -1)


def positions(theta: jax.Array, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """x and y, in pixels of an image of the same size, of every pixel."""
    height, width = size
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    columns = jnp.arange(width) - center_x
    rows = (jnp.arange(height) - center_y)[:, None]
    ratio = center_x / center_y
    x = theta[0, 0] * columns + theta[0, 1] * ratio * rows + center_x * (1 + theta[0, 2])
    y = theta[1, 0] / ratio * columns + theta[1, 1] * rows + center_y * (1 + theta[1, 2])
    return x, y


def gather(image: jax.Array, theta: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear values (h, w, c) at positions, by four reads of all channels."""
    height, width, _ = image.shape
    x, y = positions(theta, size)
    left, top = jnp.floor(x), jnp.floor(y)
    total = jnp.zeros_like(image)
    for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
        at_x, at_y = left + column, top + row
        weight = (1 - jnp.abs(x - at_x)) * (1 - jnp.abs(y - at_y))
        inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
        index_x = jnp.clip(at_x, 0, width - 1).astype(jnp.int32)
        index_y = jnp.clip(at_y, 0, height - 1).astype(jnp.int32)
        total += image[index_y, index_x] * jnp.where(inside, weight, 0)[..., None]
    return total


def separable(image: jax.Array, theta: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear values (h, w, c) for a theta without rotation, by two matrix products."""
    x, y = positions(theta * jnp.eye(2, 3).at[:, 2].set(1), size)
    product = functools.partial(jnp.einsum, precision="highest")
    rows = product("ij,jwc->iwc", _weights(y[:, 0], image.shape[0]), image)
    return product("kw,iwc->ikc", _weights(x[0], image.shape[1]), rows)


def _weights(at: jax.Array, count: int) -> jax.Array:
    """Weights (n, count) of pixels for positions (n,)."""
    return jnp.maximum(1 - jnp.abs(at[:, None] - jnp.arange(count)), 0)
