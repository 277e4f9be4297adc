"""Fitting PGPG: atomic poses from poses, mixtures from a detector's boxes (P17 section 3.3).

The paper names neither the number of atoms nor that of Gaussians; here both are those under which
boxes on pictures that were not fitted on are likeliest.
"""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.pgpg.atoms import (
    ATOMS,
    align,
    fit_atoms,
    in_atom_joints,
    nearest_atoms,
    need_sklearn,
    one_thread,
    with_nan,
)
from rmpe_jax.pgpg.model import PgpgModel, log_likelihood, offsets_of
from rmpe_jax.progress import progress
from rmpe_jax.skeletons import COCO, Skeleton

NUM_ATOMS = (0, 4, 8, 16, 32)  # 0: one mixture for all poses
NUM_COMPONENTS = (1, 2, 4, 8)

# Part of everybody's mixture in each atom's: it keeps rare boxes possible where an atom has seen
# few. On real detections 0.2 to 0.3 was best for any number of atoms and Gaussians (docs/pgpg.md).
SHARED = 0.2
FEWEST_BOXES = 50  # an atom with fewer takes everybody's mixture
BOXES_PER_GAUSSIAN = 20
SMALLEST_VARIANCE = 1e-4  # added to every Gaussian's; a deviation of 1 % of the side


@dataclasses.dataclass(frozen=True)
class Samples:
    """Boxes that a detector gave people, each with the person's pose.

    Attributes:
      poses: (r, 14, 2) joints of `atoms.ATOMS`, image pixels, NaN where not known.
      offsets: (r, 4) of the box.
      pictures: (r,) number of the picture; what shares one is never split.
    """

    poses: Float[np.ndarray, "r 14 2"]
    offsets: Float[np.ndarray, "r 4"]
    pictures: Int[np.ndarray, " r"]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, rows: Bool[np.ndarray, " r"]) -> "Samples":
        return Samples(self.poses[rows], self.offsets[rows], self.pictures[rows])


@dataclasses.dataclass(frozen=True)
class Selection:
    """How well each choice does on the pictures held out.

    Attributes:
      num_atoms: (a,) choices; 0 is one mixture for all poses.
      num_components: (m,) choices.
      log_likelihood: (a, m) mean over the held-out boxes, in nats.
    """

    num_atoms: tuple[int, ...]
    num_components: tuple[int, ...]
    log_likelihood: Float[np.ndarray, "a m"]

    @property
    def best(self) -> tuple[int, int]:
        """Number of atoms and of Gaussians."""
        a, m = np.unravel_index(self.log_likelihood.argmax(), self.log_likelihood.shape)
        return self.num_atoms[a], self.num_components[m]


def fit_pgpg(
    keypoints: Float[np.ndarray, "n k 2"],
    gt_bboxes: Float[np.ndarray, "n 4"],
    det_bboxes: Float[np.ndarray, "m 4"],
    *,
    skeleton: Skeleton = COCO,
    visibility: Num[np.ndarray, "n k"] | None = None,
    gt_pictures: Int[np.ndarray, " n"] | None = None,
    det_pictures: Int[np.ndarray, " m"] | None = None,
    num_atoms: Sequence[int] = NUM_ATOMS,
    num_components: Sequence[int] = NUM_COMPONENTS,
    min_iou: float = 0.5,
    seed: int = 0,
) -> PgpgModel:
    """Learn how a detector's boxes lie around people, by atomic pose.

    Args:
      keypoints: of annotated people, image pixels; NaN where not known.
      gt_bboxes: their boxes, xyxy.
      det_bboxes: the detector's boxes, xyxy.
      skeleton: of the keypoints.
      visibility: 0 where a keypoint is not known.
      gt_pictures, det_pictures: number of the picture of each person and box; without them all lie
        in one picture.
      num_atoms, num_components: to choose from, by likelihood on a fifth of the pictures (of the
        people, if there is only one picture); 0 atoms are one mixture for all poses.
      min_iou: a box belongs to the person it overlaps most, if their IoU is at least this.
      seed: of k-means, mixtures and the split.

    Raises:
      UserError: scikit-learn is not installed, or there are too few poses or boxes.
    """
    poses = in_atom_joints(with_nan(keypoints, visibility), skeleton)
    people, boxes = match_detections(gt_bboxes, det_bboxes, gt_pictures, det_pictures, min_iou)
    samples = Samples(
        poses[people],
        offsets_of(det_bboxes[boxes], gt_bboxes[people]),
        people if gt_pictures is None else gt_pictures[people],
    )
    atoms = atomic_poses(poses, num_atoms, seed)
    selection = select(samples, atoms, num_components, seed)
    chosen_atoms, chosen_components = selection.best
    return fit_mixtures(samples, atoms[chosen_atoms], chosen_components, seed).for_skeleton(
        skeleton
    )


def match_detections(
    gt_bboxes: Float[np.ndarray, "n 4"],
    det_bboxes: Float[np.ndarray, "m 4"],
    gt_pictures: Int[np.ndarray, " n"] | None = None,
    det_pictures: Int[np.ndarray, " m"] | None = None,
    min_iou: float = 0.5,
) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
    """Pairs of a person and a box: each box with the person of its picture that it overlaps most.

    A person may have several boxes, or none: all that a detector gives are proposals.

    Returns:
      Indices of people and of boxes.
    """
    if (gt_pictures is None) != (det_pictures is None):
        raise ValueError("give gt_pictures and det_pictures, or neither")
    if gt_pictures is None or det_pictures is None:
        gt_pictures, det_pictures = np.zeros(len(gt_bboxes), int), np.zeros(len(det_bboxes), int)
    pairs = [np.zeros((2, 0), int)]
    for picture in np.intersect1d(gt_pictures, det_pictures):
        people = np.flatnonzero(gt_pictures == picture)
        boxes = np.flatnonzero(det_pictures == picture)
        iou = geometry.box_iou(det_bboxes[boxes], gt_bboxes[people])
        near = iou.max(-1) >= min_iou
        pairs.append(np.stack([people[iou.argmax(-1)[near]], boxes[near]]))
    people, boxes = np.concatenate(pairs, -1)
    return people, boxes


def atomic_poses(
    poses: Float[np.ndarray, "n 14 2"], num_atoms: Sequence[int], seed: int = 0
) -> dict[int, Float[np.ndarray, "a 14 2"]]:
    """Atomic poses, for each number of them; every pose counts as it is and mirrored.

    Raises:
      UserError: scikit-learn is not installed, or there are too few poses.
    """
    aligned = align(poses, ATOMS.joints)
    both = np.concatenate([aligned, aligned[:, ATOMS.flip_indices] * (-1, 1)])
    none = np.zeros((0, *poses.shape[1:]))
    return {n: fit_atoms(both, n, seed) if n else none for n in num_atoms}


def select(
    samples: Samples,
    atoms: dict[int, Float[np.ndarray, "a 14 2"]],
    num_components: Sequence[int] = NUM_COMPONENTS,
    seed: int = 0,
    share: float = 0.2,
) -> Selection:
    """Fit every choice without a share of the pictures, and see how likely it makes their boxes.

    Raises:
      UserError: scikit-learn is not installed, or there are too few boxes.
    """
    kept, held_out = split(samples, share, seed)
    if not len(held_out):
        raise UserError(f"{len(samples)} boxes of people are too few to choose by: give more")
    choices = [(n, m) for n in atoms for m in num_components]
    table = []
    for n, m in progress(choices, len(choices), "choices"):
        fitted = fit_mixtures(kept, atoms[n], m, seed)
        table.append(log_likelihood(fitted, held_out.poses, held_out.offsets).mean())
    shape = len(atoms), len(num_components)
    return Selection(tuple(atoms), tuple(num_components), np.reshape(table, shape))


def split(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """The samples less those of a random `share` of the pictures, and these."""
    pictures = np.unique(samples.pictures)
    count = round(share * len(pictures))
    away = np.random.default_rng(seed).permutation(pictures)[:count]
    held_out = np.isin(samples.pictures, away)
    return samples[~held_out], samples[held_out]


def fit_mixtures(
    samples: Samples, atoms: Float[np.ndarray, "a 14 2"], num_components: int, seed: int = 0
) -> PgpgModel:
    """A mixture for each atomic pose, and one for people whose torso is not known.

    Every box counts as it is and mirrored. An atom's mixture is `SHARED` of everybody's and the
    rest its own, which has fewer Gaussians where there are not `BOXES_PER_GAUSSIAN` for each.

    Args:
      samples: the boxes to fit.
      atoms: of `atomic_poses`.
      num_components: Gaussians in each own mixture.
      seed: of the mixtures.

    Raises:
      UserError: scikit-learn is not installed, or there are fewer than `FEWEST_BOXES` boxes.
    """
    if len(samples) < FEWEST_BOXES:
        line = f"{len(samples)} boxes of people are too few to fit: at least {FEWEST_BOXES}"
        raise UserError(f"{line}, look at the detections or lower the least IoU")
    offsets = np.concatenate([samples.offsets, mirrored_offsets(samples.offsets)])
    poses = np.concatenate([samples.poses, samples.poses[:, ATOMS.flip_indices] * (-1, 1)])
    everybody = _mixture(offsets, num_components, seed)
    if not len(atoms):
        return PgpgModel(ATOMS.joints, atoms, *(part[None] for part in everybody))
    row = nearest_atoms(align(poses, ATOMS.joints), atoms)
    own = [offsets[row == i] for i in range(len(atoms) + 1)]
    mixtures = [
        _mixture(boxes, num_components, seed) if len(boxes) >= 2 * FEWEST_BOXES else everybody
        for boxes in own
    ]
    blended = [_blend(mixture, everybody) for mixture in mixtures]
    return PgpgModel(ATOMS.joints, atoms, *map(np.array, zip(*blended, strict=True)))


def mirrored_offsets(offsets: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """Offsets of the same boxes in a mirror: left edges become right ones."""
    return offsets[..., [2, 1, 0, 3]] * np.array([-1, 1, -1, 1])


_Mixture = tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m 4"], Float[np.ndarray, "m 4 4"]]


def _mixture(offsets: Float[np.ndarray, "n 4"], num_components: int, seed: int) -> _Mixture:
    """Weights, means and covariances, padded to `num_components` Gaussians with weight 0."""
    fewer = max(1, min(num_components, len(offsets) // (2 * BOXES_PER_GAUSSIAN)))
    mixture = need_sklearn("sklearn.mixture").GaussianMixture(
        fewer, reg_covar=SMALLEST_VARIANCE, max_iter=300, random_state=seed
    )
    with warnings.catch_warnings(), one_thread():
        # That EM still moves a little after so many rounds is no matter here.
        warnings.simplefilter("ignore")
        mixture.fit(offsets)
    pad = num_components - fewer
    return (
        np.pad(mixture.weights_, (0, pad)),
        np.pad(mixture.means_, ((0, pad), (0, 0))),
        np.concatenate([mixture.covariances_, np.tile(np.eye(4), (pad, 1, 1))]),
    )


def _blend(own: _Mixture, everybody: _Mixture) -> _Mixture:
    """Everybody's mixture with weight `SHARED` before an atom's own."""
    weights = np.concatenate([SHARED * everybody[0], (1 - SHARED) * own[0]])
    means = np.concatenate([everybody[1], own[1]])
    return weights, means, np.concatenate([everybody[2], own[2]])
