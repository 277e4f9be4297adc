"""Learns the parameters of pose NMS from files of predictions and annotations."""

import functools
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.arrays import ground_truth_arrays
from rmpe_jax.evaluation.coco import Annotations, coco_ap, load_ground_truth
from rmpe_jax.evaluation.nms import apply_nms, candidate_groups
from rmpe_jax.evaluation.results import person_records
from rmpe_jax.files import not_writable, write_json
from rmpe_jax.pose_nms import PoseNmsParams, params_to_dict, pose_nms_batch
from rmpe_jax.pose_nms.fit import PoseNmsFit, Search, fit_pose_nms, oks_ap
from rmpe_jax.skeletons import Skeleton

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
    image_ids = dataset.image_ids
    metrics = {"no NMS": coco_ap(dataset, results, skeleton.oks_sigmas)}
    groups, names = candidate_groups(results, k, image_ids)
    ground_truth = ground_truth_arrays(dataset, k, [name for group in names for name in group])
    ground_truth = jax.tree.map(jax.numpy.asarray, ground_truth)
    objective = oks_ap(skeleton.sigmas)
    fit = fit_pose_nms(
        groups, ground_truth, objective, start, skeleton=skeleton, steps=steps, report=report
    )
    for title, params in (("before", start), ("learned", fit.params)):
        nms = functools.partial(pose_nms_batch, params=params, skeleton=skeleton)
        left = apply_nms(results, k, image_ids, nms)
        metrics[title] = coco_ap(dataset, left, skeleton.oks_sigmas)
    out = pathlib.Path(out)
    write_json(out / "params.json", params_to_dict(fit.params))
    write_json(out / "searches.json", [_search_to_dict(search) for search in fit.searches])
    heat_maps(fit, out / "heat_maps.png")
    return metrics


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


def _search_to_dict(search: Search) -> dict:
    return {
        "sweep": search.sweep,
        "names": list(search.names),
        "values": [values.tolist() for values in search.values],
        "scores": search.scores.tolist(),
        "best": list(search.best),
        "score": search.score,
    }


def search_line(search: Search) -> str:
    """Such as `sweep 1  lam 0.52, eta_fraction 0.31  AP 0.6123  (0.5210 to 0.6123 on 15 x 15)`."""
    chosen = ", ".join(f"{n} {v:.4g}" for n, v in zip(search.names, search.best, strict=True))
    rows, columns = search.scores.shape
    low, high = search.scores.min(), search.scores.max()
    return (
        f"sweep {search.sweep}  {chosen:<30}  AP {search.score:.4f}  "
        f"({low:.4f} to {high:.4f} on {rows} x {columns})"
    )


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
