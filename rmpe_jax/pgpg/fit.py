"""Fit PGPG: atomic poses to poses, mixtures to a detector's boxes (P17 section 3.3).

The paper gives neither the number of atoms nor the number of Gaussians. Both are chosen here to
maximize the likelihood of boxes on held-out images.
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
    import_sklearn,
    mask_with_nan,
    nearest_atoms,
    single_thread,
    to_atom_joints,
)
from rmpe_jax.pgpg.model import PgpgModel, log_likelihood, offsets_from_boxes
from rmpe_jax.progress import progress
from rmpe_jax.skeletons import COCO, Skeleton

NUM_ATOMS = (0, 4, 8, 16, 32)  # 0: one mixture for all poses
NUM_COMPONENTS = (1, 2, 4, 8)

# A detector's box belongs to the person that it overlaps most, if their IoU is at least this. A
# pose from such a box can match the person, so training should see boxes like it (docs/pgpg.md).
MIN_IOU = 0.3

# Weight of the global mixture (that of all poses) in each atom's mixture. It keeps rare boxes
# possible for atoms with few boxes. On real detections 0.2 to 0.3 was best with 8, 16 and 32 atoms
# (docs/pgpg.md).
GLOBAL_WEIGHT = 0.2
MIN_BOXES = 50  # an atom with fewer boxes uses the global mixture
BOXES_PER_GAUSSIAN = 20
ADDED_VARIANCE = 1e-4  # regularization of every Gaussian: a deviation of 1 % of the side


@dataclasses.dataclass(frozen=True)
class Samples:
    """A detector's boxes of people, each with the person's pose.

    Attributes:
      poses: (r, 14, 2) joints of `atoms.ATOMS`, image pixels, NaN where unknown.
      offsets: (r, 4) of the box.
      image_ids: (r,) number of the image; the samples of an image are never split.
    """

    poses: Float[np.ndarray, "r 14 2"]
    offsets: Float[np.ndarray, "r 4"]
    image_ids: Int[np.ndarray, " r"]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, rows: Bool[np.ndarray, " r"]) -> "Samples":
        return Samples(self.poses[rows], self.offsets[rows], self.image_ids[rows])


@dataclasses.dataclass(frozen=True)
class People:
    """The people whose poses atoms are clustered from, each once, with or without boxes.

    Attributes:
      poses: (n, 14, 2) as `Samples.poses`.
      image_ids: (n,) as `Samples.image_ids`; -1 for a pose without an image.
    """

    poses: Float[np.ndarray, "n 14 2"]
    image_ids: Int[np.ndarray, " n"]

    def outside(self, held_out: Samples) -> "People":
        """The people who are on none of the images of `held_out`."""
        kept = ~np.isin(self.image_ids, held_out.image_ids)
        return People(self.poses[kept], self.image_ids[kept])


@dataclasses.dataclass(frozen=True)
class Selection:
    """How well each choice does on held-out images.

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
        """The number of atoms and of Gaussians with the highest likelihood."""
        a, m = np.unravel_index(self.log_likelihood.argmax(), self.log_likelihood.shape)
        return self.num_atoms[a], self.num_components[m]


def fit_pgpg(
    keypoints: Float[np.ndarray, "n k 2"],
    gt_bboxes: Float[np.ndarray, "n 4"],
    det_bboxes: Float[np.ndarray, "m 4"],
    *,
    skeleton: Skeleton = COCO,
    visibility: Num[np.ndarray, "n k"] | None = None,
    gt_image_ids: Int[np.ndarray, " n"] | None = None,
    det_image_ids: Int[np.ndarray, " m"] | None = None,
    num_atoms: Sequence[int] = NUM_ATOMS,
    num_components: Sequence[int] = NUM_COMPONENTS,
    min_iou: float = MIN_IOU,
    seed: int = 0,
) -> PgpgModel:
    """Learn the distribution of a detector's boxes around people, by atomic pose.

    Args:
      keypoints: of annotated people, image pixels; NaN where unknown.
      gt_bboxes: the people's boxes, xyxy image pixels.
      det_bboxes: the detector's boxes, xyxy image pixels.
      skeleton: of the keypoints.
      visibility: 0 where a keypoint is unknown.
      gt_image_ids: number of the image of each person; by default all are in one image.
      det_image_ids: number of the image of each box; by default all are in one image.
      num_atoms: choices, of which the one with the highest likelihood on a fifth of the images is
        taken (of the people, if there is only one image); 0 atoms mean one mixture for all poses.
      num_components: choices of the number of Gaussians, taken together with that of atoms.
      min_iou: a box belongs to the person that it overlaps most, if their IoU is at least this.
      seed: of k-means, mixtures and the split.

    Raises:
      UserError: scikit-learn is not installed, or there are too few poses or boxes.
    """
    poses = to_atom_joints(mask_with_nan(keypoints, visibility), skeleton)
    person, box = match_detections(gt_bboxes, det_bboxes, gt_image_ids, det_image_ids, min_iou)
    people = People(poses, np.arange(len(poses)) if gt_image_ids is None else gt_image_ids)
    offsets = offsets_from_boxes(det_bboxes[box], gt_bboxes[person])
    samples = Samples(poses[person], offsets, people.image_ids[person])
    chosen_atoms, chosen_components = select(samples, people, num_atoms, num_components, seed).best
    atoms = atomic_poses(poses, chosen_atoms, seed)
    return fit_mixtures(samples, atoms, chosen_components, seed).for_skeleton(skeleton)


def match_detections(
    gt_bboxes: Float[np.ndarray, "n 4"],
    det_bboxes: Float[np.ndarray, "m 4"],
    gt_image_ids: Int[np.ndarray, " n"] | None = None,
    det_image_ids: Int[np.ndarray, " m"] | None = None,
    min_iou: float = MIN_IOU,
) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
    """Match each box with the person of its image that it overlaps most.

    A person may have several boxes or none: all boxes of a detector are proposals. Arguments as in
    `fit_pgpg`.

    Returns:
      Indices of people and of boxes, of equal length.
    """
    if (gt_image_ids is None) != (det_image_ids is None):
        raise ValueError("give gt_image_ids and det_image_ids, or neither")
    if gt_image_ids is None or det_image_ids is None:
        gt_image_ids, det_image_ids = np.zeros(len(gt_bboxes), int), np.zeros(len(det_bboxes), int)
    pairs = [np.zeros((2, 0), int)]
    for image_id in np.intersect1d(gt_image_ids, det_image_ids):
        people = np.flatnonzero(gt_image_ids == image_id)
        boxes = np.flatnonzero(det_image_ids == image_id)
        iou = geometry.box_iou(det_bboxes[boxes], gt_bboxes[people])
        near = iou.max(-1) >= min_iou
        pairs.append(np.stack([people[iou.argmax(-1)[near]], boxes[near]]))
    people, boxes = np.concatenate(pairs, -1)
    return people, boxes


def atomic_poses(
    poses: Float[np.ndarray, "n 14 2"], num_atoms: int, seed: int = 0
) -> Float[np.ndarray, "a 14 2"]:
    """Atomic poses; every pose counts twice, as it is and mirrored.

    Raises:
      UserError: scikit-learn is not installed, or there are too few poses.
    """
    if not num_atoms:
        return np.zeros((0, *poses.shape[1:]))
    aligned = align(poses, ATOMS.joints)
    both = np.concatenate([aligned, aligned[:, ATOMS.flip_indices] * (-1, 1)])
    return fit_atoms(both, num_atoms, seed)


def select(
    samples: Samples,
    people: People,
    num_atoms: Sequence[int] = NUM_ATOMS,
    num_components: Sequence[int] = NUM_COMPONENTS,
    seed: int = 0,
    fraction: float = 0.2,
) -> Selection:
    """Fit every choice on a part of the images, and compute the likelihood of the other boxes.

    Neither the boxes nor the poses of the held-out images are used by the fits. Images are held out
    of those with boxes. People on images without boxes are always used, as are poses without an
    image.

    Args:
      samples: the boxes to fit.
      people: with the poses to cluster.
      num_atoms: choices.
      num_components: choices.
      seed: of k-means, the mixtures and the split.
      fraction: of the images that are held out.

    Raises:
      UserError: scikit-learn is not installed, or there are too few poses or boxes.
    """
    kept, held_out = split(samples, fraction, seed)
    if not len(held_out):
        raise UserError(
            f"{len(samples)} boxes of people are too few to choose by: give more images"
        )
    poses = people.outside(held_out).poses
    atoms = {n: atomic_poses(poses, n, seed) for n in num_atoms}
    choices = [(n, m) for n in num_atoms for m in num_components]
    table = []
    for n, m in progress(choices, len(choices), "choices"):
        fitted = fit_mixtures(kept, atoms[n], m, seed)
        table.append(log_likelihood(fitted, held_out.poses, held_out.offsets).mean())
    shape = len(num_atoms), len(num_components)
    return Selection(tuple(num_atoms), tuple(num_components), np.reshape(table, shape))


def split(samples: Samples, fraction: float, seed: int) -> tuple[Samples, Samples]:
    """Hold out a random `fraction` of the images: the other samples, and the held-out ones."""
    image_ids = np.unique(samples.image_ids)
    count = round(fraction * len(image_ids))
    chosen = np.random.default_rng(seed).permutation(image_ids)[:count]
    held_out = np.isin(samples.image_ids, chosen)
    return samples[~held_out], samples[held_out]


def fit_mixtures(
    samples: Samples, atoms: Float[np.ndarray, "a 14 2"], num_components: int, seed: int = 0
) -> PgpgModel:
    """Fit a mixture for each atomic pose, and one for people whose torso is unknown.

    Every box counts twice, as it is and mirrored. An atom's mixture consists of the global mixture
    of all boxes, with weight `GLOBAL_WEIGHT`, and of its own mixture. The own mixture has fewer
    Gaussians if there are fewer than `BOXES_PER_GAUSSIAN` boxes for each.

    Args:
      samples: the boxes to fit.
      atoms: of `atomic_poses`.
      num_components: Gaussians in each own mixture.
      seed: of the mixtures.

    Raises:
      UserError: scikit-learn is not installed, or there are fewer than `MIN_BOXES` boxes.
    """
    if len(samples) < MIN_BOXES:
        raise UserError(
            f"{len(samples)} boxes of people are too few to fit, at least {MIN_BOXES} are needed: "
            "check the detections or lower the minimum IoU"
        )
    offsets = np.concatenate([samples.offsets, mirrored_offsets(samples.offsets)])
    poses = np.concatenate([samples.poses, samples.poses[:, ATOMS.flip_indices] * (-1, 1)])
    overall = _mixture(offsets, num_components, seed)
    if not len(atoms):
        return PgpgModel(ATOMS.joints, atoms, *(part[None] for part in overall))
    row = nearest_atoms(align(poses, ATOMS.joints), atoms)
    own = [offsets[row == i] for i in range(len(atoms) + 1)]
    mixtures = [
        _mixture(boxes, num_components, seed) if len(boxes) >= 2 * MIN_BOXES else overall
        for boxes in own
    ]
    blended = [_blend(mixture, overall) for mixture in mixtures]
    return PgpgModel(ATOMS.joints, atoms, *map(np.array, zip(*blended, strict=True)))


def mirrored_offsets(offsets: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """Offsets of the boxes in the mirrored image: left edges become right edges."""
    return offsets[..., [2, 1, 0, 3]] * np.array([-1, 1, -1, 1])


_Mixture = tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m 4"], Float[np.ndarray, "m 4 4"]]
_Blend = tuple[Float[np.ndarray, " 2*m"], Float[np.ndarray, "2*m 4"], Float[np.ndarray, "2*m 4 4"]]


def _mixture(offsets: Float[np.ndarray, "n 4"], num_components: int, seed: int) -> _Mixture:
    """Weights, means and covariances, padded to `num_components` Gaussians with weight 0."""
    fewer = max(1, min(num_components, len(offsets) // (2 * BOXES_PER_GAUSSIAN)))
    mixture = import_sklearn("sklearn.mixture").GaussianMixture(
        fewer, reg_covar=ADDED_VARIANCE, max_iter=300, random_state=seed
    )
    with warnings.catch_warnings(), single_thread():
        # It does not matter that EM has not fully converged after so many iterations.
        warnings.simplefilter("ignore")
        mixture.fit(offsets)
    pad = num_components - fewer
    return (
        np.pad(mixture.weights_, (0, pad)),
        np.pad(mixture.means_, ((0, pad), (0, 0))),
        np.concatenate([mixture.covariances_, np.tile(np.eye(4), (pad, 1, 1))]),
    )


def _blend(own: _Mixture, overall: _Mixture) -> _Blend:
    """The global mixture with weight `GLOBAL_WEIGHT`, followed by an atom's own mixture."""
    weights = np.concatenate([GLOBAL_WEIGHT * overall[0], (1 - GLOBAL_WEIGHT) * own[0]])
    means = np.concatenate([overall[1], own[1]])
    return weights, means, np.concatenate([overall[2], own[2]])
