"""The ablation of RMPE's Table 3 on synthetic scenes with a detector's imperfect boxes.

  rmpe ablate --config=configs/ablation_synthetic.py --workdir=ablation
  rmpe ablate --config=configs/ablation_synthetic.py:ablation/scenes,sstn --workdir=ablation
  rmpe ablate --config=configs/ablation_synthetic.py:ablation/scenes,paper --workdir=ablation_paper

The optional part after a colon is the folder of the scenes, by default `ablation/scenes`. With
`,sstn` only the trainings of the spatial transformer are made, seven of twelve. With `,paper` three
of them are made with the paper's loss, the mean squared error, which fills heatmaps outside the
view with 0, and with a parallel SPPE that is a smaller network of its own. Results and run time:
docs/ablation.md.

As in RMPE's code, crops are not rotated or scaled, except by the proposals.
"""

import ml_collections

from rmpe_jax.config import default_config
from rmpe_jax.errors import UserError

# Trainings that tell what the spatial transformer adds; the last is for its ceiling.
SSTN = (
    "atomic_sstn_parallel",
    "atomic",
    "atomic_sstn",
    "atomic_sstn_parallel_differences",
    "atomic_sstn_differences",
    "atomic_sstn_parallel_differences_context",
    "none",
)

# The simulated detector's errors do not depend on poses, so PGPG chooses no atoms, and "mixture",
# which is PGPG without atoms, would be the same.
ALL = (
    *SSTN,
    *("none_sstn_parallel", "jitter_sstn_parallel", "global_sstn_parallel"),
    *("jitter", "global"),
)

PAPER = SSTN[:3]  # theta learns by gradients, as in the paper


def get_config(arguments: str = "ablation/scenes") -> ml_collections.ConfigDict:
    folder, _, part = arguments.partition(",")
    if part not in ("", "sstn", "paper"):
        raise UserError(
            f"ablation_synthetic.py: there is no part {part!r}; use sstn, paper, or none"
        )
    config = default_config()
    config.total_steps = 1500
    config.batch_size = 16
    config.log_every = 25
    config.checkpoint_every = 500
    config.evaluate_every = 0

    config.model.name = "tinypose_xs"
    config.model.input_size = (96, 64)
    config.codec.loss = "cross_entropy"
    config.codec.sigma = 1.25

    config.data.train = (f"coco:{folder}/train",)
    config.data.padding = 1.3  # the paper's

    config.augmentation.rotation_prob = 0.0
    config.augmentation.scale = 0.0

    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 5.0
    config.optim.ema_decay = 0.995

    with config.unlocked():
        config.ablation = ablation(folder)
        config.ablation.trainings = {"": ALL, "sstn": SSTN, "paper": PAPER}[part]
    if part == "paper":
        config.codec.loss = "mse"
        config.model.name = "tinypose_s"
        config.ablation.teacher = {"model": {"name": "tinypose_xs"}}
    return config


def ablation(folder: str) -> ml_collections.ConfigDict:
    """Settings of `rmpe ablate`, see `experiments.ablation.config`."""
    ablation = ml_collections.ConfigDict()
    ablation.seeds = (0, 1, 2, 3, 4)
    ablation.trainings = ()  # names; empty: all that the rows need
    ablation.first = ""  # workdir of a finished first stage; empty: each seed trains one
    ablation.second = {  # config keys that second stages change
        "total_steps": 300,
        "optim": {"learning_rate": 1e-3, "warmup_steps": 20},
        "sstn": {"localization": "small", "localization_factor": 0.05},
    }
    ablation.localization = {  # config keys that localization stages change; {}: no such stages
        "total_steps": 400,
        "batch_size": 32,
        "optim": {"learning_rate": 2e-4, "schedule": "constant", "warmup_steps": 0},
        "sstn": {"localization_factor": 1.0, "localization_warmup": 50},
    }
    ablation.teacher = {}  # config keys that differ in a parallel SPPE of its own; {}: no such
    ablation.scenes_folder = folder
    ablation.scenes = {"train": (0, 2500), "fit": (2_000_000, 300), "val": (1_000_000, 1000)}
    ablation.pgpg = ((f"coco:{folder}/train", f"{folder}/train/detections.json"),)
    ablation.nms_steps = 15  # values of each parameter per search
    ablation.sets = {
        "scenes": {
            "data": f"coco:{folder}/val",
            "boxes": f"{folder}/val/detections.json",
            "fit_data": f"coco:{folder}/fit",  # where pose NMS is learned
            "fit_boxes": f"{folder}/fit/detections.json",
        }
    }
    return ablation
