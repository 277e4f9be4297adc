"""ViTPose on COCO, in the sizes small, base, large and huge.

  python train.py --config=configs/coco_vitpose_256x192.py:base,FOLDER --workdir=runs/vitpose
  python eval.py --model=runs/vitpose --data=coco:FOLDER/coco:val2017 --flip_test

FOLDER has `coco/` as described in docs/data.md, with train2017 and val2017. The backbone of "base"
and "large" starts from MAE (He et al., CVPR 2022), which is downloaded from the Hugging Face Hub.
MAE's authors have no "small", and their "huge" has patches of 14 pixels: these two need weights of
patches of 16 pixels. `SIZE,FOLDER,WEIGHTS` names other weights (a folder of Hugging Face, an `hf:`
name or a `.pth` file), or `random`.

Source: Xu et al., ViTPose, NeurIPS 2022, and the configs published with its code and with mmpose:
8 GPUs with 64 crops each, AdamW 5e-4 with weight decay 0.1, layer-wise decay and drop path by size,
gradients clipped at norm 1, 500 steps of warm-up, divided by ten after 170 and 200 of 210 epochs,
targets of unbiased data processing. On val2017, with a detector of 56.4 AP and flip test, AP is
73.8, 75.8, 78.3 and 79.1.

These numbers are published. This config has not been trained, so its AP and run time are unknown.
"""

import ml_collections

from rmpe_jax.config import default_config
from rmpe_jax.errors import UserError

PEOPLE = 149_813  # in train2017 with a labeled joint, as counted in HRNet's published logs
BATCH_SIZE = 512
SIZES = {  # network, layer decay, drop path, initial weights
    "small": ("vitpose_s", 0.8, 0.1, ""),
    "base": ("vitpose_b", 0.75, 0.3, "hf:facebook/vit-mae-base"),
    "large": ("vitpose_l", 0.8, 0.5, "hf:facebook/vit-mae-large"),
    "huge": ("vitpose_h", 0.85, 0.55, ""),
}


def get_config(argument: str = "base") -> ml_collections.ConfigDict:
    size, folder, weights = [*argument.split(",", 2), "", ""][:3]
    if size not in SIZES:
        raise UserError(f"there is no size {size!r}; use {', '.join(SIZES)}, as in base,FOLDER")
    folder = folder or "data"
    name, layer_decay, drop_path, default_weights = SIZES[size]
    weights = weights or default_weights
    if not weights:
        raise UserError(f"no initial weights are known for {size}: give {size},FOLDER,WEIGHTS")

    config = default_config()
    config.batch_size = BATCH_SIZE
    config.total_steps = epochs(210)
    config.log_every = 100
    config.checkpoint_every = 1000
    config.evaluate_every = epochs(10)

    config.model.name = name
    config.model.skeleton = "coco"
    config.model.input_size = (256, 192)
    config.model.dtype = "bfloat16"
    config.model.backbone_weights = "" if weights == "random" else weights
    config.transformer.drop_path = drop_path
    config.transformer.remat = size in ("large", "huge")

    config.codec.loss = "mse"
    config.codec.sigma = 2.0
    config.codec.alignment = "udp"
    config.codec.decode = "dark_udp"

    config.data.train = (f"coco:{folder}/coco:train2017",)
    config.data.evaluate = (f"coco:{folder}/coco:val2017",)
    config.data.num_workers = 8  # processes, for a host of 16 cores
    config.data.num_threads = 2

    config.augmentation.flip_prob = 0.5
    config.augmentation.rotation_degrees = 40.0
    config.augmentation.rotation_prob = 0.6
    config.augmentation.scale = 0.5
    config.augmentation.half_body_prob = 0.3

    config.optim.name = "adamw"
    config.optim.learning_rate = 5e-4
    config.optim.weight_decay = 0.1
    config.optim.layer_decay = layer_decay
    config.optim.clip_norm = 1.0
    config.optim.warmup_steps = 500
    config.optim.schedule = "step"
    config.optim.milestones = (epochs(170), epochs(200))
    return config


def epochs(count: int) -> int:
    """Epochs in steps of `BATCH_SIZE` people."""
    return round(count * PEOPLE / BATCH_SIZE)
