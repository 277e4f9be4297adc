"""Eight stacked hourglasses on MPII: the pose network of the RMPE paper before its fine-tuning.

  python train.py --config=configs/mpii_hourglass.py:FOLDER --workdir=runs/hourglass
  python eval.py --config=configs/mpii_hourglass.py:FOLDER --workdir=runs/hourglass --flip_test

FOLDER has `mpii/` as described in docs/data.md, with the splits train and valid.

Source: Newell et al., Stacked Hourglass Networks, ECCV 2016, and the defaults of its code: RMSprop,
learning rate 2.5e-4, up to 100 epochs of 8,000 steps of 6 people, rotation within 30 degrees, scale
.75 to 1.25. RMPE (Fang et al., ICCV 2017) starts from such a network. Crops (box + 30 %, pixels in
0..1, gains of the color channels) and target heatmaps (Gaussians of 1.75 pixels, centered on a
pixel) are those of RMPE's code. Published PCKh@0.5, with flip test: 90.9 on MPII's test set, 88.1
on valid.

These numbers are published. This config has not been trained yet, so its PCKh and run time are
unknown. Differences: the learning rate is divided once by ten, after 600,000 steps (paper: by five
when the validation accuracy stops rising); joints without annotation are masked; people's boxes are
the extent of their joints (paper: annotated center and scale).
"""

import ml_collections

from rmpe_jax.config import default_config


def get_config(folder: str = "data") -> ml_collections.ConfigDict:
    config = default_config()
    config.batch_size = 6
    config.total_steps = 100 * 8000
    config.log_every = 500
    config.checkpoint_every = 4000
    config.evaluate_every = 2 * 8000

    config.model.name = "hourglass_8"
    config.model.skeleton = "mpii"
    config.model.input_size = (256, 256)
    config.model.mean = (0.0, 0.0, 0.0)
    config.model.std = (1.0, 1.0, 1.0)

    config.codec.loss = "mse"
    config.codec.sigma = 1.75
    config.codec.integer_center = True
    config.codec.decode = "quarter"

    config.data.train = (f"mpii:{folder}/mpii:train",)
    config.data.evaluate = (f"mpii:{folder}/mpii:valid",)
    config.data.padding = 1.3

    config.augmentation.flip_prob = 0.5
    config.augmentation.rotation_degrees = 15.0  # clipped at twice this
    config.augmentation.rotation_prob = 1.0
    config.augmentation.scale = 0.25
    config.augmentation.color_gain = (0.6, 1.4)

    config.optim.name = "rmsprop"
    config.optim.learning_rate = 2.5e-4
    config.optim.schedule = "step"
    config.optim.milestones = (600_000,)
    return config
