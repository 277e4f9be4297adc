"""A few steps of a small network on any dataset, to check that everything runs.

  python train.py --config=configs/smoke.py:coco:demo/train --workdir=runs/smoke

The part after the first colon is the spec of the dataset. It takes under a minute on 2 cores; the
network learns nothing.
"""

import ml_collections

from rmpe_jax.config import default_config


def get_config(spec: str = "coco:demo/train") -> ml_collections.ConfigDict:
    config = default_config()
    config.total_steps = 6
    config.batch_size = 8
    config.log_every = 2
    config.checkpoint_every = 3
    config.evaluate_every = 3
    config.model.input_size = (64, 64)
    config.data.train = (spec,)
    config.data.evaluate = (spec,)
    return config
