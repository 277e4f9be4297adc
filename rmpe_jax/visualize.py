"""Pictures of poses, of an evaluation's best and worst people, and of a training's curves.

Images are RGB uint8 (h, w, 3) and stay as they are: drawing returns a new one. Everything but
`learning_curves` needs OpenCV alone.
"""

import itertools
import json
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax import geometry
from rmpe_jax.data.augment import crop
from rmpe_jax.data.pictures import read_picture
from rmpe_jax.data.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.per_person import ScoredPeople, score_people
from rmpe_jax.evaluation.protocol import PersonBoxes, model_joints
from rmpe_jax.skeletons import Skeleton

Color = tuple[int, int, int]
Image = UInt8[np.ndarray, "h w 3"]

# Apart in hue and in brightness, so that colour-blind readers tell them apart too.
LEFT: Color = (255, 138, 30)
RIGHT: Color = (38, 170, 255)
CENTER: Color = (255, 226, 110)
ANNOTATED: Color = (255, 255, 255)
BOX: Color = (140, 232, 130)
_OUTLINE: Color = (20, 20, 24)
_PAPER: Color = (252, 252, 250)
_INK: Color = (40, 42, 48)
_OUTSIDE: Color = (224, 225, 227)

_CURVES = ("#e8710a", "#1478c8", "#3a9d5d", "#8a5cc2", "#c2405a")

_TILE = (384, 288)  # (height, width) of one person on a sheet
_SHIFT = 4  # OpenCV draws at sixteenths of a pixel


def draw_poses(
    image: Image,
    keypoints: Float[np.ndarray, "n k 2"],
    keypoint_scores: Float[np.ndarray, "n k"],
    skeleton: Skeleton,
    bboxes: Float[np.ndarray, "n 4"] | None = None,
    threshold: float = 0.3,
) -> Image:
    """The image with poses on it: left limbs orange, right limbs blue, the middle yellow.

    Args:
      keypoints: image pixels.
      keypoint_scores: joints below `threshold`, and limbs with such an end, are not drawn.
      bboxes: xyxy image pixels, drawn as thin frames.
    """
    image = np.ascontiguousarray(image).copy()
    shown = (keypoint_scores >= threshold) & np.isfinite(keypoints).all(-1)
    extents = np.array([_extent(k[s]) for k, s in zip(keypoints, shown, strict=True)])
    # Large people first: the small ones would vanish under them.
    for i in np.argsort(-extents):
        width = _line_width(extents[i], image)
        if bboxes is not None:
            low, high = np.round(bboxes[i]).astype(int).reshape(2, 2)
            cv2.rectangle(image, low, high, BOX, max(1, round(width / 2)), cv2.LINE_AA)
        _draw_pose(image, keypoints[i], shown[i], skeleton, width)
    return image


def _draw_pose(
    image: Image,
    keypoints: Float[np.ndarray, "k 2"],
    shown: np.ndarray,
    skeleton: Skeleton,
    width: int,
    color: Color | None = None,
) -> None:
    """Draw one pose in place, with a dark outline; in one colour if `color` is given."""
    limbs = [(a, b) for a, b in skeleton.limb_indices if shown[a] and shown[b]]
    # OpenCV counts in 32 bits; what lies far outside stays outside.
    pixels = np.clip(np.nan_to_num(keypoints), -1e5, 1e5)
    points = np.round(pixels * 2**_SHIFT).astype(int).tolist()
    # Short limbs, as in a face, are drawn finer.
    length = {limb: np.linalg.norm(np.subtract(*pixels[list(limb)])) for limb in limbs}
    widths = {limb: int(np.clip(length[limb] / 4, 1, width)) for limb in limbs}
    for extra in (max(2, width // 2), 0):
        for a, b in limbs:
            paint = color or _color_of(skeleton.joints[a], skeleton.joints[b])
            paint, thick = _OUTLINE if extra else paint, widths[a, b] + extra
            cv2.line(image, points[a], points[b], paint, thick, cv2.LINE_AA, _SHIFT)
    for j in np.flatnonzero(shown):
        thick = min([widths[limb] for limb in limbs if j in limb], default=width)
        _draw_joint(image, points[j], thick, color or _color_of(skeleton.joints[j]))


def _draw_joint(image: Image, point: Sequence[int], width: int, color: Color) -> None:
    radius = int(max(1.5, 0.8 * width) * 2**_SHIFT)
    rim = int(max(1.0, 0.3 * width) * 2**_SHIFT)
    cv2.circle(image, point, radius + rim, _OUTLINE, -1, cv2.LINE_AA, _SHIFT)
    cv2.circle(image, point, radius, color, -1, cv2.LINE_AA, _SHIFT)


def _color_of(*joints: str) -> Color:
    sides = {joint.split("_")[0] for joint in joints} & {"left", "right"}
    if len(sides) != 1:
        return CENTER
    return LEFT if "left" in sides else RIGHT


def _extent(points: Float[np.ndarray, "k 2"]) -> float:
    """Diagonal of the points' box in pixels."""
    return float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0


def _line_width(extent: float, image: Image) -> int:
    """Thick enough to be seen in the whole image, thin enough to see the person."""
    size = max(image.shape)
    return max(1, round(np.clip(0.014 * extent, 0.002 * size, 0.012 * size)))


def contact_sheet(
    tiles: Sequence[Image], columns: int, captions: Sequence[str] | None = None
) -> Image:
    """Tiles in rows on white paper, each scaled to fit a cell of the largest one's size.

    Args:
      captions: one line under each tile, ASCII; shortened to the tile's width.
    """
    height, width = np.max([tile.shape[:2] for tile in tiles], axis=0)
    gap = max(6, width // 24)
    line = 0 if captions is None else _text_height(width) * 2
    rows = -(-len(tiles) // columns)
    size = (gap + rows * (height + line + gap), gap + columns * (width + gap), 3)
    sheet = np.full(size, _PAPER, np.uint8)
    for i, tile in enumerate(tiles):
        top = gap + (i // columns) * (height + line + gap)
        left = gap + (i % columns) * (width + gap)
        _paste(sheet[top : top + height, left : left + width], tile)
        if captions is not None:
            _write(sheet, captions[i], (left, top + height + line // 4), width, _text_height(width))
    return sheet


def _paste(cell: Image, tile: Image) -> None:
    """Put the tile in the middle of the cell, in place, as large as fits."""
    scale = min(cell.shape[0] / tile.shape[0], cell.shape[1] / tile.shape[1])
    height, width = (max(1, int(side * scale)) for side in tile.shape[:2])
    if (height, width) != tile.shape[:2]:
        tile = cv2.resize(tile, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
    cell[y : y + height, x : x + width] = tile


def _text_height(width: int) -> int:
    return max(9, width // 20)


def _write(image: Image, text: str, corner: tuple[int, int], width: int, height: int) -> None:
    """Write one line in place, `height` pixels high, its top left corner at `corner` (x, y)."""
    font, thick = cv2.FONT_HERSHEY_DUPLEX, 1
    scale = height / cv2.getTextSize("X", font, 1, thick)[0][1]
    while len(text) > 1 and cv2.getTextSize(text, font, scale, thick)[0][0] > width:
        text = text[:-1]
    base = (int(corner[0]), int(corner[1] + height))
    cv2.putText(image, text, base, font, scale, _INK, thick, cv2.LINE_AA)


def people_sheet(
    dataset: PoseDataset,
    person_boxes: PersonBoxes,
    keypoints: Float[np.ndarray, "m j 2"],
    keypoint_scores: Float[np.ndarray, "m j"],
    model_skeleton: Skeleton,
    columns: int = 6,
    threshold: float = 0.2,
) -> Image:
    """The best, the median and the worst found people of an evaluation, a row each.

    Coloured: the pose found; thin white under it: the annotation. Captions give the OKS and the
    picture's id. Arguments as in `evaluation.protocol.evaluate`; joints under `threshold` are not
    drawn.

    Raises:
      UserError: nobody is annotated in the data set, or a picture cannot be read.
    """
    joints = model_joints(model_skeleton, dataset.skeleton)
    people = score_people(dataset, person_boxes, keypoints, model_skeleton)
    if not len(people):
        raise UserError(f"{dataset.name}: nobody is annotated: there is nobody to show")
    order = np.argsort(-people.oks, kind="stable")
    columns = min(columns, len(order))
    middle = (len(order) - columns) // 2
    poses, scores = keypoints[:, joints], keypoint_scores[:, joints]
    strips = []
    for title, chosen in (
        ("Best", order[:columns]),
        ("Median", order[middle : middle + columns]),
        ("Worst", order[::-1][:columns]),
    ):
        tiles = [_person_tile(dataset, people, i, poses, scores, threshold) for i in chosen]
        captions = [_caption(dataset, people, i) for i in chosen]
        strips.append(_with_title(contact_sheet(tiles, columns, captions), title))
    return np.concatenate(strips)


def _caption(dataset: PoseDataset, people: ScoredPeople, i: int) -> str:
    found = f"OKS {people.oks[i]:.2f}" if people.box_index[i] >= 0 else "not found"
    return f"{found}  {dataset.pictures[people.picture_index[i]].image_id}"


def _with_title(sheet: Image, title: str) -> Image:
    height = _text_height(_TILE[1]) * 5 // 4
    strip = np.full((height * 2, sheet.shape[1], 3), _PAPER, np.uint8)
    _write(strip, title, (_TILE[1] // 24, height * 3 // 4), sheet.shape[1], height)
    return np.concatenate([strip, sheet])


def _person_tile(
    dataset: PoseDataset,
    people: ScoredPeople,
    i: int,
    keypoints: np.ndarray,
    keypoint_scores: np.ndarray,
    threshold: float,
) -> Image:
    """A person's surroundings with the annotated pose and, over it, the one found."""
    picture = dataset.pictures[people.picture_index[i]]
    person, found = people.person_index[i], people.box_index[i]
    image_from_tile = geometry.image_from_crop(picture.bboxes[person], _TILE, padding=1.5)
    tile_from_image = geometry.invert(image_from_tile)
    tile = _surroundings(read_picture(picture.path), image_from_tile)
    annotated = geometry.transform_points(tile_from_image, picture.keypoints[person])
    _draw_pose(tile, annotated, picture.visibility[person] > 0, dataset.skeleton, 1, ANNOTATED)
    if found >= 0:
        pose = geometry.transform_points(tile_from_image, keypoints[found])
        shown = (keypoint_scores[found] >= threshold) & np.isfinite(pose).all(-1)
        _draw_pose(tile, pose, shown, dataset.skeleton, 4)
    return tile


def _surroundings(image: Image, image_from_tile: Float[np.ndarray, "2 3"]) -> Image:
    tile = crop(image, image_from_tile, _TILE)
    inside = crop(np.ones_like(image), image_from_tile, _TILE)
    return np.where(inside > 0, tile, np.array(_OUTSIDE, np.uint8))


def learning_curves(metrics_path: str | os.PathLike, out_path: str | os.PathLike) -> None:
    """Plot loss, accuracy, AP and PCKh over steps from a training's `metrics.jsonl`.

    Each line holds `step` and named numbers; a name's part after the last `/` says what it is.
    Where a resumed training wrote a step twice, the later line counts.

    Raises:
      UserError: matplotlib is not installed, or the file cannot be read or has nothing to plot.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("curves need matplotlib: pip install 'rmpe_jax[viz]'") from None
    series = _read_series(metrics_path)
    panels = [
        (title, {name: points for name, points in series.items() if belongs(name.split("/")[-1])})
        for title, belongs in (
            ("loss", lambda key: key.endswith("loss")),
            ("accuracy", lambda key: key.endswith("accuracy")),
            ("AP", lambda key: key == "AP"),
            ("PCKh", lambda key: key == "PCKh"),
        )
    ]
    panels = [(title, curves) for title, curves in panels if curves]
    if not panels:
        raise UserError(f"{metrics_path} has no loss, accuracy, AP or PCKh: nothing to plot")
    figure = Figure(figsize=(5 * len(panels), 3.8), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, curves) in zip(all_axes, panels, strict=True):
        _plot_panel(axes, title, curves)
    figure.savefig(out_path, dpi=130)


def _read_series(path: str | os.PathLike) -> dict[str, dict[int, float]]:
    """Step to value of every named number in the file."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"metrics {path} cannot be read ({error.strerror}): check it") from None
    series: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, KeyError, AttributeError, TypeError):
            if number == len(lines):
                break  # a training that is killed while it writes leaves half a line
            raise UserError(
                f"metrics {path}: line {number} is not a step's JSON: mend it"
            ) from None
        for name, value in row.items():
            if isinstance(value, int | float) and np.isfinite(value):
                series.setdefault(name, {})[step] = float(value)
    return series


def _plot_panel(axes, title: str, curves: dict[str, dict[int, float]]) -> None:
    for (name, points), color in zip(sorted(curves.items()), itertools.cycle(_CURVES)):
        steps = np.array(sorted(points))
        values = np.array([points[step] for step in steps])
        if len(steps) <= 40:
            axes.plot(steps, values, color=color, label=name, marker="o", markersize=3.5)
        else:
            axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
            axes.plot(steps, _smoothed(values), color=color, label=name)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("step")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    if title != "loss":
        axes.set_ylim(bottom=0)


def _smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Mean over a window of a twentieth of the curve, narrower at its ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)
