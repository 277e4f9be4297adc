"""Poses in a common frame, and the atomic pose nearest to each (P17 section 3.3).

Joints that are not known are NaN throughout.
"""

import contextlib
import functools
import importlib
import types
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import LSP, Skeleton

# Atomic poses are of the joints that MPII, LSP and CrowdPose share; COCO has all but neck and head.
ATOMS = LSP

# A torso seen along its axis has hardly a length, and would blow the limbs up. Of MPII's 25,000
# poses one in a hundred has a torso shorter than this share of the farthest joint's distance.
SHORTEST_TORSO = 0.24


def with_nan(
    keypoints: Float[np.ndarray, "n k 2"], visibility: Num[np.ndarray, "n k"] | None
) -> Float[np.ndarray, "n k 2"]:
    """NaN where visibility is 0, beside where it is already."""
    return (
        keypoints if visibility is None else np.where(visibility[..., None] > 0, keypoints, np.nan)
    )


def in_atom_joints(
    keypoints: Float[np.ndarray, "n k 2"], skeleton: Skeleton
) -> Float[np.ndarray, "n 14 2"]:
    """Keypoints of any skeleton in the order of `ATOMS`, NaN where it lacks one."""
    indices = ATOMS.indices_in(skeleton)
    return np.where(indices[:, None] >= 0, keypoints[:, indices], np.nan)


def align(
    keypoints: Float[np.ndarray, "n k 2"], joints: Sequence[str]
) -> Float[np.ndarray, "n k 2"]:
    """Poses with the centre of the torso at (0, 0) and a torso of length 1; not rotated.

    The torso goes from the middle of the shoulders to the middle of the hips; where one of a pair
    is not known the other stands for both. Its length counts as at least `SHORTEST_TORSO` of the
    farthest joint's distance from its centre. Where no shoulder or no hip is known the whole pose
    is NaN.

    Args:
      keypoints: image pixels.
      joints: names of the k joints.
    """
    known = np.all(np.isfinite(keypoints), axis=-1)
    points = np.where(known[..., None], keypoints, 0)
    ends, has_torso = _torso(points, known, joints)
    offset = np.where(known[..., None], points - ends.mean(-2, keepdims=True), 0)
    farthest = np.hypot(offset[..., 0], offset[..., 1]).max(-1)
    length = np.hypot(*(ends[:, 0] - ends[:, 1]).T)
    length = np.maximum(length, SHORTEST_TORSO * farthest)
    aligned = offset / np.where(has_torso & (length > 0), length, np.nan)[:, None, None]
    aligned[~known] = np.nan
    return aligned


def _torso(
    points: Float[np.ndarray, "n k 2"], known: Bool[np.ndarray, "n k"], joints: Sequence[str]
) -> tuple[Float[np.ndarray, "n 2 2"], Bool[np.ndarray, " n"]]:
    """Middle of the known shoulders and of the known hips, and whether there are both."""
    pairs = _pairs(tuple(joints))
    count = known @ pairs.T
    return pairs @ points / np.maximum(count, 1)[..., None], np.all(count > 0, axis=-1)


@functools.cache
def _pairs(joints: tuple[str, ...]) -> Float[np.ndarray, "2 k"]:
    """1 for the shoulders in the first row, and for the hips in the second."""
    return np.array(
        [[joint.endswith(part) for joint in joints] for part in ("shoulder", "hip")], float
    )


def nearest_atoms(
    aligned: Float[np.ndarray, "n k 2"], atoms: Float[np.ndarray, "a k 2"]
) -> Int[np.ndarray, " n"]:
    """Index of the atomic pose nearest to each pose, over the joints that both have.

    Poses that are all NaN, and all poses where there are no atoms, get index a.
    """
    if not len(atoms):
        return np.zeros(len(aligned), int)
    size = 2 * atoms.shape[1]
    points, centers = aligned.reshape(-1, size), atoms.reshape(-1, size)
    both = ~np.isnan(points) & ~np.isnan(centers).any(0)
    points, centers = np.where(both, points, 0), np.where(np.isnan(centers), 0, centers)
    # Squared distance, without the pose's own square, which is the same for every atom.
    distance = both @ (centers**2).T - 2 * points @ centers.T
    return np.where(both.any(-1), distance.argmin(-1), len(atoms))


def fit_atoms(
    aligned: Float[np.ndarray, "n k 2"], num_atoms: int, seed: int = 0, rounds: int = 20
) -> Float[np.ndarray, "a k 2"]:
    """Atomic poses, the commonest first: centres of k-means over aligned poses with NaN joints.

    Where joints are missing this is k-POD (Chi, Chi and Baraniuk, "k-POD: a method for k-means
    clustering of missing data", 2016): they are filled in from the pose's centre and the centres
    found anew, in turn, which minimises the squared distance over the joints that are there.

    Raises:
      UserError: scikit-learn is not installed, or there are fewer poses than atoms.
    """
    poses = aligned[~np.isnan(aligned).all((1, 2))]
    if len(poses) < num_atoms:
        raise UserError(f"{len(poses)} poses do not make {num_atoms} atoms: give more, or ask less")
    points = poses.reshape(len(poses), -1)
    seen = ~np.isnan(points).all(0)
    centers, labels = _k_pod(points[:, seen], num_atoms, seed, rounds)
    order = np.argsort(-np.bincount(labels, minlength=num_atoms), kind="stable")
    atoms = np.full((num_atoms, points.shape[1]), np.nan)
    atoms[:, seen] = centers[order]
    return atoms.reshape(num_atoms, *aligned.shape[1:])


def _k_pod(
    points: Float[np.ndarray, "n d"], num: int, seed: int, rounds: int
) -> tuple[Float[np.ndarray, "num d"], Int[np.ndarray, " n"]]:
    """Centres, and which one each point with NaN belongs to."""
    k_means = need_sklearn("sklearn.cluster").KMeans
    missing = np.isnan(points)
    with one_thread():
        filled = np.where(missing, np.nanmean(points, 0), points)
        found = k_means(num, n_init=2, random_state=seed).fit(filled)
        for _ in range(rounds):
            labels = found.labels_
            centers = _known_means(points, labels, found.cluster_centers_)
            filled = np.where(missing, centers[labels], points)
            found = k_means(num, init=centers, n_init=1).fit(filled)
            if np.array_equal(found.labels_, labels):
                break
    return _known_means(points, found.labels_, found.cluster_centers_), found.labels_


def _known_means(
    points: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    centers: Float[np.ndarray, "num d"],
) -> Float[np.ndarray, "num d"]:
    """Means over what is not NaN of each label's points; `centers` where all is."""
    means = centers.copy()
    for label in range(len(centers)):
        members = points[labels == label]
        count = (~np.isnan(members)).sum(0)
        means[label] = np.where(count, np.nansum(members, 0) / np.maximum(count, 1), centers[label])
    return means


def one_thread() -> contextlib.AbstractContextManager:
    """In it scikit-learn uses one thread: many wait for each other where other programs run."""
    return need_sklearn("threadpoolctl").threadpool_limits(1)


def need_sklearn(module: str) -> types.ModuleType:
    """A module of scikit-learn or that comes with it; a UserError if that is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        line = "fitting PGPG needs scikit-learn: pip install 'rmpe_jax[fit]'"
        raise UserError(line) from None
