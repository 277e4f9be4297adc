"""Random images with candidates on the same few people, including degenerate candidates.

Coordinates are whole eighths of pixels and scores whole 1/1024ths: sums of scores and distances at
the edge of a region come out the same in float32 and float64.
"""

import numpy as np

from rmpe_jax.pose_nms import PoseCandidates

K = 17


def random_scenes(seed, num_scenes, n=10, k=K):
    """Candidates (num_scenes, n, ...) with NaN in the padding, which lies anywhere."""
    rng = np.random.default_rng(seed)
    scenes = [_scene(rng, n, k) for _ in range(num_scenes)]
    return PoseCandidates(*(np.stack(values) for values in zip(*scenes, strict=True)))


def _scene(rng, n, k):
    people = rng.uniform(0, 300, (3, k, 2))
    offset = rng.choice([0, 1, 4, 12, 40], n)
    owner = rng.integers(0, rng.integers(1, 4), n)
    keypoints = people[owner] + rng.normal(0, 1, (n, k, 2)) * offset[:, None, None]
    # Some share a part of their joints exactly, or are another candidate moved as a whole.
    shared = rng.uniform(size=(n, k, 1)) < rng.choice([0, 0.3, 0.6], (n, 1, 1))
    keypoints = np.where(shared, people[owner] + rng.integers(0, 2, (n, 1, 1)), keypoints)
    scores = rng.uniform(0, 1, (n, k)) * rng.choice([0.02, 0.3, 1, 1], (n, 1))
    scores *= rng.uniform(size=(n, k)) > 0.1
    sides = rng.uniform(16, 300, (n, 2))
    corner = rng.uniform(0, 200, (n, 2))
    kind = rng.choice(["usual", "identical", "no scores", "no boxes"], p=[0.85, 0.05, 0.05, 0.05])
    if kind == "identical":
        keypoints[:], scores[:] = keypoints[0], scores[0]
    if kind == "no scores":
        scores[:] = 0
    if kind == "no boxes":
        sides[:] = 0.125
    valid = rng.uniform(size=n) < rng.choice([0, 0.1, 0.7, 1], p=[0.05, 0.15, 0.4, 0.4])
    keypoints, corner, sides = (np.round(v * 8) / 8 for v in (keypoints, corner, sides))
    bboxes = np.concatenate([corner, corner + sides], -1)
    columns = keypoints, np.round(scores * 1024) / 1024, bboxes, rng.uniform(0, 1, n)
    padded = []
    for column in columns:
        column = column.astype(np.float32)
        column[~valid] = np.nan
        padded.append(column)
    return *padded, valid
