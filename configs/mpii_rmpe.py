"""RMPE on MPII as the paper's code trains it, in four stages after two hourglasses.

  python train.py --config=configs/mpii_hourglass.py:DATA --workdir=runs/hourglass
  python train.py --config=configs/mpii_hourglass.py:DATA --workdir=runs/hourglass_4 \\
    --config.model.name=hourglass_4
  for stage in 1a 1b 2a 2b; do
    python train.py --config=configs/mpii_rmpe.py:$stage,DATA --workdir=runs/rmpe_$stage
  done

1a and 1b: the eight-stack hourglass, on proposals about people instead of their boxes. 2a and 2b:
the same within the spatial transformer, guided by the frozen four-stack hourglass. Each stage
starts from the one before, all in the folder `runs` (a third argument names another).

Source: Fang et al., RMPE, ICCV 2017, and its Torch code: RMSprop, 5 people a step, 8,000 steps an
epoch; 20 epochs at 2.5e-4 and 10 at 0.5e-4 for stage 1, 20 at 0.5e-4 and 10 at 0.1e-4 for stage 2;
no rotation and no change of scale; three of ten proposals show a part of the person. The authors'
atomic poses are not published: proposals follow their global normal distribution (docs/pgpg.md).
Published: 80.8 mAP on MPII multi-person (validation, with their detector). Not trained here yet:
expected mAP and time are open.
"""

import pathlib
import runpy

import ml_collections

from rmpe_jax.errors import UserError

# Stage: (epochs, learning rate, workdir it starts from).
STAGES = {
    "1a": (20, 2.5e-4, "hourglass"),
    "1b": (10, 0.5e-4, "rmpe_1a"),
    "2a": (20, 0.5e-4, "rmpe_1b"),
    "2b": (10, 0.1e-4, "rmpe_2a"),
}


def get_config(arguments: str = "1a") -> ml_collections.ConfigDict:
    given = arguments.split(",")
    stage, folder, runs = given + ["1a", "data", "runs"][len(given) :]
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
        config.sstn.enabled = True
        config.sstn.localization = "resnet18"
        config.sstn.parallel = "hourglass_4"
        config.sstn.parallel_from = f"{runs}/hourglass_4"
    return config
