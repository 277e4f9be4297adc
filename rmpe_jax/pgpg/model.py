"""The distribution of a detector's boxes given a person's pose: a Gaussian mixture per atomic pose.

Offsets (…, 4) are a box's coordinates (x1, y1, x2, y2) minus those of the person's own box, x as a
fraction of the own box's width and y as a fraction of its height (P17 section 3.3).
"""

import dataclasses
import functools
import math
import os

import numpy as np
from jaxtyping import Float, Int, Num

from rmpe_jax.errors import UserError
from rmpe_jax.files import atomic_write
from rmpe_jax.ops import geometry
from rmpe_jax.pgpg.atoms import align, mask_with_nan, nearest_atoms
from rmpe_jax.skeletons import COCO, Skeleton

MIN_SIDE = 5.0  # of a proposal, pixels, as in the RMPE release


@dataclasses.dataclass(frozen=True)
class PgpgModel:
    """Atomic poses, and for each a mixture of m Gaussians over the four offsets.

    Attributes:
      joints: names of the k joints, in the order of the keypoints.
      atoms: (a, k, 2) aligned poses (see `atoms.align`), NaN for joints that they lack.
      weights: (a + 1, m) of the Gaussians, 0 for unused ones. Row a is for people whose torso is
        unknown.
      means: (a + 1, m, 4).
      covariances: (a + 1, m, 4, 4).
    """

    joints: tuple[str, ...]
    atoms: Float[np.ndarray, "a k 2"]
    weights: Float[np.ndarray, "rows m"]
    means: Float[np.ndarray, "rows m 4"]
    covariances: Float[np.ndarray, "rows m 4 4"]

    @functools.cached_property
    def factors(self) -> Float[np.ndarray, "rows m 4 4"]:
        """The lower Cholesky factors of the covariances."""
        return np.linalg.cholesky(self.covariances)

    @functools.cached_property
    def cumulative_weights(self) -> Float[np.ndarray, "rows m"]:
        """The cumulative sum of each row's weights, with infinity instead of 1.

        A uniform random number draws the first Gaussian whose value is higher.
        """
        totals = np.cumsum(self.weights, -1)
        return np.where(totals > 1 - 1e-9, np.inf, totals)

    def for_skeleton(self, skeleton: Skeleton) -> "PgpgModel":
        """The same model for keypoints in the order of `skeleton`; joints are matched by name."""
        atoms = np.full((len(self.atoms), skeleton.num_keypoints, 2), np.nan)
        for i, joint in enumerate(skeleton.joints):
            if joint in self.joints:
                atoms[:, i] = self.atoms[:, self.joints.index(joint)]
        return dataclasses.replace(self, joints=skeleton.joints, atoms=atoms)


# "mu and std for all the boxes", which the paper's author published for use without a fitted model:
# (x1, y1, x2, y2), one Gaussian without correlations, the same for every pose.
AUTHORS_MEANS = (-0.0142, 0.0043, 0.0154, -0.0013)
AUTHORS_DEVIATIONS = (0.1158, 0.0680, 0.1337, 0.0711)


def global_model(
    means: tuple[float, ...] | Float[np.ndarray, " 4"] = AUTHORS_MEANS,
    deviations: tuple[float, ...] | Float[np.ndarray, " 4"] = AUTHORS_DEVIATIONS,
) -> PgpgModel:
    """A model with the same Gaussian for every pose, by default with the author's constants."""
    return PgpgModel(
        joints=COCO.joints,
        atoms=np.zeros((0, COCO.num_keypoints, 2)),
        weights=np.ones((1, 1)),
        means=np.array(means)[None, None],
        covariances=np.diag(np.square(deviations))[None, None],
    )


def offsets_from_boxes(
    bboxes: Float[np.ndarray, "*#n 4"], gt_bboxes: Float[np.ndarray, "*#n 4"]
) -> Float[np.ndarray, "*#n 4"]:
    """Offsets of boxes from people's own boxes; all xyxy image pixels."""
    return (bboxes - gt_bboxes) / _sides(gt_bboxes)


def boxes_from_offsets(
    offsets: Float[np.ndarray, "*#n 4"], gt_bboxes: Float[np.ndarray, "*#n 4"]
) -> Float[np.ndarray, "*#n 4"]:
    """The inverse of `offsets_from_boxes`."""
    return gt_bboxes + offsets * _sides(gt_bboxes)


def iou_from_offsets(offsets: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """IoU with people's own boxes of the boxes with these offsets."""
    own = np.array([[0, 0, 1, 1]], offsets.dtype)
    return geometry.box_iou(boxes_from_offsets(offsets, own), own)[:, 0]


def _sides(bboxes: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """(width, height, width, height)."""
    return bboxes[..., [2, 3, 2, 3]] - bboxes[..., [0, 1, 0, 1]]


def mixture_rows(
    model: PgpgModel,
    keypoints: Float[np.ndarray, "n k 2"],
    visibility: Num[np.ndarray, "n k"] | None = None,
) -> Int[np.ndarray, " n"]:
    """The model's row for each pose: its nearest atom, or the last row if the torso is unknown.

    Raises:
      UserError: the poses have another number of joints than the model.
    """
    if not len(model.atoms):
        return np.zeros(len(keypoints), int)
    if keypoints.shape[1] != len(model.joints):
        raise UserError(
            f"PGPG: poses have {keypoints.shape[1]} joints, the model has {len(model.joints)}: "
            "call for_skeleton with the skeleton of the poses"
        )
    return nearest_atoms(align(mask_with_nan(keypoints, visibility), model.joints), model.atoms)


def log_likelihood(
    model: PgpgModel, keypoints: Float[np.ndarray, "n k 2"], offsets: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " n"]:
    """Log density, in nats, of the offsets of one box per pose."""
    row = mixture_rows(model, keypoints)
    factors = model.factors[row]
    deviation = (offsets[:, None] - model.means[row])[..., None]
    standard = np.linalg.solve(factors, deviation)[..., 0]
    log_scale = np.log(np.diagonal(factors, axis1=-2, axis2=-1)).sum(-1)
    with np.errstate(divide="ignore"):
        log_weights = np.log(model.weights[row])
    logs = log_weights - (standard**2).sum(-1) / 2 - log_scale - 2 * math.log(2 * math.pi)
    return np.logaddexp.reduce(logs, axis=-1)


def save_pgpg(path: str | os.PathLike, model: PgpgModel) -> None:
    """Write the model atomically as .npz: `path` has the old or the new model, never a part.

    Raises:
      UserError: the file cannot be written.
    """
    with atomic_write(path, "wb") as file:
        np.savez_compressed(file, **dataclasses.asdict(model))


def load_pgpg(path: str | os.PathLike) -> PgpgModel:
    """Read what `save_pgpg` wrote.

    Raises:
      UserError: the file cannot be read or is not such a model.
    """
    names = [field.name for field in dataclasses.fields(PgpgModel)]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    except OSError as error:
        line = f"PGPG model {path} cannot be read ({error.strerror or error})"
        raise UserError(f"{line}: write it with rmpe fit-pgpg") from None
    except Exception:  # NumPy and zipfile raise many types
        raise UserError(f"{path} is not a PGPG model: write it with rmpe fit-pgpg") from None
    _check(path, arrays)
    return PgpgModel(**(arrays | {"joints": tuple(map(str, arrays["joints"]))}))


def _check(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Raise a UserError if the arrays of the file at `path` are not those of a model."""
    atoms, weights, means = arrays["atoms"], arrays["weights"], arrays["means"]
    numbers = all(arrays[name].dtype.kind == "f" for name in arrays if name != "joints")
    valid = numbers and arrays["joints"].ndim == 1
    valid = valid and atoms.ndim == 3 and atoms.shape[1:] == (len(arrays["joints"]), 2)
    valid = valid and weights.ndim == 2 and len(weights) == len(atoms) + 1
    valid = valid and means.shape == (*weights.shape, 4)
    valid = valid and arrays["covariances"].shape == (*weights.shape, 4, 4)
    if not (valid and np.allclose(weights.sum(-1), 1) and np.isfinite(means).all()):
        raise UserError(f"{path} is an inconsistent PGPG model: write it again with rmpe fit-pgpg")
    try:
        np.linalg.cholesky(arrays["covariances"])
    except np.linalg.LinAlgError:
        line = f"{path} is a PGPG model with an invalid covariance"
        raise UserError(f"{line}: write it again with rmpe fit-pgpg") from None
