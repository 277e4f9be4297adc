"""The demo: a small network on synthetic scenes with people.

  make demo
  python train.py --config=configs/synthetic.py --workdir=demo/run    (after the scenes are drawn)

The optional part after a colon is the folder of the scenes: `--config=configs/synthetic.py:demo`.
"""

import ml_collections

from rmpe_jax.config import default_config


def get_config(folder: str = "demo") -> ml_collections.ConfigDict:
    config = default_config()
    config.total_steps = 2600
    config.batch_size = 16
    config.log_every = 100
    config.checkpoint_every = 650
    config.evaluate_every = 650

    config.model.name = "tinypose_s"
    config.model.input_size = (128, 96)
    config.codec.loss = "cross_entropy"
    config.codec.sigma = 1.25

    config.data.train = (f"coco:{folder}/train",)
    config.data.evaluate = (f"coco:{folder}/val",)

    config.data.padding = 1.15  # the scenes' boxes are exact

    config.augmentation.rotation_prob = 0.0  # people are drawn in all orientations
    config.augmentation.scale = 0.1
    config.augmentation.translation = 0.03

    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 200
    config.optim.clip_norm = 5.0
    config.optim.ema_decay = 0.995
    return config
