"""Clips of stick people with known identities: a pose of COCO's joints that moves as a whole."""

import numpy as np

from rmpe_jax.skeletons import COCO
from rmpe_jax.tracking import Detections

SIGMAS = COCO.sigmas
K = COCO.num_keypoints
# Where COCO's joints of a standing person are in the box, in fractions of its sides.
_X = [0.5, 0.55, 0.45, 0.6, 0.4, 0.75, 0.25, 0.85, 0.15, 0.9, 0.1, 0.65, 0.35, 0.65, 0.35, 0.7, 0.3]
_Y = [0.08, 0.06, 0.06, 0.07, 0.07, 0.2, 0.2, 0.35, 0.35, 0.5, 0.5]
_Y += [0.52, 0.52, 0.75, 0.75, 0.97, 0.97]
_SHAPE = np.stack([_X, _Y], -1)


def people_at(centers, size=(40, 100), scores=0.9, present=True):
    """Detections of people with these box centers, all of their joints found with their score.

    Args:
      centers: (..., n, 2) pixels.
      size: (width, height) of the boxes, broadcast to the centers.
      scores: of people and joints, broadcast to (..., n).
      present: where the person is found, broadcast to (..., n); the rest is NaN.
    """
    centers = np.asarray(centers, float)
    size = np.broadcast_to(np.asarray(size, float), centers.shape)
    low = centers - size / 2
    keypoints = low[..., None, :] + _SHAPE * size[..., None, :]
    scores = np.broadcast_to(scores, centers.shape[:-1]).astype(float)
    present = np.broadcast_to(present, centers.shape[:-1])
    joint_scores = np.repeat(scores[..., None], K, -1)
    columns = keypoints, joint_scores, np.concatenate([low, low + size], -1), scores
    padded = []
    for column in columns:
        column = column.astype(np.float32)
        column[~present] = np.nan
        padded.append(column)
    return Detections(*padded, present.copy())


def line(start, step, num_frames):
    """Centers (f, 2) of a person who walks straight ahead."""
    return np.asarray(start, float) + np.arange(num_frames)[:, None] * np.asarray(step, float)


def frame(detections, index):
    return Detections(*(values[index] for values in detections))


def permuted(detections, order):
    """The people of each frame in another order, (f, n)."""
    rows = np.arange(len(order))[:, None]
    return Detections(*(values[rows, order] for values in detections))


def crowd(seed, num_frames=30, num_people=6, noise=0.01, miss=0.1, doubtful=0.15):
    """Random walkers with noise, misses and doubtful people; the columns are the identities."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 500, (num_people, 2))
    step = rng.normal(0, 3, (num_people, 2))
    centers = start + np.arange(num_frames)[:, None, None] * step
    height = np.repeat(rng.uniform(60, 120, (1, num_people, 1)), num_frames, 0)
    size = np.concatenate([0.4 * height, height], -1)
    scores = rng.uniform(0.65, 0.95, (num_frames, num_people))
    scores = np.where(rng.uniform(size=scores.shape) < doubtful, 0.25, scores)
    present = rng.uniform(size=scores.shape) >= miss
    found = people_at(centers, size, scores, present)
    joint_noise = noise * height[..., None] * rng.normal(size=found.keypoints.shape)
    box_noise = noise * height * rng.normal(size=found.bboxes.shape)
    return found._replace(
        keypoints=(found.keypoints + joint_noise).astype(np.float32),
        bboxes=(found.bboxes + box_noise).astype(np.float32),
    )
