"""RMPE on MPII as in the paper's code: four stages after the training of two hourglasses.

  python train.py --config=configs/mpii_hourglass.py:DATA --workdir=runs/hourglass
  python train.py --config=configs/mpii_hourglass.py:DATA --workdir=runs/hourglass_4 \\
    --config.model.name=hourglass_4
  for stage in 1a 1b 2a 2b; do
    python train.py --config=configs/mpii_rmpe.py:$stage,DATA --workdir=runs/rmpe_$stage
  done

1a and 1b train the eight-stack hourglass on proposals instead of people's boxes. 2a and 2b train
it within the spatial transformer, with the frozen four-stack hourglass as parallel SPPE. Each stage
starts from the previous one. All runs are in the folder `runs` (or that of a third argument).

Source: Fang et al., RMPE, ICCV 2017, and its Torch code: RMSprop, 5 people per step, 8,000 steps
per epoch; 20 epochs at 2.5e-4 and 10 at 0.5e-4 for stage 1, 20 at 0.5e-4 and 10 at 0.1e-4 for stage
2; no rotation or scaling; three of ten proposals show a part of the person. The authors' atomic
poses are not published, so proposals follow their global normal distribution (docs/pgpg.md).
Published: 80.8 mAP on MPII multi-person (validation, with their detector). These stages have not
been trained yet, so their mAP and run time are unknown.

A difference: stages 2a and 2b begin with a warm-up of 500 steps, and their localization network
learns at a twentieth of the rate. The first step of RMSprop moves each weight by ten times the
learning rate, which can move each entry of theta, and so the whole crop, by about .19.
"""

import pathlib
import runpy

import ml_collections

from rmpe_jax.errors import UserError

# Stage: (epochs, learning rate, workdir that it starts from).
STAGES = {
    "1a": (20, 2.5e-4, "hourglass"),
    "1b": (10, 0.5e-4, "rmpe_1a"),
    "2a": (20, 0.5e-4, "rmpe_1b"),
    "2b": (10, 0.1e-4, "rmpe_2a"),
}


def get_config(arguments: str = "1a") -> ml_collections.ConfigDict:
    values = arguments.split(",")
    stage, folder, runs = values + ["1a", "data", "runs"][len(values) :]
    if stage not in STAGES:
        raise UserError(f"mpii_rmpe.py: there is no stage {stage!r}; use {', '.join(STAGES)}")
    epochs, rate, before = STAGES[stage]
    hourglass = pathlib.Path(__file__).with_name("mpii_hourglass.py")
    config = runpy.run_path(str(hourglass))["get_config"](folder)
    config.batch_size = 5
    config.total_steps = 8000 * epochs
    config.model.init_from = f"{runs}/{before}"

    config.data.proposals = "global"
    config.data.patch_prob = 0.3
    config.augmentation.rotation_prob = 0.0
    config.augmentation.scale = 0.0

    config.optim.learning_rate = rate
    config.optim.schedule = "constant"
    config.optim.milestones = ()

    if stage.startswith("2"):
        config.optim.warmup_steps = 500
        config.sstn.enabled = True
        config.sstn.localization = "resnet18"
        config.sstn.localization_factor = 0.05
        config.sstn.parallel = "hourglass_4"
        config.sstn.parallel_from = f"{runs}/hourglass_4"
    return config
