"""`rmpe fit-pgpg`: PGPG from data sets and detectors' files, with a report of how well it fits."""

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
    log_likelihood,
    mixture_rows,
    offsets_from_boxes,
    save_model,
)
from rmpe_jax.skeletons import MPII

TEST_SHARE = 0.2  # of the pictures, which nothing in the comparison is fitted to


@dataclasses.dataclass(frozen=True)
class Options:
    """What `rmpe fit-pgpg` can be told."""

    num_atoms: tuple[int, ...]
    num_components: tuple[int, ...]
    min_iou: float
    min_score: float
    seed: int


@dataclasses.dataclass(frozen=True)
class _Set:
    """What one data set gives: samples, and the poses of all its people, matched or not."""

    name: str
    samples: Samples
    poses: Float[np.ndarray, "n 14 2"]
    num_pictures: int


def fit_from_files(
    out: str | os.PathLike,
    data: Sequence[Sequence[str]],
    pose_files: Sequence[str],
    options: Options,
) -> str:
    """Fit PGPG; write `pgpg.npz`, `report.md`, `atoms.png` and `offsets.png` to the folder `out`.

    Args:
      out: made if need be. Without matplotlib there are no pictures, which the report says.
      data: for each data set its spec and one or more detections files.
      pose_files: of more poses for the atoms, see `read_poses`.
      options: of the command line.

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
    samples = _join([of.samples for of in sets], [of.num_pictures for of in sets])
    poses = np.concatenate([*(of.poses for of in sets), *more])
    atoms = atomic_poses(poses, options.num_atoms, options.seed)
    selection, comparison = _compare(samples, atoms, sets, options)
    num_atoms, num_components = selection.best
    model = fit_mixtures(samples, atoms[num_atoms], num_components, options.seed)
    lines = [*_counts(sets, more), "", *_choices(selection), "", *comparison]
    save_model(out / "pgpg.npz", model)
    lines += ["", f"Fitted to all of it: {out / 'pgpg.npz'}"]
    lines += [_draw(out, model, samples)]
    report = "\n".join(lines) + "\n"
    (out / "report.md").write_text(report, encoding="utf-8")
    return report


def read_set(spec: str, files: Sequence[str], options: Options) -> _Set:
    """The boxes that detectors gave the people of a data set.

    Detections of pictures that the data set does not have are passed over, and so are those under
    `options.min_score`.

    Raises:
      UserError: the data set or a file cannot be used.
    """
    if not files:
        raise UserError(f"--data {spec} has no detections: name one or more files after it")
    dataset = open_dataset(spec)
    poses, bboxes, pictures = _people(dataset)
    samples = []
    for file in files:
        found = load_detections(file, dataset, skip_unknown=True)
        sure = found.scores >= options.min_score
        boxes, places = found.bboxes[sure], found.image_index[sure]
        person, box = match_detections(bboxes, boxes, pictures, places, options.min_iou)
        offsets = offsets_from_boxes(boxes[box], bboxes[person])
        samples.append(Samples(poses[person], offsets, pictures[person]))
    joined = _join(samples, [0] * len(samples))
    return _Set(dataset.name, joined, poses, len(dataset.images))


def _people(
    dataset: PoseDataset,
) -> tuple[Float[np.ndarray, "n 14 2"], Float[np.ndarray, "n 4"], Int[np.ndarray, " n"]]:
    """Poses in the atoms' joints, boxes and picture numbers of the people one can train on."""
    chosen = [records.trainable(picture) for picture in dataset.images]
    pairs = list(zip(dataset.images, chosen, strict=True))
    keypoints = np.concatenate([picture.keypoints[people] for picture, people in pairs])
    visibility = np.concatenate([picture.visibility[people] for picture, people in pairs])
    bboxes = np.concatenate([picture.bboxes[people] for picture, people in pairs])
    pictures = np.repeat(np.arange(len(pairs)), [people.sum() for people in chosen])
    return to_atom_joints(mask_with_nan(keypoints, visibility), dataset.skeleton), bboxes, pictures


def _join(samples: Sequence[Samples], num_pictures: Sequence[int]) -> Samples:
    """One after the other; each set's pictures are counted on from those of the sets before."""
    starts = np.cumsum([0, *num_pictures[:-1]])
    pictures = [of.image_ids + start for of, start in zip(samples, starts, strict=True)]
    poses = np.concatenate([of.poses for of in samples])
    return Samples(poses, np.concatenate([of.offsets for of in samples]), np.concatenate(pictures))


def read_poses(path: str | os.PathLike) -> Float[np.ndarray, "n 14 2"]:
    """Poses without pictures: `joints` (n, 16, 2) of an .npz file, MPII's, -1 where not annotated.

    Raises:
      UserError: the file cannot be read or has no such array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            joints = file["joints"]
        if joints.shape[1:] != (MPII.num_keypoints, 2):
            raise ValueError
    except OSError as error:
        line = f"poses {path} cannot be read ({error.strerror or error})"
        raise UserError(f"{line}: check the path") from None
    except (KeyError, ValueError):
        raise UserError(
            f"{path} has no 'joints' of shape (n, 16, 2): give an .npz of that"
        ) from None
    return to_atom_joints(mask_with_nan(joints, ~(joints == -1).all(-1)), MPII)


def _compare(
    samples: Samples, atoms: dict[int, np.ndarray], sets: Sequence[_Set], options: Options
) -> tuple[Selection, list[str]]:
    """The choice made without the test pictures, and how it does there beside simpler models."""
    train, test = split(samples, TEST_SHARE, options.seed)
    selection = select(train, atoms, options.num_components, options.seed)
    num_atoms, num_components = selection.best
    both = np.concatenate([train.offsets, mirrored_offsets(train.offsets)])
    none = atoms_of_none()
    models = {
        "author's constants": global_model(),
        "one Gaussian without correlation": global_model(both.mean(0), both.std(0)),
        "one Gaussian": fit_mixtures(train, none, 1, options.seed),
        f"one mixture of {num_components}": fit_mixtures(train, none, num_components, options.seed),
        f"{num_atoms} atoms, {num_components} Gaussians each": fit_mixtures(
            train, atoms[num_atoms], num_components, options.seed
        ),
    }
    logs = {
        name: log_likelihood(model.for_skeleton(ATOMS), test.poses, test.offsets)
        for name, model in models.items()
    }
    ends = np.cumsum([of.num_pictures for of in sets])
    which = np.searchsorted(ends, test.image_ids, side="right")
    return selection, _comparison(logs, test.image_ids, which, [of.name for of in sets])


def atoms_of_none() -> Float[np.ndarray, "0 14 2"]:
    """The atoms of a model with one mixture for all poses."""
    return np.zeros((0, ATOMS.num_keypoints, 2))


def _counts(sets: Sequence[_Set], more: Sequence[np.ndarray]) -> list[str]:
    lines = ["| data set | people | boxes |", "|---|---:|---:|"]
    lines += [f"| {of.name} | {len(of.poses):,} | {len(of.samples):,} |" for of in sets]
    return lines + [f"| poses alone | {len(poses):,} | |" for poses in more]


def _choices(selection: Selection) -> list[str]:
    head = " | ".join(f"{m}" for m in selection.num_components)
    best = selection.log_likelihood.max()
    lines = [
        "Mean log-likelihood of a box on pictures held out to choose by, in nats, by number of",
        "atoms (rows; 0 is one mixture for all poses) and of Gaussians in each:",
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
    pictures: Int[np.ndarray, " r"],
    which: Int[np.ndarray, " r"],
    names: Sequence[str],
) -> list[str]:
    best = list(logs.values())[-1]
    lines = [
        f"The same on {len(best):,} boxes of pictures that had no part in the choice; in the last",
        "column how much better the chosen model is, with its standard error over pictures:",
        "",
        f"| | {' | '.join(names)} | all | the last row is better by |",
        "|---" * (3 + len(names)) + "|",
    ]
    for name, log in logs.items():
        cells = [f"{_mean(log[which == i]):.3f}" for i in range(len(names))]
        gain, error = mean_and_error(best - log, pictures)
        cells += [f"{log.mean():.3f}", f"{gain:.3f} ± {error:.3f}" if log is not best else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _mean(values: Float[np.ndarray, " r"]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def mean_and_error(
    values: Float[np.ndarray, " r"], groups: Int[np.ndarray, " r"]
) -> tuple[float, float]:
    """Mean, and its standard error where values of one group hang together."""
    mean = values.mean()
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, values - mean)
    return float(mean), float(np.sqrt((sums**2).sum()) / len(values))


def _draw(out: pathlib.Path, model: PgpgModel, samples: Samples) -> str:
    if importlib.util.find_spec("matplotlib") is None:
        return "No pictures of it: they need matplotlib, pip install 'rmpe_jax[viz]'"
    rows = mixture_rows(model, samples.poses)
    shares = np.bincount(rows, minlength=len(model.weights)) / len(rows)
    plots.draw_atoms(model, shares, out / "atoms.png")
    plots.draw_offsets(model, rows, samples.offsets, out / "offsets.png")
    return f"Its pictures: {out / 'atoms.png'}, {out / 'offsets.png'}"
