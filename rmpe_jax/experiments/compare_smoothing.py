"""Compares smoothing filters on true joints of synthetic clips with noise added.

  python -m rmpe_jax.experiments.compare_smoothing --clips 20 --frames 100 --fps 25

Noise is normal, independent from frame to frame. Prints a JSON line for each filter and a table:
the mean error of visible joints, the mean lag behind the way that a joint moves, and the jerk, the
third derivative of the position. Jerk counts where a joint is visible in four frames in a row.
"""

import json
import sys
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from rmpe_jax.arguments import Parser, positive_int
from rmpe_jax.data.synthetic.labels import VISIBLE
from rmpe_jax.data.synthetic.motion import FPS, make_clip
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.experiments.compare_trackers import FIRST_SEED
from rmpe_jax.experiments.tables import markdown_table
from rmpe_jax.progress import progress
from rmpe_jax.skeletons import COCO

# Standard deviation of the noise, in OKS sigmas times the side of the box around the head times
# 2.5, which is about the square root of a person's area.
_NOISE = 0.8 * 2.5

Points = Float[np.ndarray, "f k 2"]
Visible = Bool[np.ndarray, "f k"]
Times = Float[np.ndarray, " f"]
Filter = Callable[[Points, Visible, Times, Times], Points]  # points, visible, times, sizes


def filters() -> dict[str, Filter]:
    """The filters by their titles in the table, with the parameters of `rmpe predict --smooth`."""
    from rmpe_jax.tracking.smoothing import OfflineParams, one_euro, smooth_offline

    def offline(window: Literal["gaussian", "flat"], degree: int) -> Filter:
        params = OfflineParams(window=window, degree=degree)
        return lambda points, visible, times, _: np.asarray(
            smooth_offline(points, visible, times, params)
        )

    return {
        "noise": lambda points, *_: points,
        "one-euro": lambda p, v, t, s: np.asarray(one_euro(p, v, t, s)),
        "offline (Gaussian window, degree 2)": offline("gaussian", 2),
        "Gaussian filter": offline("gaussian", 0),
        "Savitzky-Golay": offline("flat", 2),
    }


def compare(num_clips: int, num_frames: int, fps: float) -> dict[str, dict[str, float]]:
    """The means over all visible joints of the clips, for the true joints and for each filter.

    `error` and `lag` in percent of the square root of the area of the person's box, `jerk` in
    heights of the image per second³.
    """
    methods = filters()
    sums = {name: np.zeros((3, 2)) for name in ("true joints", *methods)}
    for seed in progress(range(FIRST_SEED, FIRST_SEED + num_clips), num_clips, "clips"):
        clip = make_clip(seed, num_frames, fps=fps)
        rng = np.random.default_rng([seed, 5])
        times = np.arange(num_frames) / fps
        for person in range(clip.ids.shape[1]):
            truth = clip.keypoints[:, person].astype(np.float64)
            visible = clip.visibility[:, person] == VISIBLE
            sides = clip.bboxes[:, person, 2:] - clip.bboxes[:, person, :2]
            sizes = np.sqrt(np.maximum(sides.prod(-1), 1)).astype(np.float64)
            head = clip.head_boxes[:, person, 2] - clip.head_boxes[:, person, 0]
            noise = _NOISE * head[:, None, None] * COCO.sigmas[:, None]
            noisy = truth + noise * rng.standard_normal(truth.shape)
            results = {"true joints": truth} | {
                name: method(noisy, visible, times, sizes) for name, method in methods.items()
            }
            for name, result in results.items():
                sums[name] += _sums(result, truth, visible, sizes, fps, clip.size[0])
    names = ("error", "lag", "jerk")
    return {
        name: dict(zip(names, (total[:, 0] / total[:, 1]).tolist(), strict=True))
        for name, total in sums.items()
    }


def smoothing_table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table."""
    names = list(next(iter(rows.values())))
    cells = {title: [f"{row[name]:.2f}" for name in names] for title, row in rows.items()}
    return markdown_table("", names, cells)


def _sums(
    points: Points, truth: Points, visible: Visible, sizes: Times, fps: float, height: int
) -> Float[np.ndarray, "3 2"]:
    """Sums of error, lag and jerk, and how many values each sum has."""
    offset = 100 * (points - truth) / sizes[:, None, None]
    error = np.linalg.norm(offset, axis=-1)[visible]
    moves = np.gradient(truth, axis=0)
    speed = np.linalg.norm(moves, axis=-1)
    moving = speed > 0.5  # pixels per frame
    moving[1:-1] &= visible[:-2] & visible[1:-1] & visible[2:]
    moving[[0, -1]] = False
    along = -(offset * moves).sum(-1)[moving] / speed[moving]
    four = np.stack([visible[shift : len(visible) - 3 + shift] for shift in range(4)]).all(0)
    jerk = np.linalg.norm(np.diff(points, 3, axis=0), axis=-1)[four] * fps**3 / height
    return np.array([(values.sum(), values.size) for values in (error, along, jerk)])


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=positive_int, default=20, help="number (default: 20)")
    parser.add_argument("--frames", type=positive_int, default=100, help="of each (default: 100)")
    parser.add_argument("--fps", type=float, default=FPS, help=f"frame rate (default: {FPS:g})")
    args = parser.parse_args()
    use_compilation_cache()

    def print_comparison() -> None:
        rows = compare(args.clips, args.frames, args.fps)
        for name, values in rows.items():
            print(json.dumps({"filter": name, **values}))
        print(f"\n{smoothing_table(rows)}")

    return run(print_comparison)


if __name__ == "__main__":
    sys.exit(main())
