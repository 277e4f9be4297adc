"""FastPose with ResNet-50 on COCO: AlphaPose's "2x" recipe until box proposals begin.

  python train.py --config=configs/coco_fastpose_res50_256x192.py:FOLDER,WEIGHTS \\
    --workdir=runs/fastpose
  python eval.py --config=configs/coco_fastpose_res50_256x192.py:FOLDER --workdir=runs/fastpose \\
    --boxes=DETECTIONS.json

FOLDER has `coco/` as described in docs/data.md, with train2017 and val2017. WEIGHTS are those of
torchvision's ResNet-50 for ImageNet, by default the file resnet50.pth (docs/interop.md); `random`
starts from random weights. configs/coco_fastpose_res50_proposals.py is the second phase.

Source: Fang et al., AlphaPose, TPAMI 2022, and the settings and training logs published with its
code: 4 GPUs with 32 crops each, Adam, learning rate 1e-3 divided by ten after 170 and 200 epochs,
half-body augmentation, no flip test. At epoch 209 the logs have, on val2017, AP 73.0 with
ground-truth boxes and 70.9 with YOLOv3's. After epochs 210 to 270 with proposals it is 73.2 and
71.2 (model zoo: 72.0 with YOLOv3's boxes and flip test).

Targets and decoding are AlphaPose's. Their Gaussians have rounded centers, so that perfect heatmaps
are still 1.5 crop pixels off on average. Recommended instead are exact centers, decoded by DARK
(Zhang et al., CVPR 2020): --config.codec.integer_center=False --config.codec.decode=dark

These numbers are published. This config has not been trained yet, so its AP and run time are
unknown. Differences: pixels are normalized by ImageNet's mean and standard deviation; batch norms
use the statistics of the whole batch; crop and heatmap are aligned at their centers; arithmetic is
in bfloat16.
"""

import ml_collections

from rmpe_jax.config import default_config

PEOPLE = 149_813  # in train2017 with a labeled joint, as counted in HRNet's published logs


def get_config(arguments: str = "data") -> ml_collections.ConfigDict:
    folder, _, weights = arguments.partition(",")
    config = default_config()
    config.batch_size = 128
    config.total_steps = epochs(210)
    config.log_every = 100
    config.checkpoint_every = 1000
    config.evaluate_every = epochs(5)

    config.model.name = "fastpose_res50"
    config.model.skeleton = "coco"
    config.model.input_size = (256, 192)
    config.model.dtype = "bfloat16"
    config.model.backbone_weights = "" if weights == "random" else weights or "resnet50.pth"

    config.codec.loss = "mse"
    config.codec.sigma = 2.0
    config.codec.integer_center = True
    config.codec.decode = "quarter"

    config.data.train = (f"coco:{folder}/coco:train2017",)
    config.data.evaluate = (f"coco:{folder}/coco:val2017",)
    config.data.padding = 1.25
    config.data.num_workers = 8  # processes, for a host of 16 cores
    config.data.num_threads = 2

    config.augmentation.flip_prob = 0.5
    config.augmentation.rotation_degrees = 45.0
    config.augmentation.rotation_prob = 0.6
    config.augmentation.scale = 0.35
    config.augmentation.half_body_prob = 0.3

    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "step"
    config.optim.milestones = (epochs(170), epochs(200))
    return config


def epochs(count: int) -> int:
    """Epochs in steps of 128 people."""
    return round(count * PEOPLE / 128)
