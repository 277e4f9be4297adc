"""Random people, for tests of output formats."""

import numpy as np

from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.formats import ImagePoses


def found(name="a.jpg", num_people=2, num_keypoints=17, seed=0) -> ImagePoses:
    """The results for an image of 480 x 640 pixels."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 300, (num_people, 2))
    poses = Poses(
        rng.uniform(0, 480, (num_people, num_keypoints, 2)).astype(np.float32),
        rng.uniform(0.01, 1, (num_people, num_keypoints)).astype(np.float32),
        np.sort(rng.uniform(size=num_people))[::-1].astype(np.float32),
        np.concatenate([low, low + rng.uniform(5, 150, (num_people, 2))], -1).astype(np.float32),
        rng.uniform(size=num_people).astype(np.float32),
    )
    return ImagePoses(name, (480, 640), poses)
