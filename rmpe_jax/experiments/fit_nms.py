"""Learns the parameters of pose NMS from files of predictions and annotations."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.arrays import ground_truth_arrays
from rmpe_jax.evaluation.bootstrap import image_resamples, interval, resampled_ap
from rmpe_jax.evaluation.coco import Annotations, coco_ap, load_ground_truth, ranked_poses
from rmpe_jax.evaluation.nms import apply_nms, candidate_groups
from rmpe_jax.evaluation.results import person_records
from rmpe_jax.experiments.searches import search_to_dict, warn_of_limits
from rmpe_jax.files import not_writable, write_json
from rmpe_jax.ops.grid_search import Search
from rmpe_jax.pose_nms import PoseNmsParams, params_to_dict, pose_nms_batch
from rmpe_jax.pose_nms.fit import RANGES, PoseNmsFit, fit_pose_nms, oks_ap
from rmpe_jax.skeletons import Skeleton

PRESETS = ("paper", "rmpe", "alphapose")  # for bodies
_LABELS = {
    "sigma1": "σ₁",
    "sigma2": "σ₂",
    "lam": "λ",
    "eta_fraction": "η / k (1 + λ)",
}


def fit_nms(
    results_path: str | os.PathLike,
    annotations: Annotations,
    out: str | os.PathLike,
    start: PoseNmsParams,
    skeleton: Skeleton,
    *,
    steps: int = 15,
    report: Callable[[Search], None] = lambda search: None,
) -> dict[str, dict[str, float]]:
    """Learns the parameters with the highest AP.

    Writes `params.json` (for `pose_nms.load_params`), `searches.json` (all values tried and their
    AP) and `heat_maps.png`.

    Args:
      results_path: results in COCO's format before NMS, with `bbox` and `bbox_score`.
      annotations: COCO keypoint ground truth of the same images, a file or its content, or a
        dataset.
      out: folder to write; made if needed.
      start: start of the search. The variant of the rule stays that of `start`.
      skeleton: joint set of both files.
      steps: values of each parameter per search.
      report: called after each search.

    Returns:
      COCO's metrics, by pycocotools, for "no NMS", "before" (the parameters of `start`) and
      "learned".

    Raises:
      UserError: a file cannot be read or written, or its format is wrong.
    """
    k = skeleton.num_keypoints
    results = _load_proposals(results_path, k)
    dataset = load_ground_truth(annotations, skeleton)
    metrics = {"no NMS": coco_ap(dataset, results, skeleton.oks_sigmas)}
    fit = _fit(results, dataset, start, skeleton, steps, report)
    warn_of_limits(fit.at_limits, RANGES, "AP")
    for title, params in (("before", start), ("learned", fit.params)):
        left = _after_nms(results, dataset, params, skeleton)
        metrics[title] = coco_ap(dataset, left, skeleton.oks_sigmas)
    out = pathlib.Path(out)
    write_json(out / "params.json", params_to_dict(fit.params))
    write_json(out / "searches.json", [search_to_dict(search) for search in fit.searches])
    heat_maps(fit, out / "heat_maps.png")
    return metrics


class CrossFit(NamedTuple):
    """What learned parameters gain on images that they are not learned from.

    Attributes:
      ap: of no NMS, of each preset, of `START` and of `LEARNED`; fractions, on all images.
      gain: AP of `LEARNED` minus that of `START`.
      interval: 95 % of the resamples of the images have a gain in it.
    """

    ap: dict[str, float]
    gain: float
    interval: tuple[float, float]


START, LEARNED = "start of the searches", "learned on the other folds"
RESAMPLES = 2000


def cross_fit_nms(
    results_path: str | os.PathLike,
    annotations: Annotations,
    start: PoseNmsParams,
    skeleton: Skeleton,
    folds: int,
    *,
    steps: int = 15,
    report: Callable[[Search], None] = lambda search: None,
) -> CrossFit:
    """Learns the parameters on all folds of the images but one, and applies them to that one.

    All searches start from the same parameters, so the scores of people are of one kind, and the
    poses of all folds can be ranked together.

    Args:
      results_path: as of `fit_nms`.
      annotations: as of `fit_nms`.
      start: as of `fit_nms`.
      skeleton: as of `fit_nms`.
      folds: number of random parts, 2 or more.
      steps: as of `fit_nms`.
      report: as of `fit_nms`.

    Raises:
      UserError: as `fit_nms`; there are fewer images than folds.
    """
    results = _load_proposals(results_path, skeleton.num_keypoints)
    dataset = load_ground_truth(annotations, skeleton)
    num_images = len(dataset.images)
    if num_images < folds:
        raise UserError(f"{dataset.name} has {num_images} images: use at most as many folds")
    params = {name: PoseNmsParams.preset(name) for name in PRESETS} | {START: start}
    left = {"no NMS": results}
    left |= {name: _after_nms(results, dataset, one, skeleton) for name, one in params.items()}
    left[LEARNED] = []
    for part in np.array_split(np.random.default_rng(0).permutation(num_images), folds):
        kept = _images(dataset, np.setdiff1d(np.arange(num_images), part))
        fit = _fit(_on(kept, results), kept, start, skeleton, steps, report)
        left[LEARNED] += _after_nms(results, _images(dataset, part), fit.params, skeleton)
    ap = {name: coco_ap(dataset, poses, skeleton.oks_sigmas)["AP"] for name, poses in left.items()}
    resamples = image_resamples(num_images, RESAMPLES, seed=0)
    theirs, ours = (
        resampled_ap(ranked_poses(dataset, left[name]), resamples) for name in (START, LEARNED)
    )
    return CrossFit(ap, ap[LEARNED] - ap[START], interval((ours - theirs)[None], seed=1))


def _fit(
    results: list[dict],
    dataset: PoseDataset,
    start: PoseNmsParams,
    skeleton: Skeleton,
    steps: int,
    report: Callable[[Search], None],
) -> PoseNmsFit:
    k = skeleton.num_keypoints
    groups, names = candidate_groups(results, k, dataset.image_ids)
    ground_truth = ground_truth_arrays(dataset, k, [name for group in names for name in group])
    return fit_pose_nms(
        groups,
        jax.tree.map(jax.numpy.asarray, ground_truth),
        oks_ap(skeleton.sigmas),
        start,
        skeleton=skeleton,
        steps=steps,
        report=report,
    )


def _after_nms(
    results: list[dict], dataset: PoseDataset, params: PoseNmsParams, skeleton: Skeleton
) -> list[dict]:
    nms = functools.partial(pose_nms_batch, params=params, skeleton=skeleton)
    return apply_nms(results, skeleton.num_keypoints, dataset.image_ids, nms)


def _images(dataset: PoseDataset, rows: Int[np.ndarray, " i"]) -> PoseDataset:
    """The dataset with some of its images."""
    return dataclasses.replace(dataset, images=tuple(dataset.images[row] for row in rows))


def _on(dataset: PoseDataset, results: list[dict]) -> list[dict]:
    """The results on the images of a dataset."""
    image_ids = set(dataset.image_ids)
    return [result for result in results if result["image_id"] in image_ids]


def _load_proposals(path: str | os.PathLike, num_keypoints: int) -> list[dict]:
    records = person_records(path)
    if not records:
        raise UserError(
            f"results {path} has no poses to learn from: give those of a detector's boxes"
        )
    for number, record in enumerate(records):
        missing = [key for key in ("keypoints", "bbox_score") if key not in record]
        if missing:
            raise UserError(
                f"results {path}: entry {number} has no {' and no '.join(missing)}: give the "
                "results.json of rmpe eval"
            )
        if not _is_valid(record, num_keypoints):
            raise UserError(
                f"results {path}: entry {number} is not a pose of {num_keypoints} joints and a box "
                "in finite numbers: give results in the joint set of the annotations"
            )
    return records


def _is_valid(record: dict, num_keypoints: int) -> bool:
    try:
        parts = [np.asarray(record[key], float) for key in ("keypoints", "bbox", "bbox_score")]
    except (TypeError, ValueError):
        return False
    shapes = [part.shape for part in parts]
    finite = all(np.isfinite(part).all() for part in parts)
    return finite and shapes == [(3 * num_keypoints,), (4,), ()]


def heat_maps(fit: PoseNmsFit, path: str | os.PathLike) -> None:
    """Plots AP over each pair of parameters, one row per sweep; a ring marks the maximum.

    Args:
      fit: the searches.
      path: of the file to write.

    Raises:
      UserError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("heat maps need matplotlib: pip install 'rmpe_jax[viz]'") from None
    rows = fit.searches[-1].sweep
    columns = len(fit.searches) // rows
    figure = Figure(figsize=(4.6 * columns, 3.8 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).flat
    for axes, search in zip(all_axes, fit.searches, strict=True):
        _heat_map(axes, search)
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise not_writable(path, error) from None


def _heat_map(axes, search: Search) -> None:
    y, x = search.values
    shades = axes.pcolormesh(x, y, search.scores, shading="nearest", cmap="viridis")
    axes.figure.colorbar(shades, ax=axes, label="AP")
    axes.plot(search.best[1], search.best[0], "o", ms=11, mfc="none", mec="white", mew=2)
    axes.set(xscale="log", yscale="log")
    axes.minorticks_off()
    axes.set_yticks(*_ticks(y))
    axes.set_xticks(*_ticks(x))
    axes.set_ylabel(_LABELS[search.names[0]])
    axes.set_xlabel(_LABELS[search.names[1]])
    axes.set_title(f"sweep {search.sweep}: AP {search.score:.4f}", loc="left", fontsize=10)


def _ticks(values: np.ndarray) -> tuple[list[float], list[str]]:
    """At most five of the values, as positions and labels of ticks."""
    chosen = values[np.linspace(0, len(values) - 1, min(5, len(values))).round().astype(int)]
    return list(chosen), [f"{value:.2g}" for value in chosen]
