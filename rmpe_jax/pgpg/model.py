"""How a detector's boxes lie around a person, given the pose: a Gaussian mixture per atomic pose.

Offsets (…, 4) are a box's coordinates (x1, y1, x2, y2) less those of the person's own box, x in
widths and y in heights of the latter (P17 section 3.3).
"""

import dataclasses
import functools
import math
import os
import zipfile

import numpy as np
from jaxtyping import Float, Int, Num

from rmpe_jax.errors import UserError
from rmpe_jax.files import replacing
from rmpe_jax.pgpg.atoms import align, nearest_atoms, with_nan
from rmpe_jax.skeletons import COCO, Skeleton

SMALLEST_SIDE = 5.0  # pixels; of a proposal, as in the RMPE release


@dataclasses.dataclass(frozen=True)
class PgpgModel:
    """Atomic poses, and for each a mixture of m Gaussians over the four offsets.

    Attributes:
      joints: names of the k joints, in the order of the keypoints that it is asked about.
      atoms: (a, k, 2) aligned poses (see `atoms.align`); NaN at joints they do not have.
      weights: (a + 1, m) of the Gaussians, 0 for those that a row does not have; row a is for
        people whose torso is not known.
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
        """The covariances' lower Cholesky factors."""
        return np.linalg.cholesky(self.covariances)

    @functools.cached_property
    def upper_shares(self) -> Float[np.ndarray, "rows m"]:
        """Up to which uniform number each Gaussian is drawn; infinity from a row's last on."""
        shares = np.cumsum(self.weights, -1)
        return np.where(shares > 1 - 1e-9, np.inf, shares)

    def for_skeleton(self, skeleton: Skeleton) -> "PgpgModel":
        """The same model for keypoints in the order of `skeleton`; joints go by name."""
        atoms = np.full((len(self.atoms), skeleton.num_keypoints, 2), np.nan)
        for i, joint in enumerate(skeleton.joints):
            if joint in self.joints:
                atoms[:, i] = self.atoms[:, self.joints.index(joint)]
        return dataclasses.replace(self, joints=skeleton.joints, atoms=atoms)


# "mu and std for all the boxes", which the paper's author gave for use where no fit is at hand:
# (x1, y1, x2, y2), one Gaussian, no correlation, the same for every pose.
AUTHORS_MEANS = (-0.0142, 0.0043, 0.0154, -0.0013)
AUTHORS_DEVIATIONS = (0.1158, 0.0680, 0.1337, 0.0711)


def global_model(
    means: tuple[float, ...] = AUTHORS_MEANS,
    deviations: tuple[float, ...] = AUTHORS_DEVIATIONS,
) -> PgpgModel:
    """One Gaussian for every pose, by default with the author's constants."""
    return PgpgModel(
        joints=COCO.joints,
        atoms=np.zeros((0, COCO.num_keypoints, 2)),
        weights=np.ones((1, 1)),
        means=np.array(means)[None, None],
        covariances=np.diag(np.square(deviations))[None, None],
    )


def offsets_of(
    bboxes: Float[np.ndarray, "*n 4"], gt_bboxes: Float[np.ndarray, "*n 4"]
) -> Float[np.ndarray, "*n 4"]:
    """Offsets of boxes from people's own; all xyxy image pixels."""
    return (bboxes - gt_bboxes) / _sides(gt_bboxes)


def boxes_at(
    offsets: Float[np.ndarray, "*n 4"], gt_bboxes: Float[np.ndarray, "*n 4"]
) -> Float[np.ndarray, "*n 4"]:
    """The inverse of `offsets_of`."""
    return gt_bboxes + offsets * _sides(gt_bboxes)


def _sides(bboxes: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """(width, height, width, height)."""
    return bboxes[..., [2, 3, 2, 3]] - bboxes[..., [0, 1, 0, 1]]


def rows_of(
    model: PgpgModel,
    keypoints: Float[np.ndarray, "n k 2"],
    visibility: Num[np.ndarray, "n k"] | None = None,
) -> Int[np.ndarray, " n"]:
    """The model's row for each pose: its nearest atom, or the last if the torso is not known."""
    if not len(model.atoms):
        return np.zeros(len(keypoints), int)
    return nearest_atoms(align(with_nan(keypoints, visibility), model.joints), model.atoms)


def log_likelihood(
    model: PgpgModel, keypoints: Float[np.ndarray, "n k 2"], offsets: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " n"]:
    """Log density, in nats, of one box's offsets for each pose."""
    row = rows_of(model, keypoints)
    factors = model.factors[row]
    away = (offsets[:, None] - model.means[row])[..., None]
    standard = np.linalg.solve(factors, away)[..., 0]
    log_scale = np.log(np.diagonal(factors, axis1=-2, axis2=-1)).sum(-1)
    with np.errstate(divide="ignore"):
        log_weights = np.log(model.weights[row])
    logs = log_weights - (standard**2).sum(-1) / 2 - log_scale - 2 * math.log(2 * math.pi)
    return np.logaddexp.reduce(logs, axis=-1)


def save_model(path: str | os.PathLike, model: PgpgModel) -> None:
    """Write the model as .npz, so that `path` holds the old or the new one and never a part.

    Raises:
      UserError: the folder or the disk does not take it.
    """
    with replacing(path, "wb") as file:
        np.savez_compressed(file, **dataclasses.asdict(model))


def load_model(path: str | os.PathLike) -> PgpgModel:
    """Read what `save_model` wrote.

    Raises:
      UserError: the file cannot be read or is no such model.
    """
    names = [field.name for field in dataclasses.fields(PgpgModel)]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    except OSError as error:
        line = f"PGPG model {path} cannot be read ({error.strerror or error})"
        raise UserError(f"{line}: write it with rmpe fit-pgpg") from None
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path} is no PGPG model: write it with rmpe fit-pgpg") from None
    model = PgpgModel(**(arrays | {"joints": tuple(map(str, arrays["joints"]))}))
    _check(path, model)
    return model


def _check(path: str | os.PathLike, model: PgpgModel) -> None:
    rows, m = len(model.atoms) + 1, model.weights.shape[-1]
    right = model.atoms.shape[1:] == (len(model.joints), 2)
    right &= model.weights.shape == (rows, m) and model.means.shape == (rows, m, 4)
    right &= model.covariances.shape == (rows, m, 4, 4)
    if not (right and np.allclose(model.weights.sum(-1), 1) and np.isfinite(model.means).all()):
        raise UserError(f"{path} is a PGPG model that does not hold together: write it again")
    try:
        _ = model.factors
    except np.linalg.LinAlgError:
        line = f"{path} is a PGPG model with a covariance that is none"
        raise UserError(f"{line}: write it again") from None
