"""Align poses in a common frame, and find the nearest atomic pose of each (P17 section 3.3).

Unknown joints are NaN in all functions.
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

# Atomic poses have the joints that MPII, LSP and CrowdPose share. COCO lacks neck and head top.
ATOMS = LSP

# Lower bound on the torso's length, as a fraction of the farthest joint's distance. A torso seen
# along its axis is very short, and dividing by its length would enlarge the limbs. One in a hundred
# of MPII's 25,000 poses has a torso below this bound.
MIN_TORSO_FRACTION = 0.24


def mask_with_nan(
    keypoints: Float[np.ndarray, "n k 2"],
    visibility: Num[np.ndarray, "n k"] | Bool[np.ndarray, "n k"] | None,
) -> Float[np.ndarray, "n k 2"]:
    """The keypoints, with NaN where visibility is 0 or False."""
    if visibility is None:
        return keypoints
    return np.where(visibility[..., None] > 0, keypoints, np.nan)


def to_atom_joints(
    keypoints: Float[np.ndarray, "n k 2"], skeleton: Skeleton
) -> Float[np.ndarray, "n 14 2"]:
    """Keypoints of any skeleton in the order of `ATOMS`, NaN for joints that it lacks.

    Raises:
      UserError: the keypoints have another number of joints than the skeleton.
    """
    skeleton.check_num_keypoints(keypoints.shape[1], "PGPG: poses")
    indices = ATOMS.indices_in(skeleton)
    return np.where(indices[:, None] >= 0, keypoints[:, indices], np.nan)


def align(
    keypoints: Float[np.ndarray, "n k 2"], joints: Sequence[str]
) -> Float[np.ndarray, "n k 2"]:
    """Move and scale poses so that the torso's center is (0, 0) and its length is 1; no rotation.

    The torso goes from the middle of the shoulders to the middle of the hips. If one of a pair is
    unknown, the other one counts as the middle. The length is at least `MIN_TORSO_FRACTION` of the
    farthest joint's distance from the torso's center. If both shoulders or both hips are unknown,
    all joints of the pose become NaN.

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
    length = np.maximum(length, MIN_TORSO_FRACTION * farthest)
    aligned = offset / np.where(has_torso & (length > 0), length, np.nan)[:, None, None]
    aligned[~known] = np.nan
    return aligned


def _torso(
    points: Float[np.ndarray, "n k 2"], known: Bool[np.ndarray, "n k"], joints: Sequence[str]
) -> tuple[Float[np.ndarray, "n 2 2"], Bool[np.ndarray, " n"]]:
    """The middles of the known shoulders and of the known hips, and whether both exist."""
    pairs = _pairs(tuple(joints))
    count = known @ pairs.T
    return pairs @ points / np.maximum(count, 1)[..., None], np.all(count > 0, axis=-1)


@functools.cache
def _pairs(joints: tuple[str, ...]) -> Float[np.ndarray, "2 k"]:
    """1 for the shoulders in the first row and for the hips in the second, 0 elsewhere."""
    return np.array(
        [[joint.endswith(part) for joint in joints] for part in ("shoulder", "hip")], float
    )


def nearest_atoms(
    aligned: Float[np.ndarray, "n k 2"], atoms: Float[np.ndarray, "a k 2"]
) -> Int[np.ndarray, " n"]:
    """The index of the atomic pose nearest to each pose, over the joints that both have.

    Poses of NaN only, and all poses if there are no atoms, get the index a.
    """
    if not len(atoms):
        return np.zeros(len(aligned), int)
    size = 2 * atoms.shape[1]
    points, centers = aligned.reshape(-1, size), atoms.reshape(-1, size)
    both = ~np.isnan(points) & ~np.isnan(centers).any(0)
    points, centers = np.where(both, points, 0), np.where(np.isnan(centers), 0, centers)
    # Squared distance without the square of the pose, which is the same for all atoms.
    distance = both @ (centers**2).T - 2 * points @ centers.T
    return np.where(both.any(-1), distance.argmin(-1), len(atoms))


def fit_atoms(
    aligned: Float[np.ndarray, "n k 2"], num_atoms: int, seed: int = 0, rounds: int = 20
) -> Float[np.ndarray, "a k 2"]:
    """Atomic poses, the most frequent first: centers of k-means over aligned poses with NaN joints.

    Missing joints are treated as in k-POD (Chi, Chi and Baraniuk, "k-POD: a method for k-means
    clustering of missing data", 2016): fill them in from the pose's cluster center, run k-means
    again, and repeat. This minimizes the squared distance over the known joints.

    Args:
      aligned: poses of `align`.
      num_atoms: a.
      seed: of k-means.
      rounds: at most this many repetitions.

    Raises:
      UserError: scikit-learn is not installed, or there are fewer poses than atoms.
    """
    poses = aligned[~np.isnan(aligned).all((1, 2))]
    if len(poses) < num_atoms:
        raise UserError(
            f"{len(poses)} poses do not make {num_atoms} atoms: give more poses or fewer atoms"
        )
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
    """Cluster centers, and the cluster of each point; points may contain NaN."""
    k_means = import_sklearn("sklearn.cluster").KMeans
    missing = np.isnan(points)
    with single_thread():
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
    """Means of the known coordinates of each label's points; `centers` where all are NaN."""
    means = centers.copy()
    for label in range(len(centers)):
        members = points[labels == label]
        count = (~np.isnan(members)).sum(0)
        means[label] = np.where(count, np.nansum(members, 0) / np.maximum(count, 1), centers[label])
    return means


def single_thread() -> contextlib.AbstractContextManager:
    """A context in which scikit-learn uses one thread.

    Its threads wait for each other on machines that run other programs too.
    """
    return import_sklearn("threadpoolctl").threadpool_limits(1)


def import_sklearn(module: str) -> types.ModuleType:
    """Import a module of scikit-learn or of its dependencies.

    Raises:
      UserError: scikit-learn is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        line = "fitting PGPG needs scikit-learn: pip install 'rmpe_jax[fit]'"
        raise UserError(line) from None
