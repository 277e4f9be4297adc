"""RMPE in two stages on synthetic scenes: the demo's network, then with the spatial transformer.

  make demo                                                                         (stage 1)
  python train.py --config=configs/synthetic_sstn.py --workdir=demo/sstn            (stage 2)

The optional part after a colon is the folder of the scenes and of the first run, by default `demo`.
Stage 2 starts from `demo/run`. Its crops are shifted and scaled, so that the spatial transformer
has errors to correct. The frozen network of stage 1 is the parallel SPPE.
"""

import pathlib
import runpy

import ml_collections


def get_config(folder: str = "demo") -> ml_collections.ConfigDict:
    first = pathlib.Path(__file__).with_name("synthetic.py")
    config = runpy.run_path(str(first))["get_config"](folder)
    config.total_steps = 600
    config.checkpoint_every = 300
    config.evaluate_every = 300

    config.model.init_from = f"{folder}/run"
    config.sstn.enabled = True
    config.sstn.localization = "small"
    config.sstn.parallel = config.model.name

    config.augmentation.scale = 0.3
    config.augmentation.translation = 0.15

    config.optim.learning_rate = 1e-3
    return config
