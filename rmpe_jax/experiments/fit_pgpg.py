"""`rmpe fit-pgpg`: fits PGPG to datasets and detections files, and reports how well it fits."""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.data.readers import records
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_detections
from rmpe_jax.pgpg import plots
from rmpe_jax.pgpg.atoms import ATOMS, import_sklearn, mask_with_nan, to_atom_joints
from rmpe_jax.pgpg.fit import (
    People,
    Samples,
    Selection,
    atomic_poses,
    fit_mixtures,
    match_detections,
    mirrored_offsets,
    select,
    split,
)
from rmpe_jax.pgpg.model import (
    PgpgModel,
    global_model,
    iou_from_offsets,
    log_likelihood,
    mixture_rows,
    offsets_from_boxes,
    save_pgpg,
)
from rmpe_jax.skeletons import MPII

TEST_FRACTION = 0.2  # of the images; no model of the comparison is fitted to them
LOOSE_IOU = 0.5  # the report counts boxes with a lower IoU


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `rmpe fit-pgpg`.

    Attributes:
      num_atoms: numbers of atoms to try; 0 is one mixture for all poses.
      num_components: numbers of Gaussians per atom to try.
      min_iou: minimum IoU of a box with its person's box.
      min_score: minimum score of a box.
      seed: of the random numbers.
    """

    num_atoms: tuple[int, ...]
    num_components: tuple[int, ...]
    min_iou: float
    min_score: float
    seed: int


@dataclasses.dataclass(frozen=True)
class PgpgData:
    """The data of one dataset.

    Attributes:
      name: of the dataset.
      samples: detected boxes of its people, with poses.
      people: all its people, with and without boxes.
      num_images: number of its images.
    """

    name: str
    samples: Samples
    people: People
    num_images: int


def fit_from_files(
    out: str | os.PathLike,
    data: Sequence[Sequence[str]],
    pose_files: Sequence[str],
    options: Options,
) -> str:
    """Fits PGPG; writes `pgpg.npz`, `report.md`, `atoms.png` and `offsets.png`.

    Without matplotlib there are no plots, and the report says so.

    Args:
      out: folder to write; made if needed.
      data: for each dataset its spec and one or more detections files.
      pose_files: files with more poses for the atoms, see `read_poses`. They are never held out.
      options: see `Options`.

    Returns:
      The report, in Markdown.

    Raises:
      UserError: scikit-learn is not installed, data, detections or `out` cannot be used, or there
        are too few boxes.
    """
    import_sklearn("sklearn")
    out = pathlib.Path(out)
    sets = [read_set(spec, files, options) for spec, *files in data]
    more = [read_poses(path) for path in pose_files]
    samples, people = _join(sets, more)
    selection, comparison = _compare(samples, people, sets, options)
    num_atoms, num_components = selection.best
    atoms = atomic_poses(people.poses, num_atoms, options.seed)
    model = fit_mixtures(samples, atoms, num_components, options.seed)
    lines = [*_counts(sets, more), "", *_choices(selection), "", *comparison]
    save_pgpg(out / "pgpg.npz", model)
    lines += ["", f"The chosen model, fitted to all images: {out / 'pgpg.npz'}"]
    lines += [_plot(out, model, samples)]
    report = "\n".join(lines) + "\n"
    (out / "report.md").write_text(report, encoding="utf-8")
    return report


def read_set(spec: str, files: Sequence[str], options: Options) -> PgpgData:
    """Matches detected boxes with the people of a dataset.

    Detections on images that the dataset does not have are skipped, and so are those with a score
    below `options.min_score`.

    Raises:
      UserError: the dataset or a file cannot be used.
    """
    if not files:
        raise UserError(f"--data {spec} has no detections: name one or more files after it")
    dataset = open_dataset(spec)
    poses, bboxes, image_index = _people(dataset)
    found = [load_detections(file, dataset, skip_unknown=True) for file in files]
    used = [one.scores >= options.min_score for one in found]
    pairs = list(zip(found, used, strict=True))
    boxes = np.concatenate([one.bboxes[rows] for one, rows in pairs])
    box_images = np.concatenate([one.image_index[rows] for one, rows in pairs])
    person, box = match_detections(bboxes, boxes, image_index, box_images, options.min_iou)
    offsets = offsets_from_boxes(boxes[box], bboxes[person])
    samples = Samples(poses[person], offsets, image_index[person])
    return PgpgData(dataset.name, samples, People(poses, image_index), len(dataset.images))


def _people(
    dataset: PoseDataset,
) -> tuple[Float[np.ndarray, "n 14 2"], Float[np.ndarray, "n 4"], Int[np.ndarray, " n"]]:
    """Poses (in the atoms' joints), boxes and image indices of the people one can train on."""
    trainable = [records.trainable(record) for record in dataset.images]
    pairs = list(zip(dataset.images, trainable, strict=True))
    keypoints = np.concatenate([record.keypoints[people] for record, people in pairs])
    visibility = np.concatenate([record.visibility[people] for record, people in pairs])
    bboxes = np.concatenate([record.bboxes[people] for record, people in pairs])
    image_index = np.repeat(np.arange(len(pairs)), [people.sum() for people in trainable])
    poses = to_atom_joints(mask_with_nan(keypoints, visibility), dataset.skeleton)
    return poses, bboxes, image_index


def _join(
    sets: Sequence[PgpgData], more: Sequence[Float[np.ndarray, "_ 14 2"]] = ()
) -> tuple[Samples, People]:
    """Concatenates datasets, and adds poses without an image to the people.

    The image numbers of each dataset are shifted by the number of images before.
    """
    starts = np.cumsum([0, *(one.num_images for one in sets[:-1])])
    shifted = list(zip(sets, starts, strict=True))
    samples = Samples(
        np.concatenate([one.samples.poses for one in sets]),
        np.concatenate([one.samples.offsets for one in sets]),
        np.concatenate([one.samples.image_ids + start for one, start in shifted]),
    )
    no_images = [np.full(len(poses), -1) for poses in more]
    people = People(
        np.concatenate([*(one.people.poses for one in sets), *more]),
        np.concatenate([*(one.people.image_ids + start for one, start in shifted), *no_images]),
    )
    return samples, people


def read_poses(path: str | os.PathLike) -> Float[np.ndarray, "n 14 2"]:
    """Poses from an .npz file with `joints` (n, 16, 2): MPII's joints, -1 where not annotated.

    Returns:
      The poses in the joints of the atoms, NaN where not annotated.

    Raises:
      UserError: the file cannot be read or has no such array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            joints = file["joints"]
    except OSError as error:
        line = f"poses {path} cannot be read ({error.strerror or error})"
        raise UserError(f"{line}: check the path") from None
    except Exception:  # NumPy and zipfile raise many types
        joints = np.zeros(0)
    if joints.shape[1:] != (MPII.num_keypoints, 2) or joints.dtype.kind not in "iuf":
        raise UserError(f"{path} has no 'joints' of shape (n, 16, 2): give an .npz of that")
    return to_atom_joints(mask_with_nan(joints, ~(joints == -1).all(-1)), MPII)


def _compare(
    samples: Samples, people: People, sets: Sequence[PgpgData], options: Options
) -> tuple[Selection, list[str]]:
    """Selects the numbers without the test images; compares with simpler models on the test images.

    Neither the boxes nor the poses of the test images are used by any fit.

    Returns:
      The selection, and the table of the comparison.
    """
    train, test = split(samples, TEST_FRACTION, options.seed)
    others = people.outside(test)
    choices = options.num_atoms, options.num_components
    selection = select(train, others, *choices, options.seed)
    num_atoms, num_components = selection.best
    atoms = atomic_poses(others.poses, num_atoms, options.seed)
    both = np.concatenate([train.offsets, mirrored_offsets(train.offsets)])
    no_atoms = np.zeros((0, ATOMS.num_keypoints, 2))  # one mixture for all poses
    models = {
        "author's constants": global_model(),
        "one Gaussian without correlation": global_model(both.mean(0), both.std(0)),
        "one Gaussian": fit_mixtures(train, no_atoms, 1, options.seed),
        f"one mixture of {num_components}": fit_mixtures(
            train, no_atoms, num_components, options.seed
        ),
        f"{num_atoms} atoms, {num_components} Gaussians each": fit_mixtures(
            train, atoms, num_components, options.seed
        ),
    }
    logs = {
        name: log_likelihood(model.for_skeleton(ATOMS), test.poses, test.offsets)
        for name, model in models.items()
    }
    ends = np.cumsum([one.num_images for one in sets])
    set_index = np.searchsorted(ends, test.image_ids, side="right")
    return selection, _comparison(logs, test.image_ids, set_index, [one.name for one in sets])


def _counts(sets: Sequence[PgpgData], more: Sequence[np.ndarray]) -> list[str]:
    lines = [
        f"| dataset | people | boxes | with an IoU below {LOOSE_IOU} |",
        "|---|---:|---:|---:|",
    ]
    for one in sets:
        loose = (iou_from_offsets(one.samples.offsets) < LOOSE_IOU).sum()
        cells = f"{len(one.people.poses):,} | {len(one.samples):,} | {loose:,}"
        lines.append(f"| {one.name} | {cells} |")
    return lines + [f"| only poses | {len(poses):,} | | |" for poses in more]


def _choices(selection: Selection) -> list[str]:
    head = " | ".join(f"{m}" for m in selection.num_components)
    best = selection.log_likelihood.max()
    lines = [
        "Mean log-likelihood of a box, in nats, on images held out for the selection, by number",
        "of atoms (rows; 0 is one mixture for all poses) and of Gaussians per atom (columns):",
        "",
        f"| | {head} |",
        "|---" * (1 + len(selection.num_components)) + "|",
    ]
    for n, row in zip(selection.num_atoms, selection.log_likelihood, strict=True):
        cells = [f"**{value:.3f}**" if value == best else f"{value:.3f}" for value in row]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return lines


def _comparison(
    logs: dict[str, Float[np.ndarray, " r"]],
    image_ids: Int[np.ndarray, " r"],
    set_index: Int[np.ndarray, " r"],
    names: Sequence[str],
) -> list[str]:
    best = list(logs.values())[-1]
    lines = [
        f"The same measure on {len(best):,} boxes of images that the selection did not use. The",
        "last column is the advantage of the chosen model, with its standard error over images:",
        "",
        f"| | {' | '.join(names)} | all | advantage of the chosen model |",
        "|---" * (3 + len(names)) + "|",
    ]
    for name, log in logs.items():
        cells = [f"{_mean(log[set_index == i]):.3f}" for i in range(len(names))]
        gain, error = mean_and_error(best - log, image_ids)
        cells += [f"{log.mean():.3f}", f"{gain:.3f} ± {error:.3f}" if log is not best else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _mean(values: Float[np.ndarray, " r"]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def mean_and_error(
    values: Float[np.ndarray, " r"], groups: Int[np.ndarray, " r"]
) -> tuple[float, float]:
    """Mean, and its standard error if values of one group are correlated (cluster-robust).

    Args:
      values: (r,) values.
      groups: (r,) group of each value.
    """
    mean = values.mean()
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, values - mean)
    return float(mean), float(np.sqrt((sums**2).sum()) / len(values))


def _plot(out: pathlib.Path, model: PgpgModel, samples: Samples) -> str:
    if importlib.util.find_spec("matplotlib") is None:
        return "No plots: they need matplotlib, pip install 'rmpe_jax[viz]'"
    rows = mixture_rows(model, samples.poses)
    fractions = np.bincount(rows, minlength=len(model.weights)) / len(rows)
    plots.draw_atoms(model, fractions, out / "atoms.png")
    plots.draw_offsets(model, rows, samples.offsets, out / "offsets.png")
    return f"Plots: {out / 'atoms.png'}, {out / 'offsets.png'}"
