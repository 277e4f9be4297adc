"""Plots of a fitted model: its atomic poses, and offsets with the density fitted to them."""

import os

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.errors import UserError
from rmpe_jax.pgpg.model import PgpgModel, global_model
from rmpe_jax.skeletons import LSP

COORDINATES = ("left, of width", "top, of height", "right, of width", "bottom, of height")
_RANGE = 0.4  # largest offset shown
_LIMB = {"left": "#e8710a", "right": "#1478c8"}
_MIDDLE, _BAR, _FIT, _CONSTANTS = "#8a8d94", "#cfd3da", "#c2405a", "#28a06a"


def draw_atoms(
    model: PgpgModel, fractions: Float[np.ndarray, " rows"], path: str | os.PathLike
) -> None:
    """Draw every atomic pose with its number and its fraction of the boxes.

    Args:
      model: fitted.
      fractions: of the boxes that belong to each row of the model.
      path: of the image.

    Raises:
      UserError: matplotlib is not installed.
    """
    columns = min(8, max(1, len(model.atoms)))
    rows = max(1, -(-len(model.atoms) // columns))
    figure = _figure(1.5 * columns, 2.0 * rows)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.axis("off")
    for i, atom in enumerate(model.atoms):
        _draw_pose(all_axes[i], model.joints, atom)
        all_axes[i].set_title(f"{i}   {fractions[i]:.1%}", fontsize=9)
    figure.savefig(path, dpi=100)


def draw_offsets(
    model: PgpgModel,
    rows: Int[np.ndarray, " r"],
    offsets: Float[np.ndarray, "r 4"],
    path: str | os.PathLike,
    max_atoms: int = 6,
) -> None:
    """Draw the offsets of the most frequent atoms' boxes: a histogram and the model's density.

    Args:
      model: fitted.
      rows: the row of each box's person, from `mixture_rows`.
      offsets: of each box.
      path: of the image.
      max_atoms: the number of atoms shown.

    Raises:
      UserError: matplotlib is not installed.
    """
    counts = np.bincount(rows, minlength=len(model.weights))
    shown = [int(row) for row in np.argsort(-counts, kind="stable")[:max_atoms] if counts[row]]
    figure = _figure(12.0, 1.6 * len(shown) + 0.6)
    grid = figure.subplots(len(shown), 5, squeeze=False)
    for axes, row in zip(grid, shown, strict=True):
        axes[0].axis("off")
        if row < len(model.atoms):
            _draw_pose(axes[0], model.joints, model.atoms[row])
        name = f"atom {row}" if row < len(model.atoms) else "torso unknown"
        axes[0].set_title(f"{name}, {counts[row]:,} boxes", fontsize=9)
        for i in range(4):
            _draw_marginal(axes[i + 1], model, row, i, offsets[rows == row, i])
    for axes, title in zip(grid[0, 1:], COORDINATES, strict=True):
        axes.set_title(title, fontsize=9)
    lines, labels = grid[0, 1].get_legend_handles_labels()
    figure.legend(lines, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=100)


def marginal_density(
    model: PgpgModel, row: int, coordinate: int, x: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """The density of one of the four offsets in one row of the model."""
    mean = model.means[row, :, coordinate]
    variance = model.covariances[row, :, coordinate, coordinate]
    each = np.exp(-((x[:, None] - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    return each @ model.weights[row]


def _figure(width: float, height: float):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("plots of PGPG need matplotlib: pip install 'rmpe_jax[viz]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def _draw_pose(axes, joints: tuple[str, ...], atom: Float[np.ndarray, "k 2"]) -> None:
    for a, b in LSP.limbs:
        if a in joints and b in joints:
            ends = atom[[joints.index(a), joints.index(b)]]
            sides = {name.split("_")[0] for name in (a, b)}
            color = _LIMB.get(sides.pop(), _MIDDLE) if len(sides) == 1 else _MIDDLE
            axes.plot(*ends.T, color=color, linewidth=2.2, solid_capstyle="round")
    axes.set_aspect("equal")
    axes.set(xlim=(-1.9, 1.9), ylim=(2.9, -2.1))


def _draw_marginal(axes, model: PgpgModel, row: int, coordinate: int, values: np.ndarray) -> None:
    x = np.linspace(-_RANGE, _RANGE, 321)
    axes.hist(values, bins=np.linspace(-_RANGE, _RANGE, 41), density=True, color=_BAR)
    fitted = marginal_density(model, row, coordinate, x)
    axes.plot(x, fitted, color=_FIT, linewidth=1.6, label="fitted")
    constants = marginal_density(global_model(), 0, coordinate, x)
    axes.plot(
        x, constants, color=_CONSTANTS, linewidth=1, linestyle="--", label="author's constants"
    )
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
